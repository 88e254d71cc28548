"""Configuration of an editor: where its weights come from or what shape it is built in, how it draws, and published pipelines beside it."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from reid_ray.config.base import Section
from reid_ray.config.paths import PathOrName

Pipeline = Literal["auto", "flux_fill", "flux_kontext", "qwen_edit"]


class EditorScratch(Section):
    """Shape of an editor that is built anew; it works on pixels, without a VAE. The defaults are the small one that ships."""

    patch: int = Field(4, ge=1, description="pixels along a cell of the U-Net's grid (space-to-depth); divides height and width")
    channels: list[int] = Field(
        [64, 96], min_length=2, description="channels of the U-Net's stages; all but the first attend to the prompt"
    )
    layers: int = Field(1, ge=1, description="residual blocks of a stage")
    groups: int = Field(8, ge=1, description="groups of its norms; must divide every number of channels")
    head_width: int = Field(16, ge=4, description="channels of an attention head")
    width: int = Field(64, ge=8, description="width of the prompt's tokens and of the attribute token; multiple of 4")
    text_layers: int = Field(1, ge=1, description="layers of the text encoder")
    sight_layers: int = Field(3, ge=1, description="layers of the attribute encoder")
    sight_patch: int = Field(8, ge=2, description="side of a patch of the attribute encoder, pixels; divides crop")
    vocab_size: int = Field(600, ge=259, description="entries of the byte-level BPE that is trained on the captions")

    @model_validator(mode="after")
    def _groups_divide(self) -> Self:
        if any(each % self.groups or each % self.head_width for each in self.channels):
            raise ValueError(f"groups {self.groups} and head_width {self.head_width} must divide each of channels {self.channels}")
        if self.width % 4:
            raise ValueError(f"width {self.width} is not a multiple of 4")
        return self


class EditorModelConfig(Section):
    """The editor that is trained (reid_ray.model.editor)."""

    gives_way: ClassVar = {"init": ("scratch",), "scratch": ("init",)}

    init: PathOrName | None = Field(
        None,
        description="weights to start from: a hub name or folder of Stable Diffusion 1.5 or its inpainting model in diffusers' layout, or "
        "an editor of this job; null builds a small one anew from `scratch`",
    )
    mode: Literal["inpaint", "blend", "generate"] = Field(
        "inpaint",
        description="inpaint: the U-Net sees what the mask leaves of the picture (a U-Net without such channels is widened by zeros); "
        "blend: what lies outside is put back at every step; generate: from noise, as DP's release, the source never seen",
    )
    attribute_encoder: PathOrName | None = Field(
        None,
        description="CLIP whose image encoder makes the attribute token: a hub name (openai/clip-vit-large-patch14 with SD-1.5), or a "
        "model folder of the train job, whose text encoder an editor built anew takes, too; null keeps init's, or builds one anew",
    )
    height: int = Field(128, ge=16, le=2048, description="pixels of what the U-Net sees (128 in DP)")
    width: int = Field(128, ge=16, le=2048, description="pixels of what the U-Net sees; a multiple of its smallest stage's cells")
    crop: int = Field(224, ge=16, le=1024, description="side of the square that a reference crop is laid on, pixels (CLIP has 224)")
    context: int = Field(77, ge=8, le=77, description="tokens of a prompt, both marks included; a noun beyond is not used (CLIP has 77)")
    padding: float | None = Field(
        0.25,
        ge=0,
        le=4,
        description="what is seen is the mask's box, with this share of its longer side on each side; null shows the whole picture, as DP",
    )
    grow: int = Field(
        0,
        ge=0,
        le=32,
        description="pixels round the mask, at the U-Net's size, that it does not see either, for the old colour bleeds there",
    )
    scratch: EditorScratch = EditorScratch()
    saved: Literal["float32", "float16"] = Field("float32", description="numbers of the weights that are written")

    @model_validator(mode="after")
    def _init_and_scratch_agree(self) -> Self:
        shape = self.scratch
        if self.init is not None and "scratch" in self.model_fields_set:
            raise ValueError("init and scratch are both given; init brings its own shape, so drop one of them")
        cell = shape.patch * 2 ** (len(shape.channels) - 1)
        if self.init is None and (self.height % cell or self.width % cell):
            raise ValueError(
                f"height {self.height} and width {self.width} must be multiples of {cell}, the smallest stage's cell of scratch"
            )
        if self.init is None and self.attribute_encoder is None and self.crop % shape.sight_patch:
            raise ValueError(f"scratch.sight_patch {shape.sight_patch} does not divide crop {self.crop}")
        return self


class DrawingConfig(Section):
    """How an editor draws (sampling)."""

    steps: int | None = Field(None, ge=1, le=1000, description="denoising steps; null takes the editor's own (DP: 50)")
    guidance: float | None = Field(None, ge=1, description="classifier-free guidance; 1 is off; null takes the editor's own (DP: 5)")
    batch_size: int = Field(16, ge=1, description="edits per forward pass")


class PublishedConfig(Section):
    """A published inpainting pipeline behind the same interface. It reads the prompt; of references Kontext sees the first."""

    pipeline: Pipeline = Field(
        "auto",
        description="auto: what diffusers' AutoPipelineForInpainting makes of the model; flux_fill, flux_kontext and qwen_edit are named, "
        "for it does not choose them",
    )
    model: PathOrName = Field(description="hub name or folder in diffusers' layout")
    megapixels: float = Field(
        0.25, gt=0, le=4, description="size of the pictures that it draws, proportions kept; Qwen's edit pipeline sets its own, 1"
    )
    strength: float | None = Field(None, gt=0, le=1, description="how much of the noise is laid on the source; null: the pipeline's own")
    padding_mask_crop: int | None = Field(
        None, ge=0, description="pixels round the mask that it works on, enlarged, where it takes this; null shows it the whole picture"
    )
    precision: Literal["fp32", "bf16", "fp16"] = Field("bf16", description="numbers of its weights")
