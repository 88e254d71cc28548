"""Configuration of jobs/train.py: a dual encoder trained on images and captions by Ray Train and DeepSpeed."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from reid_ray.config.base import Section
from reid_ray.config.paths import PathOrAddress
from reid_ray.model.dual.config import ModelConfig
from reid_ray.train.feed.config import PairCaptions, PairTrainingJob
from reid_ray.train.losses.config import ObjectiveConfig
from reid_ray.train.masking.config import MaskingConfig


class TrainCaptions(PairCaptions):
    """Which captions of an image a dual encoder learns from."""

    rewrite_share: float = Field(
        0.2,
        ge=0,
        le=1,
        description="probability that an accepted rewrite takes the place of its original (LLM-DA's beta; 0.2 there); 0 reads no rewrites. "
        "A caption without accepted rewrites always stands",
    )

    @property
    def reads_rewrites(self) -> bool:
        """Whether rewrites are of use."""
        return self.rewrite_share > 0


class TransferSet(Section):
    """Another data set, by the text-to-image protocol: val after each validation, test once at the end with the kept weights."""

    name: str = Field(pattern=r"^[\w.-]+$", description="as the log and the manifest shall name it, such as ICFG-PEDES")
    images: PathOrAddress = Field(description="its IMAGES table")
    captions: PathOrAddress = Field(description="its CAPTIONS table")
    caption_kinds: list[Literal["human", "static", "dynamic"]] = Field(["human"], min_length=1, description="kinds of captions that query")
    val_split: str | None = Field("val", description="split looked at while training; null if it has none")
    test_split: str | None = Field("test", description="split scored once at the end; null leaves it out")

    @model_validator(mode="after")
    def _test_is_not_looked_at(self) -> Self:
        if self.val_split is None and self.test_split is None:
            raise ValueError("val_split and test_split are both null, so there is nothing to evaluate; give one, or drop the set")
        if self.val_split is not None and self.val_split in {"test", self.test_split}:
            raise ValueError(f"val_split is {self.val_split!r}, but a test split is scored once, at the end; set val_split to null")
        return self


class TrainJob(PairTrainingJob):
    """Train a dual encoder on images and their captions.

    Ray Train keeps the workers alive, DeepSpeed shards the training state over them, and the weights that score best on the
    validation split are kept.
    """

    captions: TrainCaptions
    model: ModelConfig = ModelConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    masking: MaskingConfig = MaskingConfig()
    transfer: list[TransferSet] = Field([], description="data sets for direct-transfer evaluation; the weights are never chosen by them")

    @model_validator(mode="after")
    def _prediction_needs_masks(self) -> Self:
        if self.objective.irr.weight and self.masking.kind == "none":
            raise ValueError("objective.irr predicts masked words, but masking.kind is none; set it to equal or nam, or irr.weight to 0")
        if self.masking.masked_for == "irr" and not self.objective.irr.weight:
            raise ValueError(
                "masking.masked_for is irr, but objective.irr.weight is 0, so no loss would read the masked text; set it to all"
            )
        return self

    @model_validator(mode="after")
    def _transfer_names_are_distinct(self) -> Self:
        names = [each.name for each in self.transfer]
        if len(set(names)) < len(names):
            raise ValueError(f"transfer has names that are not distinct: {names}")
        return self
