"""Schema of rows between the pipeline's stages: a CAPTIONS row and, beside it, what the manifest will count.

Knows the private columns between the stages; they never reach the table on disk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from reid_ray.records import CAPTIONS, table_of

STAGED = pa.schema(
    [
        *CAPTIONS,
        pa.field("image_outcome", pa.string()),  # on the first row of each image: ok, or the code of its failure; null elsewhere
        pa.field("tokens", pa.int32()),  # tokens generated for this row, all tries together
        pa.field("prompt_tokens", pa.int32()),  # tokens of this row's prompts, all tries together
        pa.field("cached_tokens", pa.int32()),  # those of them that the engine found in its prefix cache
        pa.field("seconds", pa.float64()),  # this row's share of its batch's time in the actor
        pa.field("startup_seconds", pa.float64()),  # on the first row an actor makes: what loading its models took; null elsewhere
    ]
)


def staged_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows of one stage as a STAGED table."""
    return table_of(STAGED, rows)


def reason_code(reason: str | None) -> str:
    """The short code that a reason begins with, "" where there is none: few enough values to count by."""
    return (reason or "").partition(":")[0]
