"""A tiny editor of pixels, and tiny parts of Stable Diffusion in diffusers' layout, with SD-1.5's names of the text encoder's weights."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from reid_ray.model.editor.config import EditorModelConfig
from reid_ray.model.editor.edit_request import EditReference, EditRequest
from reid_ray.model.editor.editor_folder import start_editor

CAPTIONS = ["a man in a red coat and blue jeans", "the woman wears a green striped shirt"] * 3
SCRATCH = {"patch": 2, "channels": [16, 32], "width": 32, "vocab_size": 300, "head_width": 8}


@pytest.fixture(scope="session")
def small_config() -> EditorModelConfig:
    return EditorModelConfig(height=16, width=16, crop=16, context=24, grow=1, scratch=SCRATCH)


@pytest.fixture(scope="session")
def small_editor(small_config):
    return start_editor(small_config, CAPTIONS, seed=0, steps=2, guidance=1.5)


@pytest.fixture(scope="session")
def stable_diffusion(tmp_path_factory):
    """A folder with a U-Net of 4 channels, a VAE, a text encoder, a tokenizer and a scheduler."""
    from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
    from safetensors.torch import load_file, save_file
    from transformers import CLIPTextConfig, CLIPTextModel

    from reid_ray.model.dual.tokenizer import train_tokenizer

    folder = tmp_path_factory.mktemp("sd")
    torch.manual_seed(0)
    tokenizer = train_tokenizer(CAPTIONS, vocab_size=300, context=24)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
            max_position_embeddings=24, projection_dim=32, **ends,
        )
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(16, 16), norm_num_groups=8, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    with torch.no_grad():  # next to no variance, so that a draw of latents is their mode
        vae.quant_conv.weight[4:] = 0
        vae.quant_conv.bias[4:] = -30
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8,
        cross_attention_dim=32, attention_head_dim=4, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    for name, part in {"unet": unet, "vae": vae, "text_encoder": text, "tokenizer": tokenizer}.items():
        part.save_pretrained(folder / name)
    PNDMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1).save_pretrained(folder / "scheduler")
    weights = folder / "text_encoder" / "model.safetensors"
    named = {f"text_model.{name}": value.clone() for name, value in load_file(weights).items()}
    save_file({**named, "text_model.embeddings.position_ids": torch.arange(24)[None]}, weights, metadata={"format": "pt"})
    index = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory):
    """A CLIP as the train job writes it."""
    from reid_ray.model.dual.config import ModelConfig
    from reid_ray.model.dual.dual_encoder import build_dual_encoder

    shape = {
        "patch_size": 8,
        "vision_width": 32,
        "vision_layers": 1,
        "text_width": 32,
        "text_layers": 1,
        "embed_dim": 24,
        "vocab_size": 300,
    }
    encoder = build_dual_encoder(ModelConfig(image_height=32, image_width=16, scratch={**shape, "context": 24}), CAPTIONS)
    encoder.save(tmp_path_factory.mktemp("clip") / "model", {})
    return tmp_path_factory.getbasetemp() / "clip0" / "model"


@pytest.fixture
def edit_requests():
    """Requests of pictures of several sizes."""
    return [request(seed, size) for seed, size in enumerate([(40, 20), (33, 17), (24, 30), (40, 20)])]


def request(seed: int, size=(40, 20), references: int = 1) -> EditRequest:
    rng = np.random.default_rng(seed)
    mask = np.zeros(size, bool)
    mask[8:20, 5:14] = True
    prompt = "a man in a coat and jeans"
    nouns = [(11, 15), (20, 25)][:references]
    crops = tuple(EditReference(start, end, rng.integers(0, 256, (9, 7, 4), dtype=np.uint8)) for start, end in nouns)
    return EditRequest(rng.integers(0, 256, (*size, 3), dtype=np.uint8), mask, prompt, crops, seed)
