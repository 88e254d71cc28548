"""What the edit job asks of a verifier, and of its verdict on one drawing. The verifier itself is reid_ray.edit.verify's.

Knows arrays and words; no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np


class PictureFinding(Protocol):
    """Whether a drawing stands, and what was read on it; verify.verifier.PictureVerdict is one."""

    @property
    def stands(self) -> bool:
        """Whether it may be published."""

    @property
    def reason(self) -> str | None:
        """As "code: detail" where it may not."""

    @property
    def read(self) -> Mapping[str, Mapping[str, str]]:
        """Slot -> {attribute: value}, as read on the drawing."""


@dataclass(frozen=True)
class Standing:
    """A finding that is given."""

    stands: bool
    reason: str | None = None
    read: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


class PictureVerifier(Protocol):
    """What the edit job needs of a verifier. `check` is called from several threads."""

    revision: str  # digest of its weights

    def check(
        self, source: np.ndarray, drawn: np.ndarray, masks: Mapping[str, np.ndarray], wanted: Mapping[str, Mapping[str, str]]
    ) -> PictureFinding:
        """Whether `drawn` shows what was wanted, and else what `source` shows; both uint8 [H, W, 3].

        Args:
            source: before.
            drawn: after.
            masks: slot -> bool [H, W]: what may have changed.
            wanted: slot -> {attribute: value}, as in {"upper": {"upper_color": "red"}}.
        """
