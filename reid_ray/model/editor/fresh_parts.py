"""Parts of a small editor with random weights, in the classes of the large one. Knows shapes; not folders or training."""

from __future__ import annotations

from collections.abc import Iterable
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
