"""Tiny SigLIP: random weights as a published folder, loaded by tests and rehearsals as SigLIP is; its tokenizer has no start mark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, SiglipConfig, SiglipModel

CONTEXT, WIDTH, PATCH, SIZE = 48, 24, 16, 64


def words_of(texts: list[str]) -> Any:
    """A tokenizer with SigLIP's marks: nothing in front, </s> behind, and </s> again as padding."""
    pieces = Tokenizer(models.Unigram())
    pieces.normalizer = normalizers.Lowercase()
    pieces.pre_tokenizer = pre_tokenizers.Metaspace()
    pieces.train_from_iterator(texts, trainers.UnigramTrainer(vocab_size=300, special_tokens=["</s>", "<unk>"], unk_token="<unk>"))
    pieces.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", pieces.token_to_id("</s>"))])
    marks = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=pieces, model_max_length=CONTEXT, **marks)


def build_tiny_siglip(folder: Path, texts: list[str], *, seed: int = 0) -> SiglipModel:
    """Write the folder; returns the model, logit scale 2 and bias -3."""
    words = words_of(texts)
    tower = {"hidden_size": WIDTH, "intermediate_size": 40, "num_attention_heads": 2}
    config = SiglipConfig(
        text_config={**tower, "num_hidden_layers": 3, "vocab_size": len(words), "max_position_embeddings": CONTEXT},
        vision_config={**tower, "num_hidden_layers": 4, "image_size": SIZE, "patch_size": PATCH},
    )
    torch.manual_seed(seed)
    model = SiglipModel(config).eval()
    with torch.no_grad():
        for weight in model.parameters():  # biases and positions too, so that none can be forgotten unseen
            weight.add_(0.05 * torch.randn_like(weight))
        model.logit_scale.fill_(2.0)
        model.logit_bias.fill_(-3.0)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
    return model
