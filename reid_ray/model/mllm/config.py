"""Configuration of the multimodal LLM: base weights, crop resolution, LoRA, and which parameters train."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from reid_ray.config.base import Section
from reid_ray.config.paths import LocalPath, PathOrName

Part = Literal["visual", "projector", "language"]  # of the model: visual encoder, projector, language model


class LoraConfig(Section):
    """Low-rank adapters (PEFT). Modules are named by the last part of their name and must exist in the part they are asked for."""

    llm: list[str] = Field(
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        description="linear layers of the language model that get an adapter; [] leaves it as it is",
    )
    visual: list[str] | Literal["attention"] = Field(
        "attention",
        description="linear layers of the visual encoder that get one; attention stands for its attention layers, [qkv, proj] in Qwen and "
        "[q_proj, k_proj, v_proj, out_proj] in LLaVA; [] leaves it as it is",
    )
    rank: int = Field(16, ge=1, le=1024, description="rank of an adapter's matrices")
    alpha: float = Field(64.0, gt=0, description="scale of the adapter: its output is multiplied by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout on an adapter's input; above 0 two workers no longer equal one")


class MllmConfig(Section):
    """A multimodal LLM of transformers: LLaVA-1.5, Qwen2.5-VL or Qwen3-VL."""

    base: PathOrName = Field(
        "builtin:tiny-mllm", description="weights to start from: hub name (Qwen/Qwen2.5-VL-7B-Instruct), folder, or builtin:tiny-mllm"
    )
    revision: str | None = Field(None, description="commit or tag of a hub name; null takes the newest")
    processor: PathOrName | None = Field(None, description="folder or hub name of the processor where base holds none; must fit the model")
    adapter: LocalPath | None = Field(
        None, description="model folder of an earlier tune of the same base, whose trained parts training goes on from; null starts anew"
    )
    min_pixels: int | None = Field(
        None, ge=784, description="Qwen: a smaller crop is enlarged to this many pixels, aspect ratio kept; null takes the processor's own"
    )
    max_pixels: int | None = Field(
        None,
        ge=784,
        description="Qwen: a larger crop is reduced to this many pixels, aspect ratio kept: 28 x 28 of them are one image token (Qwen3-VL: "
        "32 x 32); null takes the processor's own. LLaVA pads a crop to its fixed square",
    )
    quantization: Literal["none", "nf4"] = Field(
        "none", description="nf4: frozen weights in 4 bits (bitsandbytes, CUDA only, not with ZeRO-3)"
    )
    lora: LoraConfig = LoraConfig()
    train_projector: bool = Field(True, description="train the projector between visual encoder and LLM in full")
    train_visual: bool = Field(False, description="train the visual encoder in full; needs lora.visual []")
    gradient_checkpointing: bool = Field(
        False, description="compute activations again in the backward pass: less memory, a third more time"
    )

    @property
    def trains(self) -> frozenset[Part]:
        """Which parts have trainable parameters."""
        wanted: dict[Part, bool] = {
            "visual": self.train_visual or bool(self.lora.visual),
            "projector": self.train_projector,
            "language": bool(self.lora.llm),
        }
        return frozenset(part for part, trained in wanted.items() if trained)

    @model_validator(mode="after")
    def _visual_trains_in_one_way(self) -> Self:
        if self.train_visual and self.lora.visual:
            raise ValueError(
                "train_visual and lora.visual are both set; train the visual encoder in full or by adapters: set train_visual to false or "
                "lora.visual to []"
            )
        if self.quantization != "none" and self.train_visual:
            raise ValueError("quantization holds the visual encoder in 4 bits, which cannot be trained in full; set train_visual to false")
        if self.min_pixels is not None and self.max_pixels is not None and self.min_pixels > self.max_pixels:
            raise ValueError(f"min_pixels {self.min_pixels} is above max_pixels {self.max_pixels}")
        return self
