"""Configuration of the train_verifier job, and of what a verifier lets pass."""

from __future__ import annotations

from pydantic import Field

from reid_ray.config.base import Section
from reid_ray.config.common import ImagesConfig, OutputConfig, SyntheticConfig


class VerifyLimits(Section):
    """What an edited picture must be like to stand."""

    sure: float = Field(
        0.7,
        gt=0,
        lt=1,
        description="an attribute that was not to change counts as lost where it is read otherwise than before, both times with this "
        "probability at least; what is not read so surely is not judged",
    )
    head: float = Field(
        0.9, ge=-1, le=1, description="least cosine of the features of both pictures' top quarters, where nothing there was to change"
    )
    change: float = Field(2.0, ge=0, description="least mean change inside the masks, grey levels: below it nothing was drawn")
    shift: float = Field(1.0, ge=0, description="most mean change outside the masks, grey levels")


class ReaderConfig(Section):
    """The network that reads attributes: four 3 x 3 convolutions, one hidden layer, a linear classifier for each attribute."""

    height: int = Field(64, ge=32, multiple_of=8, description="pictures are read at this height, pixels")
    width: int = Field(32, ge=16, multiple_of=8, description="and this width")
    channels: tuple[int, int, int, int] = Field((24, 48, 64, 96), description="of the convolutions; all but the first halve the picture")
    hidden: int = Field(128, ge=8, description="units of the hidden layer")
    dropout: float = Field(0.2, ge=0, lt=1, description="of what goes into it, while it learns")


class FitConfig(Section):
    """AdamW with a one-cycle schedule."""

    epochs: int = Field(8, ge=1, description="passes over the pictures that are learnt from")
    batch_size: int = Field(128, ge=2, description="pictures per step")
    lr: float = Field(2e-3, gt=0, description="peak learning rate")
    weight_decay: float = Field(0.02, ge=0, description="of AdamW")
    flip: float = Field(0.5, ge=0, le=1, description="probability of mirroring left to right")
    shift: int = Field(2, ge=0, description="pictures are moved by up to so many pixels each way; edges are repeated")
    threads: int = Field(1, ge=1, description="torch threads")
    device: str = Field("cpu", description="torch device")


class TrainVerifierJob(Section):
    """Teach a network to read what people wear, on people whom the editor that it will judge has not learnt from."""

    images: ImagesConfig = Field(
        ImagesConfig(synthetic=SyntheticConfig(identities=12_000, images_per_identity=1, height=64, width=32, seed=5_000_000)),
        description="pictures with known attributes (column attributes): other people than the editor learns from. All are held in memory, "
        "at the reader's size",
    )
    held_out: float = Field(0.15, gt=0, lt=1, description="share of the people on whom the error is measured, never learnt from")
    reader: ReaderConfig = ReaderConfig()
    fit: FitConfig = FitConfig()
    seed: int = Field(0, ge=0, description="of first weights, order and augmentation, and of who is held out")
    output: OutputConfig
