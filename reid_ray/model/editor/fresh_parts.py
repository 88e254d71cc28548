"""Parts of a small editor with random weights, in the classes of the large one, and a Stable Diffusion of such parts, for rehearsals.

Knows shapes; not training.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from reid_ray.model.dual.tokenizer import train_tokenizer
from reid_ray.model.editor.config import EditorScratch
from reid_ray.model.editor.edit_network import Mode, in_channels
from reid_ray.model.editor.pixel_codec import Codec


def fresh_text_encoder(shape: EditorScratch, texts: Iterable[str], *, context: int) -> tuple[Any, Any]:
    """(CLIPTextModel, its tokenizer, trained on `texts`)."""
    from transformers import CLIPTextConfig, CLIPTextModel

    tokenizer = train_tokenizer(texts, vocab_size=shape.vocab_size, context=context)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.width,
        intermediate_size=2 * shape.width,
        num_hidden_layers=shape.text_layers,
        num_attention_heads=4,
        max_position_embeddings=context,
        projection_dim=shape.width,
        hidden_act="gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config).eval(), tokenizer


def fresh_attribute_encoder(shape: EditorScratch, *, crop: int) -> Any:
    """CLIPVisionModelWithProjection for square crops of a side."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=shape.width,
        intermediate_size=2 * shape.width,
        num_hidden_layers=shape.sight_layers,
        num_attention_heads=4,
        image_size=crop,
        patch_size=shape.sight_patch,
        projection_dim=shape.width,
        hidden_act="gelu",
    )
    return CLIPVisionModelWithProjection(config).eval()


def fresh_unet(shape: EditorScratch, codec: Codec, mode: Mode, *, size: tuple[int, int], prompt_width: int) -> Any:
    """UNet2DConditionModel for a codec's grid; `size` is (height, width) in pixels."""
    from diffusers import UNet2DConditionModel

    attends = len(shape.channels) - 1
    return UNet2DConditionModel(
        sample_size=(size[0] // codec.pixels, size[1] // codec.pixels),
        in_channels=in_channels(codec, mode),
        out_channels=codec.channels,
        block_out_channels=tuple(shape.channels),
        layers_per_block=shape.layers,
        norm_num_groups=shape.groups,
        cross_attention_dim=prompt_width,
        attention_head_dim=[each // shape.head_width for each in shape.channels],
        down_block_types=("DownBlock2D", *("CrossAttnDownBlock2D" for _ in range(attends))),
        up_block_types=(*("CrossAttnUpBlock2D" for _ in range(attends)), "UpBlock2D"),
    )


def build_stable_diffusion(folder: Path, texts: Iterable[str], *, context: int = 77) -> None:
    """Stable Diffusion 1.5's folder with tiny random parts: the same classes and layout, a U-Net of 4 channels, latents of 8 x 8 pixels.

    Args:
        folder: is made.
        texts: its tokenizer learns from these.
        context: tokens of a prompt.
    """
    from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel

    shape = EditorScratch(width=32, vocab_size=400)
    text, tokenizer = fresh_text_encoder(shape, texts, context=context)
    stages = ("CrossAttnDownBlock2D", "DownBlock2D"), ("UpBlock2D", "CrossAttnUpBlock2D")
    parts = {
        "unet": UNet2DConditionModel(
            sample_size=16, in_channels=4, out_channels=4, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8,
            cross_attention_dim=shape.width, attention_head_dim=4, down_block_types=stages[0], up_block_types=stages[1],
        ),
        "vae": AutoencoderKL(
            block_out_channels=(8, 8, 16, 16), norm_num_groups=8, latent_channels=4, layers_per_block=1,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        ),
        "text_encoder": text,
        "tokenizer": tokenizer,
        "scheduler": PNDMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1),
    }  # fmt: skip
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}), encoding="utf-8")
