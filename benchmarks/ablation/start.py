"""Weights to start from: a small CLIP that can already tell, a little, which patch a word speaks of.

Noise-aware masking was published on CLIP, which has learnt from 400 million pairs that words and patches of the same thing lie together;
no such weights are at hand here, and a small CLIP that learns from global features alone does not come to it (its noise levels tell
nothing). So a stand-in is trained once on other people, cameras and clean human captions: InfoNCE over global features, and the same
over single tokens and patches (each token with its best patch, the mean over a text's tokens: Yao et al., FILIP, 2022). It is
short, so that training still has something to add.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from reid_ray.config.common import SyntheticConfig
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.model.dual.config import ModelConfig, ScratchConfig
from reid_ray.model.dual.dual_encoder import DualEncoder, build_dual_encoder, tokenise
from reid_ray.model.dual.token_features import layer_at
from reid_ray.model.tiny.tasks import describe
from reid_ray.train.losses.image_text import infonce_loss
from reid_ray.train.masking.noise_aware import real_tokens, vocabulary_of

HEIGHT, WIDTH = 64, 32
SHAPE = ScratchConfig(
    patch_size=8, vision_width=64, vision_layers=3, text_width=64, text_layers=2, embed_dim=64, vocab_size=800, context=64
)
TEMPERATURE, TOKEN_TEMPERATURE, RATE, BATCH = 0.07, 0.05, 2e-3, 64


def train_start(folder: Path, *, people: int, steps: int, depth: float, seed: int) -> None:
    """Train the stand-in and save it in `folder`.

    Args:
        folder: of the model.
        people: identities, one picture each.
        steps: of 64 pairs.
        depth: share of each tower's layers after which tokens and patches are compared.
        seed: of people, weights and order.
    """
    torch.set_num_threads(1)
    source = SyntheticPeople(SyntheticConfig(identities=people, images_per_identity=1, height=HEIGHT, width=WIDTH, seed=seed))
    pictures, texts = source.pictures(), source.captions()
    # The tokenizer also sees the plain form, so that the captions of training are cut into whole words.
    vocabulary = [text for pair in texts for text in pair] + [describe(attributes) for attributes in source.attributes()]
    encoder = build_dual_encoder(ModelConfig(image_height=HEIGHT, image_width=WIDTH, scratch=SHAPE), vocabulary, seed=seed)
    model, draw = encoder.model.train(), np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=RATE, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        rows = draw.choice(people, BATCH, replace=False)
        said = [texts[row][draw.integers(2)] for row in rows]
        optimizer.zero_grad()
        loss = _loss(encoder, pictures[rows], said, depth=depth)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    encoder.save(folder, {"steps": steps, "people": people, "last_loss": loss.item()})


def _loss(encoder: DualEncoder, pixels_NHWC: np.ndarray, texts: list[str], *, depth: float) -> torch.Tensor:
    model, family = encoder.model, encoder.family
    layers = [layer_at(depth, config.num_hidden_layers) for config in (model.config.vision_config, model.config.text_config)]
    ids = tokenise(encoder.tokenizer, texts, context=encoder.context)
    image = model.vision_model(pixel_values=torch.from_numpy(encoder.transform.normalise(pixels_NHWC)), output_hidden_states=True)
    text = model.text_model(input_ids=ids, output_hidden_states=True)
    image_ND = functional.normalize(model.visual_projection(image.pooler_output), dim=-1)
    text_ND = functional.normalize(model.text_projection(text.pooler_output), dim=-1)
    whole = infonce_loss(image_ND, text_ND, image_CD=image_ND, text_CD=text_ND, first=0, temperature=TEMPERATURE)
    patch_NMD = functional.normalize(family.project_patches(model, image.hidden_states[layers[0]][:, 1:]), dim=-1)
    normed = model.text_model.final_layer_norm(text.hidden_states[layers[1]])
    token_NTD = functional.normalize(family.project_tokens(model, normed), dim=-1)
    real_NT = torch.from_numpy(real_tokens(ids.numpy(), vocabulary_of(encoder.tokenizer))).float()
    best_NTN = torch.einsum("ntd,cmd->ntcm", token_NTD, patch_NMD).amax(dim=-1)
    score_NN = (best_NTN * real_NT[..., None]).sum(dim=1) / real_NT.sum(dim=1, keepdim=True) / TOKEN_TEMPERATURE
    own_N = torch.arange(len(texts))
    return whole + (functional.cross_entropy(score_NN, own_N) + functional.cross_entropy(score_NN.T, own_N)) / 2
