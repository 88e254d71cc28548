"""Tiny Qwen2.5-VL: about two million parameters in transformers' own class, with a tokenizer trained here.

Builds the folder that transformers and vLLM load as they load the real one: configuration, random weights, tokenizer with chat template,
image preprocessing. Knows architecture and files; training is in training.py.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from reid_ray.config.common import SyntheticConfig
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.model.tiny.tasks import PLAIN_INSTRUCTIONS, training_pair

IMAGE_TOKENS = "<|vision_start|><|image_pad|><|vision_end|>"
VOCABULARY = 768  # 256 bytes, 8 special tokens, and about every word of captions and instructions whole
_SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# ChatML as in Qwen's models, without their system prompt: at this size every token of a prompt is felt.
_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] in ['image', 'image_url', 'image_pil'] %}{{ '" + IMAGE_TOKENS + "' }}"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_TEXT = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,  # head dimension 32 is the smallest that vLLM's CPU attention takes
    "num_key_value_heads": 4,
    "max_position_embeddings": 4096,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 6, 6]},
}
_VISION = {
    "depth": 4,
    "hidden_size": 96,
    "intermediate_size": 256,
    "num_heads": 3,
    "out_hidden_size": 128,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "window_size": 112,
    "fullatt_block_indexes": [1, 3],
    "in_channels": 3,
}
# A 128x64 crop becomes 5 x 2 image tokens, and anything larger at most 36: what the model was trained to see.
_PREPROCESSING = {
    "min_pixels": 28 * 28 * 8,
    "max_pixels": 28 * 28 * 10,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "image_processor_type": "Qwen2VLImageProcessor",
    "processor_class": "Qwen2_5_VLProcessor",
}


def build_tiny_mllm(folder: str | Path, seed: int = 0, instructions: Sequence[str] = ()) -> Path:
    """Write a model with random weights into `folder` (created) and return it.

    Args:
        folder: where config.json, model.safetensors, the tokenizer and preprocessor_config.json go.
        seed: of the weights and of the text that the tokenizer is trained on.
        instructions: prompts that the tokenizer should know the words of.
    """
    import torch
    from transformers import GenerationConfig, Qwen2_5_VLForConditionalGeneration

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _train_tokenizer(seed, instructions)
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(_architecture(tokenizer))
    torch.random.set_rng_state(state)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=False, max_new_tokens=96
    )
    model.to(torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(_PREPROCESSING, indent=2) + "\n", encoding="utf-8")
    return folder


def _architecture(tokenizer: Any) -> Any:
    from transformers import Qwen2_5_VLConfig

    token = {name: tokenizer.convert_tokens_to_ids(name) for name in _SPECIAL}
    text = {
        **_TEXT,
        "vocab_size": len(tokenizer),
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": False,
    }
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=_VISION,
        image_token_id=token["<|image_pad|>"],
        video_token_id=token["<|video_pad|>"],
        vision_start_token_id=token["<|vision_start|>"],
        vision_end_token_id=token["<|vision_end|>"],
        tie_word_embeddings=False,
    )


def _train_tokenizer(seed: int, instructions: Sequence[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=list(_SPECIAL), show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    bpe.train_from_iterator(_corpus(seed, instructions), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=[name for name in _SPECIAL if name not in ("<|endoftext|>", "<|im_end|>")],
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
        chat_template=_CHAT_TEMPLATE,
    )


def _corpus(seed: int, instructions: Sequence[str]) -> Iterator[str]:
    people = SyntheticPeople(SyntheticConfig(identities=1000, images_per_identity=1, seed=seed))
    rng = random.Random(seed)
    for captions, attributes, hidden in zip(people.captions(), people.attributes(), people.hidden(), strict=True):
        yield from captions
        yield training_pair(rng, attributes, hidden, instructions)[1]
    for instruction in (*instructions, *PLAIN_INSTRUCTIONS):
        yield from [f"user\n{instruction}\nassistant\n"] * 30
