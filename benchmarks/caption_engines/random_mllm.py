"""A multimodal model's folder without weights: the shapes of Qwen2.5-VL, for an engine that draws the weights itself (load_format dummy).

The tokenizer is the shipped tiny model's, filled up with made-up words to the number of tokens that the shapes have: whatever token a
random model picks is then a word.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from reid_ray.model.model_files import resolve_model

# Of the published config.json of Qwen/Qwen2.5-VL-7B-Instruct and -3B-Instruct; `small` is for trying the benchmark without a GPU.
SIZES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "7b": (
        {"hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4, "intermediate_size": 18944},
        {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "fullatt_block_indexes": [7, 15, 23, 31]},
    ),
    "3b": (
        {"hidden_size": 2048, "num_hidden_layers": 36, "num_attention_heads": 16, "num_key_value_heads": 2, "intermediate_size": 11008},
        {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "fullatt_block_indexes": [7, 15, 23, 31]},
    ),
    "small": (
        {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4, "intermediate_size": 256},
        {"depth": 2, "hidden_size": 64, "intermediate_size": 128, "num_heads": 2, "fullatt_block_indexes": [1]},
    ),
}
_SECTIONS = {"7b": [16, 24, 24], "3b": [16, 24, 24], "small": [4, 6, 6]}  # of a head's dimensions: time, height, width
_TIED = ("3b",)  # whose output layer is the embeddings of its tokens once more
_TOKENS = {"7b": 152_064, "3b": 151_936, "small": 1_024}


def write_random_mllm(folder: Path, size: str) -> None:
    """Write a model's folder of one of SIZES, all but its weights.

    Args:
        folder: not there yet.
        size: a key of SIZES.
    """
    folder.mkdir(parents=True)
    shipped = Path(resolve_model("builtin:tiny-mllm"))
    for name in ("chat_template.jinja", "generation_config.json", "preprocessor_config.json", "tokenizer_config.json"):
        shutil.copy(shipped / name, folder / name)
    config = json.loads((shipped / "config.json").read_text(encoding="utf-8"))
    text, vision = SIZES[size]
    config["text_config"] |= text | {"vocab_size": _TOKENS[size], "layer_types": ["full_attention"] * text["num_hidden_layers"]}
    config["text_config"]["rope_parameters"]["mrope_section"] = _SECTIONS[size]
    config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = size in _TIED
    config["vision_config"] |= vision | {"out_hidden_size": text["hidden_size"]}
    _write(folder / "config.json", config)
    fill_tokenizer(shipped / "tokenizer.json", folder / "tokenizer.json", _TOKENS[size])


def fill_tokenizer(source: Path, target: Path, tokens: int) -> None:
    """A tokenizer with made-up words, so many that it has `tokens`: whatever a random model picks is a word."""
    tokenizer = json.loads(source.read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    known = len(vocabulary) + sum(token["content"] not in vocabulary for token in tokenizer["added_tokens"])
    # Letters alone, as a text needs them; every third ends a sentence: an answer cut at its length loses what comes after the last one.
    vocabulary.update({f"Ġ{_word(number)}{'' if number % 3 else '.'}": number for number in range(known, tokens)})
    # Bytes are shown by their stand-ins: any row of them is then a text, which bytes drawn at random are not.
    shown = {"type": "Replace", "pattern": {"String": "Ġ"}, "content": " "}
    tokenizer["decoder"] = {"type": "Sequence", "decoders": [shown, {"type": "Fuse"}]}
    _write(target, tokenizer)


def _word(number: int) -> str:
    return "".join(chr(ord("a") + int(digit)) for digit in str(number))


def _write(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value), encoding="utf-8")
