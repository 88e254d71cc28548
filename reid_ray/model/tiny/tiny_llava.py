"""Tiny LLaVA: half a million random parameters in transformers' own class, loaded by tests and rehearsals as LLaVA-1.5 is.

Its tokenizer is the tiny Qwen2.5-VL's, its chat template LLaVA-1.5's order of roles. Untrained: for the shape of things, not for captions,
though it can be made to answer whatever it is asked with one sentence.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reid_ray.model.mllm.published_names import restore_published_names
from reid_ray.model.tiny.one_sentence import teach_sentence

_SIDE, _PATCH = 56, 14
# The roles and marks of LLaVA-1.5's conversations (Vicuna v1): picture first, a blank before the answer, the end mark after it.
_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}{% for part in message['content'] %}"
    "{% if part['type'] in ['image', 'image_url', 'image_pil'] %}{{ '<image>\n' }}{% elif 'text' in part %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{{ ' ' }}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def build_tiny_llava(folder: str | Path, seed: int = 0, *, says: str | None = None) -> Path:
    """Write a model with random weights, its tokenizer and processor into `folder` (created) and return it.

    Args:
        folder: where it goes.
        seed: of the weights.
        says: a sentence of words that all differ, which the model then answers to everything; None leaves the weights as drawn.
    """
    import torch
    from transformers import CLIPImageProcessor, GenerationConfig, LlavaForConditionalGeneration, LlavaProcessor

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _words()
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(_architecture(tokenizer))
    torch.random.set_rng_state(state)
    if says is not None:
        decoder = model.model.language_model
        teach_sentence(decoder.layers, decoder.embed_tokens, model.lm_head, tokenizer, asked="ASSISTANT:", sentence=says)
    model.generation_config = GenerationConfig(
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=False
    )
    model.save_pretrained(folder)
    restore_published_names(folder)
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": _SIDE}, crop_size={"height": _SIDE, "width": _SIDE}),
        tokenizer=tokenizer,
        patch_size=_PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_CHAT_TEMPLATE,
    )
    processor.save_pretrained(folder)
    return folder


def _words() -> Any:
    from transformers import AutoTokenizer

    from reid_ray.model.model_files import resolve_model

    tokenizer = AutoTokenizer.from_pretrained(resolve_model("builtin:tiny-mllm"))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.chat_template = None
    return tokenizer


def _architecture(tokenizer: Any) -> Any:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

    vision = CLIPVisionConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=2, image_size=_SIDE, patch_size=_PATCH
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,  # head dimension 32 is the smallest that vLLM's CPU attention takes
        num_key_value_heads=2,
        max_position_embeddings=4096,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    image_tokens = (_SIDE // _PATCH) ** 2
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=image_tokens,
    )
