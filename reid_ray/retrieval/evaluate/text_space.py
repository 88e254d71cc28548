"""Text space of an evaluation: whether training ever brought the encoder's texts to its images, and the sentence that says so.

A multimodal LLM has a latent feature of a caption whether or not a loss compared it with an image's; a score of captions that none did is
of the language model's own space. Knows result.json; no models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def texts_untrained(result: Mapping[str, Any]) -> bool:
    """Whether a result is of captions that no loss brought to images; a result of an older version never is."""
    return result["encoder"].get("texts_trained") is False


def untrained_sentence() -> str:
    """What a reader must know before the numbers."""
    return (
        "WARNING: the model was tuned without objective.sdm, so no loss brought its captions to its images: these numbers are a direct "
        "transfer of the language model's own space."
    )
