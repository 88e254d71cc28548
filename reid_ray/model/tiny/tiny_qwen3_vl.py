"""Tiny Qwen3-VL: half a million random parameters in transformers' own class, loaded by tests and rehearsals as Qwen3-VL is.

Two of its three vision layers have mergers of their own (deepstack), whose features the language model's first layers get. Its tokenizer
and chat template are the tiny Qwen2.5-VL's. Untrained: for the shape of things, not for captions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

_PATCH, _MERGE = 16, 2
_PIXELS_OF_TOKEN = (_PATCH * _MERGE) ** 2


def build_tiny_qwen3_vl(folder: str | Path, seed: int = 0) -> Path:
    """Write a model with random weights, its tokenizer and processor into `folder` (created) and return it."""
    import torch
    import transformers

    from reid_ray.model.model_files import resolve_model

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(resolve_model("builtin:tiny-mllm"))
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    model = transformers.Qwen3VLForConditionalGeneration(_architecture(tokenizer))
    torch.random.set_rng_state(state)
    model.generation_config = transformers.GenerationConfig(
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=False
    )
    model.save_pretrained(folder)
    transformers.Qwen3VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(
            patch_size=_PATCH,
            merge_size=_MERGE,
            temporal_patch_size=2,
            size={"shortest_edge": 4 * _PIXELS_OF_TOKEN, "longest_edge": 12 * _PIXELS_OF_TOKEN},
        ),
        tokenizer=tokenizer,
        video_processor=transformers.Qwen3VLVideoProcessor(),
        chat_template=tokenizer.chat_template,
    ).save_pretrained(folder)
    return folder


def _architecture(tokenizer: Any) -> Any:
    from transformers import Qwen3VLConfig

    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 1024,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 6, 6]},
    }
    vision = {
        "depth": 3,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_heads": 2,
        "out_hidden_size": 64,
        "patch_size": _PATCH,
        "spatial_merge_size": _MERGE,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0, 1],
    }
    tokens = {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in tokens.items()}
    return Qwen3VLConfig(text_config=text, vision_config=vision, **ids)
