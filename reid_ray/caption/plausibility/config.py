"""Configuration of the plausibility check: what is sampled, and the limits beyond which captions are doubted, with their reasons.

The limits were set on synthetic people and a street's crops before they were asked of anything else; benchmarks/caption_plausibility.py
has the numbers of sets that must pass and of sets that must not.
"""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from reid_ray.config.base import Section
from reid_ray.config.common import ImagesConfig, OutputConfig
from reid_ray.config.paths import LocalPath, PathOrAddress


class TextLimits(Section):
    """What is read of each captioner's captions, and the limits of what is told by their texts alone; doubted is beyond chance only."""

    captions: int = Field(
        20_000, ge=100, description="captions of each captioner that are read for attributes, drawn by a digest of their ids"
    )
    seed: int = Field(0, ge=0, description="of the samples")
    least: int = Field(50, ge=10, description="captions, or pairs of pictures, below which a statement is not judged")
    max_color_share: float = Field(
        0.8,
        gt=0,
        le=1,
        description="of the captions that say a colour of what is worn above, the most with one colour; a crowd in one wears a uniform: "
        "raise it for that",
    )
    max_gender_share: float = Field(
        0.97, gt=0, le=1, description="the most of one gender, of the captions that say it; raise it for a barracks"
    )
    max_same_text: float = Field(
        0.05,
        gt=0,
        le=1,
        description="how often two captions of different pictures may be the same text, word for word; where 20 attribute words vary it is "
        "below 0.001",
    )


class TrustedCaptions(Section):
    """Captions that are true, such as people's, and their pictures: how an encoder scores them is what others are held against."""

    captions: PathOrAddress = Field(description="CAPTIONS table: captions/ of an ingest, say; rewrites and failures do not count")
    images: ImagesConfig = Field(description="where their pictures are, best of the kind that is captioned")
    share: float = Field(
        0.5, gt=0, le=1, description="least part of what these captions score above chance that others must reach; 1 is as good as these"
    )


class PlausibilityConfig(TextLimits):
    """What is looked at of captions and of their pictures, and the limits."""

    pictures: int = Field(
        1_000, ge=0, description="pictures that are decoded and compared with their captions, neighbours together; 0 looks at texts alone"
    )
    min_picture_information: float = Field(
        0.02,
        ge=0,
        le=1,
        description="least share of what captions say that depends on the picture: mutual information with clusters of pictures by their "
        "colours, less that of shuffled captions; 0 of captions that are another picture's",
    )
    min_color_agreement: float = Field(
        0.2,
        ge=0,
        le=1,
        description="least agreement of said colours with the pixels of that half of the picture, 0 where any other picture would agree as "
        "well, 1 where all do; English captions",
    )
    near_bits: int = Field(
        15,
        ge=0,
        le=40,
        description="bits of 128 in which the perceptual hashes of near-duplicates differ at most; 16 or more: another picture",
    )
    max_contradictions: float = Field(
        0.15,
        gt=0,
        le=1,
        description="how often captions of near-duplicates may contradict each other, as a share of how often those of any two pictures do",
    )
    min_pair_score: float = Field(
        0.6,
        ge=0.5,
        le=1,
        description="with an encoder: least probability that a caption is nearer to its own picture than to another's; 0.5 is chance. "
        "Encoders differ: `trusted` sets it by true captions",
    )
    trusted: TrustedCaptions | None = Field(
        None, description="true captions that calibrate min_pair_score for this encoder; null takes it as it is"
    )
    encoder: LocalPath | None = Field(None, description="a dual encoder's folder that scores captions against pictures; null does without")

    @model_validator(mode="after")
    def _trusted_needs_an_encoder(self) -> Self:
        if self.trusted is not None and self.encoder is None:
            raise ValueError("trusted: says how an encoder scores true captions, and encoder is null; name one, or leave trusted out")
        return self


class PlausibilityJob(Section):
    """A table of captions in, whether they can be true out."""

    captions: PathOrAddress = Field(description="CAPTIONS table: captions/ of a caption job, an ingest or synthesize")
    images: ImagesConfig | None = Field(None, description="where their pictures are; null looks at texts alone")
    limits: PlausibilityConfig = PlausibilityConfig()
    output: OutputConfig
