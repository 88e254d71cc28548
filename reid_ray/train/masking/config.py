"""Configuration of token masking: none, equal probability (as in BERT), or noise-aware (NAM)."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from reid_ray.config.base import Section


class MaskingConfig(Section):
    """Which words the text tower does not see. A chosen token becomes the mask 80 %, a random one 10 %, itself 10 %."""

    kind: Literal["none", "equal", "nam"] = Field(
        "none", description="equal: every token with `probability`; nam: noise-aware, the doubtful ones more often (Tan et al. 2024)"
    )
    probability: float = Field(0.15, gt=0, lt=1, description="mean probability of masking a token (0.15 as in BERT; 0.10 to 0.30 work)")
    at_least_one: bool = Field(
        True,
        description="a caption of which chance masks nothing gets its first word masked, as in the authors' code; false leaves it whole",
    )
    mask_token: Literal["start", "trained"] = Field(
        "start",
        description="start: CLIP's start mark stands in for [MASK], unless the model has a mask token; trained: one more entry of the "
        "vocabulary, which begins as the start mark's copy, trains, and is saved with the model",
    )
    masked_for: Literal["all", "irr"] = Field(
        "all",
        description="all: every loss reads the masked text (as in the code of IRRA and LUPerson-MLLM); irr: the prediction of masked words "
        "alone does, the other losses read the whole text, for a second pass of the text tower",
    )
    depth: float = Field(
        0.83,
        gt=0,
        le=1,
        description="nam compares tokens with patches after this share of each tower's layers (layer 10 of 12; 8 to 12 work)",
    )
    export: bool = Field(True, description="nam: write every token's last noise level to noise/ (Parquet) and a page to noise.html")

    @model_validator(mode="after")
    def _a_trained_token_is_used(self) -> Self:
        if self.mask_token == "trained" and self.kind == "none":
            raise ValueError("mask_token is trained, but kind is none, so nothing would be masked by it; set kind to equal or nam")
        return self
