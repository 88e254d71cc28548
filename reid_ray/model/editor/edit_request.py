"""What an editor is asked: a picture, a mask, a prompt and the reference crops of the prompt's nouns. Knows arrays; no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

MOST_REFERENCES = 3  # attributes of a caption that are linked to segments (DP: at most 3)


@dataclass(frozen=True)
class EditReference:
    """A reference crop, and the noun of the prompt that it stands for.

    start, end: characters of the noun in EditRequest.prompt, end exclusive.
    crop: uint8 [h, w, 4], RGBA; alpha 0 is not a part of the thing.
    """

    start: int
    end: int
    crop: np.ndarray


@dataclass(frozen=True)
class EditRequest:
    """One edit.

    picture: uint8 [H, W, 3].
    mask: bool [H, W]; what may change.
    prompt: the caption without the looks of the changed things (attributes/substitution.py, nothing in their place): a text encoder knows
        colours, and where the prompt gives one away the reference is not looked at.
    references: at most MOST_REFERENCES, each with another noun.
    seed: of the noise; the same request gives the same picture.
    """

    picture: np.ndarray
    mask: np.ndarray
    prompt: str
    references: tuple[EditReference, ...]
    seed: int

    def __post_init__(self) -> None:
        height, width = self.picture.shape[:2]
        if self.mask.shape != (height, width) or not self.mask.any():
            raise ValueError(f"the mask is {self.mask.shape} with {int(self.mask.sum())} pixels set, but the picture is {(height, width)}")
        if len(self.references) > MOST_REFERENCES:
            raise ValueError(f"{len(self.references)} references were given; an edit takes at most {MOST_REFERENCES}")


class PictureEditor(Protocol):
    """What the edit job needs of an editor."""

    revision: str  # digest of the weights' folder, or a hub commit
    sampling: str  # fingerprint of how pictures are drawn

    def edit(self, requests: Sequence[EditRequest]) -> list[np.ndarray]:
        """One uint8 [H, W, 3] for each request, a function of that request alone; outside its mask the source's pixels.

        Of numbers in another batch the last bit may differ: results agree within a grey level whatever stands beside a request.
        """
        ...
