"""How long a captioner's answers are: lognormal, 71 tokens on average, 25 more or less, between 25 and 160.

Pure: a length is a function of the name it is asked for, so that the same crop's answer is as long whoever asks.
"""

from __future__ import annotations

import hashlib
import math
from statistics import NormalDist

MEAN, DEVIATION = 71.0, 25.0
SHORTEST, LONGEST = 25, 160
_SIGMA = math.sqrt(math.log1p((DEVIATION / MEAN) ** 2))
_TOKENS = NormalDist(math.log(MEAN) - _SIGMA**2 / 2, _SIGMA)


def answer_tokens(name: bytes) -> int:
    """Tokens of the answer about what `name` names."""
    drawn = (int.from_bytes(hashlib.sha256(name).digest()[:7]) + 0.5) / 2**56
    return min(LONGEST, max(SHORTEST, round(math.exp(_TOKENS.inv_cdf(drawn)))))
