"""Folders of small published captioners without weights: their shapes, for an engine that draws the weights itself (load_format dummy).

Tokenizers are those of the tiny models, filled up with made-up words to the published number of tokens; preprocessing as published.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.caption_engines.random_mllm import fill_tokenizer, write_random_mllm


def _qwen25vl_3b(folder: Path) -> None:
    write_random_mllm(folder, "3b")
    _changed(folder / "preprocessor_config.json", {"min_pixels": 3136, "max_pixels": 12_845_056})


def _qwen3vl_2b(folder: Path) -> None:
    from reid_ray.model.tiny.tiny_qwen3_vl import build_tiny_qwen3_vl

    build_tiny_qwen3_vl(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["text_config"] |= {
        "vocab_size": 151_936,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 262_144,
        "tie_word_embeddings": True,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 5e6,
            "mrope_section": [24, 20, 20],
            "mrope_interleaved": True,
        },
    }
    config["text_config"].pop("layer_types", None)
    config["vision_config"] |= {
        "depth": 24,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_heads": 16,
        "out_hidden_size": 2048,
        "num_position_embeddings": 2304,
        "deepstack_visual_indexes": [5, 11, 17],
    }
    _write(folder / "config.json", config | {"tie_word_embeddings": True})
    (folder / "model.safetensors").unlink()
    fill_tokenizer(folder / "tokenizer.json", folder / "tokenizer.json", 151_936)


def _smolvlm(folder: Path, *, width: int, layers: int, heads: tuple[int, int], inner: int) -> None:
    from transformers import AutoTokenizer

    from reid_ray.model.tiny.tiny_smolvlm import build_tiny_smolvlm, processor_of_smolvlm

    build_tiny_smolvlm(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["text_config"] |= {
        "vocab_size": 49_280,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1],
        "head_dim": 64,
        "max_position_embeddings": 8192,
    }
    config["vision_config"] |= {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 512,
        "patch_size": 16,
    }
    _write(folder / "config.json", config | {"scale_factor": 4})
    (folder / "model.safetensors").unlink()
    processor_of_smolvlm(AutoTokenizer.from_pretrained(folder), side=512, image_tokens=64, tiles=4).save_pretrained(folder)
    fill_tokenizer(folder / "tokenizer.json", folder / "tokenizer.json", 49_280)


def _smolvlm_256m(folder: Path) -> None:
    _smolvlm(folder, width=576, layers=30, heads=(9, 3), inner=1536)


def _smolvlm_500m(folder: Path) -> None:
    _smolvlm(folder, width=960, layers=32, heads=(15, 5), inner=2560)


# Hub name -> what writes its folder, in the order of their sizes; the numbers are those of the published config.json files.
PUBLISHED: dict[str, Callable[[Path], None]] = {
    "HuggingFaceTB/SmolVLM-256M-Instruct": _smolvlm_256m,
    "HuggingFaceTB/SmolVLM-500M-Instruct": _smolvlm_500m,
    "Qwen/Qwen3-VL-2B-Instruct": _qwen3vl_2b,
    "Qwen/Qwen2.5-VL-3B-Instruct": _qwen25vl_3b,
}


def _changed(file: Path, values: dict[str, Any]) -> None:
    _write(file, json.loads(file.read_text(encoding="utf-8")) | values)


def _write(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value), encoding="utf-8")
