"""Configuration of the dual encoder: initial weights, picture size, and its shape if it is built from scratch."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from reid_ray.config.base import Section
from reid_ray.config.paths import PathOrName


class ScratchConfig(Section):
    """Shape of a dual encoder that is built anew, in CLIP's own classes; the defaults are a small one for tests and demos."""

    patch_size: int = Field(16, ge=2, description="side of a square patch in pixels; must divide image height and width")
    vision_width: int = Field(128, ge=8, description="width of the vision transformer")
    vision_layers: int = Field(4, ge=1, description="layers of the vision transformer")
    vision_heads: int = Field(4, ge=1, description="attention heads of the vision transformer; must divide its width")
    text_width: int = Field(128, ge=8, description="width of the text transformer")
    text_layers: int = Field(3, ge=1, description="layers of the text transformer")
    text_heads: int = Field(4, ge=1, description="attention heads of the text transformer; must divide its width")
    embed_dim: int = Field(128, ge=2, description="dimensions of the joint space")
    vocab_size: int = Field(
        1000, ge=259, description="entries of the byte-level BPE that is trained on the captions: 256 bytes, 2 marks, merges"
    )
    context: int = Field(77, ge=4, le=4096, description="longest text in tokens, both marks included; longer ones are cut (CLIP has 77)")

    @model_validator(mode="after")
    def _heads_divide_widths(self) -> Self:
        for tower in ("vision", "text"):
            width, heads = (self.vision_width, self.vision_heads) if tower == "vision" else (self.text_width, self.text_heads)
            if width % heads:
                raise ValueError(f"{tower}_heads {heads} does not divide {tower}_width {width}")
        return self


class ModelConfig(Section):
    """The dual encoder (reid_ray.model.dual.dual_encoder)."""

    gives_way: ClassVar = {"init": ("scratch",), "scratch": ("init", "tokenizer", "text_length")}

    init: PathOrName | None = Field(
        None,
        description="weights to start from: hub name (openai/clip-vit-base-patch16, google/siglip-base-patch16-224, NAME@REVISION) or "
        "folder in transformers' or open_clip's format, or with one .pth of IRRA's code and a tokenizer (see tokenizer); "
        "null builds a model anew from `scratch`",
    )
    tokenizer: PathOrName | None = Field(
        None,
        description="hub name or folder of the tokenizer where init holds none (some of open_clip, those of IRRA); null takes init's own",
    )
    image_height: int = Field(384, ge=8, le=2048, description="pictures are resized to this height in pixels (384 as in IRRA)")
    image_width: int = Field(128, ge=8, le=2048, description="pictures are resized to this width in pixels (128 as in IRRA)")
    position_resize: Literal["bicubic", "bilinear"] = Field(
        "bicubic",
        description="how position embeddings are interpolated where init was made for another picture size (bilinear in the code of IRRA "
        "and LUPerson-MLLM)",
    )
    patch_stride: int | None = Field(
        None,
        ge=1,
        description="pixels from one patch to the next, at most the patch size; fewer make patches overlap (12 of 16 in TransReID) and "
        "cost time; null keeps the model's own, which is the patch size unless it was trained with another",
    )
    text_length: int | None = Field(
        None,
        ge=22,
        le=4096,
        description="longest text in tokens, for captions that a CLIP would cut at 77: its positions are stretched to so many as in "
        "Long-CLIP, the first 20 kept (248 there); null keeps the model's own",
    )
    gradient_checkpointing: bool = Field(
        False, description="keep each layer's input alone for the backward pass and compute the layer again: less memory, a third more time"
    )
    scratch: ScratchConfig = ScratchConfig()

    @model_validator(mode="after")
    def _init_and_scratch_agree(self) -> Self:
        if self.init is not None and "scratch" in self.model_fields_set:
            raise ValueError("init and scratch are both given; init brings its own shape, so drop one of them")
        if self.init is None and self.tokenizer is not None:
            raise ValueError("tokenizer is given, but a model built anew trains its own; drop tokenizer or give init")
        if self.init is None and self.text_length is not None:
            raise ValueError("text_length stretches a loaded model's positions; a model built anew has scratch.context")
        patch = self.scratch.patch_size
        if self.init is None and (self.image_height % patch or self.image_width % patch):
            raise ValueError(
                f"scratch.patch_size {patch} does not divide image_height {self.image_height} and image_width {self.image_width}"
            )
        if self.init is None and self.patch_stride is not None and self.patch_stride > patch:
            raise ValueError(f"patch_stride {self.patch_stride} exceeds scratch.patch_size {patch}, so stripes would not be seen")
        return self
