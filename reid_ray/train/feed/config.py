"""Configuration of training data: images, captions, batch sampler, augmentation and decoding."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from reid_ray.config.base import Section
from reid_ray.config.common import PoolConfig
from reid_ray.config.paths import PathOrAddress
from reid_ray.train.config import TrainingJob


class TrainImages(Section):
    """Which images are learnt from, and which choose the weights."""

    gives_way: ClassVar = {"val_split": ("val_share",), "val_share": ("val_split=null",)}

    path: PathOrAddress = Field(description="Parquet file or folder in the IMAGES schema (the synthesize and the ingest job write it)")
    further: list[PathOrAddress] = Field(
        [],
        description="more tables of images to learn from, such as the edit job's, whose captions are given in captions.paths; an image_id "
        "must stand in one row of all tables",
    )
    edits: list[PathOrAddress] = Field(
        [],
        description="EDITS tables, which say of whom edited pictures (column synthetic) were made: where that person is held out, "
        "validates or is of another split, they are left out, counted as source_held_out. Needed with val_share",
    )
    train_split: str | None = Field(
        "train", description="images of this split are learnt from; null takes those that have none, as LUPerson's and a folder's"
    )
    val_split: str | None = Field(
        "val",
        description="the weights with the best score on this split are kept; null keeps the last weights. Never test, and no person of it "
        "may be trained on (MSMT17's val holds training persons: use val_share)",
    )
    val_share: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the identities of train_split that is held out to choose the weights, for sets without a val split (0.1 for "
        "ICFG-PEDES, MSMT17 or Market-1501); needs val_split null. 0 holds none out",
    )
    val_seed: int = Field(0, ge=0, description="which identities val_share holds out; one keeps its side when others are added")
    identity: Literal["person", "image", "caption"] = Field(
        "person",
        description="what counts as one identity in the losses: a person (an image without person_id is one of its own), each image, or "
        "each caption with its image, so that two captions of one image are negatives of each other",
    )
    select_by: Literal["r1", "map"] = Field("r1", description="text-to-image score that chooses: R@1, or mAP as in LLM-DA")
    max_pixels: int = Field(50_000_000, ge=1, description="an image whose header claims more pixels is a failed row, never decoded")

    @model_validator(mode="after")
    def _splits_differ(self) -> Self:
        if self.val_share and self.val_split is not None:
            raise ValueError(
                f"val_share {self.val_share} holds identities of train_split out and val_split is {self.val_split!r}; "
                "set val_split to null to use val_share, or val_share to 0"
            )
        if self.val_split is not None and self.val_split == self.train_split:
            raise ValueError(f"val_split and train_split are both {self.train_split!r}; weights must be chosen on unseen identities")
        if self.val_split == "test":
            raise ValueError("val_split is 'test'; weights chosen on the test split make its score worthless, so choose another")
        return self

    @property
    def paths(self) -> list[str]:
        """All tables of images."""
        return [self.path, *self.further]

    @property
    def beside(self) -> dict[str, list[str]]:
        """The tables beside the first, as a manifest calls what went in."""
        return {name: tables for name, tables in (("further", self.further), ("edits", self.edits)) if tables}

    @property
    def origin(self) -> str:
        """Where the images come from, for messages."""
        return ", ".join(self.paths)

    @property
    def watched(self) -> str | None:
        """What chooses the weights, as manifests call it: the validation split, held_out, or None."""
        return "held_out" if self.val_share else self.val_split


class PairCaptions(Section, ABC):
    """Which captions are learnt from."""

    paths: list[PathOrAddress] = Field(
        min_length=1,
        description="Parquet files or folders in the CAPTIONS schema, from the caption job or from people; all are learnt from",
    )
    kinds: list[Literal["human", "static", "dynamic"]] = Field(
        ["human", "static", "dynamic"],
        min_length=1,
        description="kinds of captions to take; each caption with its image is one sample. With dynamic, the static caption of its "
        "captioner stands in for one that failed; twice it trains only where the captioner was asked for static ones, too",
    )

    @property
    @abstractmethod
    def reads_rewrites(self) -> bool:
        """Whether rewrites are of use."""


class BatchesConfig(Section):
    """Batches: size, sampler, augmentation and decoding."""

    size: int = Field(512, ge=2, description="samples per step over all workers; must be a multiple of workers.count")
    sampler: Literal["shuffle", "identity"] = Field(
        "shuffle",
        description="shuffle: each sample once per epoch; identity: P x K, each identity once per epoch with samples_per_identity samples "
        "of different pictures, P = size / samples_per_identity; every worker gets whole identities",
    )
    samples_per_identity: int = Field(4, ge=2, description="K of sampler identity (16 x 4 is usual); size must be a multiple of it")
    edited_share: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="share of each batch that shows people whom an editor made (column synthetic), or of its identities with sampler "
        "identity; an epoch is then a pass over the photographs. null: they are samples like all others",
    )
    seed: int = Field(0, ge=0, description="seed of order, rewrites, augmentation and new weights")
    flip: float = Field(0.5, ge=0, le=1, description="probability of mirroring left to right")
    crop_padding: int = Field(
        10, ge=0, description="pixels of padding before a random crop back to the image size (10 as in IRRA); 0 is off"
    )
    erase: float = Field(0.5, ge=0, le=1, description="probability of random erasing (0.5 as in IRRA)")
    fill: Literal["mean", "irra"] = Field(
        "mean",
        description="colour of crop_padding and of erased rectangles: mean, the mean colour, which becomes zero; irra, black padding and "
        "grey rectangles, as in the code of IRRA and LUPerson-MLLM",
    )
    colour: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="brightness, contrast and saturation are each changed by a factor drawn from 1 - colour to 1 + colour; 0 is off. The "
        "hue stays, for captions name colours",
    )
    chunk: int | None = Field(
        None,
        ge=1,
        description="a worker encodes this many samples at a time and once more for the gradient, so that activations do not bound the "
        "batch (GradCache); null encodes its share at once",
    )
    threads: int = Field(1, ge=1, description="threads per worker that read, decode and augment ahead of the step; without decoders")
    decoders: PoolConfig | None = Field(
        None,
        description="Ray Data actors per worker that read, decode and augment, on any node with free CPUs, batch_size pictures per call; "
        "null uses threads in the worker. Both give the same batches",
    )

    @model_validator(mode="after")
    def _decoders_on_cpus(self) -> Self:
        if self.decoders is not None and self.decoders.num_gpus:
            raise ValueError("decoders.num_gpus is set, but decoding runs on CPUs; drop it")
        return self

    @model_validator(mode="after")
    def _whole_identities(self) -> Self:
        if self.sampler == "identity" and self.size % self.samples_per_identity:
            raise ValueError(
                f"size {self.size} is not a multiple of samples_per_identity {self.samples_per_identity}; set size to P x K, such as "
                f"{max(1, self.size // self.samples_per_identity) * self.samples_per_identity}"
            )
        return self

    @property
    def identities(self) -> int:
        """P of sampler identity."""
        return self.size // self.samples_per_identity


class PairTrainingJob(TrainingJob):
    """A training job that learns from images and their captions: its batches must divide, and its patience needs scores."""

    images: TrainImages
    captions: PairCaptions
    batches: BatchesConfig = BatchesConfig()

    @model_validator(mode="after")
    def _batch_divides(self) -> Self:
        self.workers.divide(self.batches.size, field="batches.size")
        if self.batches.sampler == "identity":
            self.workers.divide(self.batches.identities, field="batches.size / batches.samples_per_identity")
        return self

    @model_validator(mode="after")
    def _patience_needs_scores(self) -> Self:
        if self.schedule.patience is not None and self.images.watched is None:
            raise ValueError(
                "schedule.patience counts validations, but images.val_split is null and val_share 0; set one, or patience to null"
            )
        return self
