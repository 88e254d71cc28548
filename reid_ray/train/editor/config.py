"""Configuration of the train_editor job: an editor that dresses people anew from reference crops, trained by Ray Train and DeepSpeed."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from reid_ray.config.base import Section
from reid_ray.config.paths import PathOrAddress
from reid_ray.model.editor.config import EditorModelConfig
from reid_ray.train.config import TrainingJob

EditorPart = Literal["unet", "fusion", "attribute_encoder", "text_encoder"]


class EditorImages(Section):
    """Which images are learnt from."""

    path: PathOrAddress = Field(description="Parquet file or folder in the IMAGES schema")
    train_split: str | None = Field("train", description="images of this split are learnt from; null takes those that have none")
    max_pixels: int = Field(50_000_000, ge=1, description="an image whose header claims more pixels is a failed row, never decoded")

    @model_validator(mode="after")
    def _no_test(self) -> Self:
        if self.train_split in ("val", "test", "query", "gallery"):
            raise ValueError(f"train_split is {self.train_split!r}; an editor learns from people that nothing is scored on, so give train")
        return self


class EditorData(Section):
    """Where a person's things lie on the images, what they are called, and how they look elsewhere."""

    segments: PathOrAddress = Field(description="table in the SEGMENTS schema (the synthesize and the segment job write it)")
    captions: list[PathOrAddress] = Field(min_length=1, description="tables in the CAPTIONS schema, whose nouns the segments name")
    references: PathOrAddress | None = Field(
        None, description="table in the REFERENCES schema, for other_shot_share and objective.attribute; null has neither"
    )


class EditorBatches(Section):
    """Batches, and what is drawn for each sample: functions of (seed, step, place in the batch)."""

    size: int = Field(
        64, ge=1, description="samples per step over all workers, an image with one caption each; a multiple of workers.count"
    )
    seed: int = Field(0, ge=0, description="seed of order, draws and new weights")
    flip: float = Field(0.5, ge=0, le=1, description="probability of mirroring left to right")
    several_share: float = Field(
        0.5, ge=0, le=1, description="probability that two or three of a caption's things are redrawn where there are so many, else one"
    )
    other_shot_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="probability that the reference is the same thing of the same person on another image, in another light, where there "
        "is one; else it is cut from the image itself, as DP",
    )
    drop: float = Field(
        0.1, ge=0, le=1, description="probability that the prompt and its references are dropped, for classifier-free guidance"
    )
    noise_power: float = Field(
        1.0, gt=0, le=4, description="noise levels are drawn as u ** noise_power of the schedule, u even: below 1 more of them are noisy"
    )
    threads: int = Field(1, ge=1, description="threads per worker that read, decode and draw ahead of the step")


class EditorObjective(Section):
    """The loss: denoising, localisation of the attribute tokens' attention, and, as an option, what the attribute token can be read for."""

    inside_share: float = Field(
        0.73, ge=0, le=1, description="probability that a sample's denoising error counts inside the masks alone (0.73 in DP)"
    )
    localisation: float = Field(
        1e-3,
        ge=0,
        description="weight of mean(A outside M) - mean(A inside M), A the attention to a noun's token, M its segment (1e-3 in DP); 0 "
        "leaves it out",
    )
    attribute: float = Field(
        0.0,
        ge=0,
        description="weight of the cross-entropy of the references' known values, read by linear layers from the attribute token before "
        "and after fusion; ours, for attribute encoders that begin at random. 0 leaves it out",
    )


class EditorDrawing(Section):
    """How the finished editor draws unless it is told otherwise; written into its folder."""

    steps: int = Field(50, ge=1, le=1000, description="denoising steps (50 in DP)")
    guidance: float = Field(5.0, ge=1, description="classifier-free guidance (5 in DP); 1 is off")


class TrainEditorJob(TrainingJob):
    """Train an editor of people by reference attributes (Diverse Person, Song et al. 2024); writes a folder in diffusers' layout."""

    images: EditorImages
    data: EditorData
    model: EditorModelConfig = EditorModelConfig()
    trains: list[EditorPart] = Field(
        ["unet", "fusion"], min_length=1, description="parts that train; DP keeps VAE and text encoder as they are, as this does by default"
    )
    batches: EditorBatches = EditorBatches()
    objective: EditorObjective = EditorObjective()
    drawing: EditorDrawing = EditorDrawing()

    @model_validator(mode="after")
    def _batch_divides(self) -> Self:
        self.workers.divide(self.batches.size, field="batches.size")
        return self

    @model_validator(mode="after")
    def _references_are_there(self) -> Self:
        if self.data.references is None and (self.batches.other_shot_share or self.objective.attribute):
            raise ValueError(
                "batches.other_shot_share and objective.attribute read data.references, which is null; name the table, or set both to 0"
            )
        return self

    @model_validator(mode="after")
    def _nothing_to_stop_by(self) -> Self:
        if self.schedule.patience is not None:
            raise ValueError("schedule.patience counts validations, and this job has none; set it to null")
        return self
