"""Tiny SmolVLM: random parameters in transformers' own class (Idefics3), loaded by tests and rehearsals as SmolVLM-500M-Instruct is.

Its tokenizer is the tiny Qwen2.5-VL's, its chat template SmolVLM's order of roles. Untrained, though it can be made to answer whatever it
is asked with one sentence.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reid_ray.model.tiny.one_sentence import teach_sentence

_SIDE, _PATCH, _SCALE = 64, 16, 2
_MARKS = ("<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>")
_CHAT_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] in ['image', 'image_url', 'image_pil'] %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for part in message['content'] %}{% if part['type'] in ['image', 'image_url', 'image_pil'] %}{{ '<image>' }}"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


def build_tiny_smolvlm(folder: str | Path, seed: int = 0, *, says: str | None = None) -> Path:
    """Write a model with random weights, its tokenizer and processor into `folder` (created) and return it.

    Args:
        folder: where it goes.
        seed: of the weights.
        says: a sentence of words that all differ, which the model then answers to everything; None leaves the weights as drawn.
    """
    import torch
    from transformers import AutoTokenizer, GenerationConfig, Idefics3ForConditionalGeneration

    from reid_ray.model.model_files import resolve_model

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(resolve_model("builtin:tiny-mllm"))
    add_marks(tokenizer)
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    model = Idefics3ForConditionalGeneration(_architecture(tokenizer))
    torch.random.set_rng_state(state)
    if says is not None:
        decoder = model.model.text_model
        teach_sentence(decoder.layers, decoder.embed_tokens, model.lm_head, tokenizer, asked="Assistant:", sentence=says)
    model.generation_config = GenerationConfig(
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=False
    )
    model.save_pretrained(folder)
    processor_of_smolvlm(tokenizer, side=_SIDE, image_tokens=(_SIDE // _PATCH // _SCALE) ** 2, tiles=2).save_pretrained(folder)
    return folder


def add_marks(tokenizer: Any) -> None:
    """Add the tokens that stand around the parts of a picture in SmolVLM's prompts."""
    parts = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    tokenizer.add_special_tokens({"additional_special_tokens": [*_MARKS, *parts]})
    tokenizer.chat_template = None


def processor_of_smolvlm(tokenizer: Any, *, side: int, image_tokens: int, tiles: int) -> Any:
    """The processor of pictures and texts.

    Args:
        tokenizer: with the marks.
        side: of the square that the vision encoder sees, pixels.
        image_tokens: of one square.
        tiles: a picture is raised to so many squares on its longer side, and seen whole beside them.
    """
    from transformers import Idefics3ImageProcessor, Idefics3Processor

    pictures = Idefics3ImageProcessor(
        size={"longest_edge": tiles * side},
        max_image_size={"longest_edge": side},
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )
    return Idefics3Processor(pictures, tokenizer, image_seq_len=image_tokens, chat_template=_CHAT_TEMPLATE)


def _architecture(tokenizer: Any) -> Any:
    from transformers import Idefics3Config

    text = {
        "model_type": "llama",
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,  # head dimension 32 is the smallest that vLLM's CPU attention takes
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": False,
    }
    vision = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": _SIDE,
        "patch_size": _PATCH,
    }
    return Idefics3Config(
        text_config=text,
        vision_config=vision,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=tokenizer.pad_token_id,
        scale_factor=_SCALE,
        tie_word_embeddings=False,
    )
