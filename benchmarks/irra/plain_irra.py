"""IRRA's recipe in plain torch (Jiang and Ye, CVPR 2023): model, masking, losses, parameter groups and schedule, for comparison.

Written from the paper and from what is known of the authors' release, without a line of reid_ray: what both make of the same start and the
same batches must agree. In one point it is not the release: there padding takes part in the blocks of the IRR head, which here do not
attend to it, as in this package, where a text's loss must not depend on the longest text of its batch. Parameters bear the names of the
release, so that a state dictionary of this module is a checkpoint in IRRA's form.
N pairs, T tokens, P positions of a picture (class token and patches), D dimensions of the joint space.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional

MARKS = 2  # start and end are the last two entries of the vocabulary


@dataclass(frozen=True)
class Shape:
    """Of the towers; heads are 64 wide, as in CLIP."""

    height: int
    width: int
    patch: int
    vision_width: int
    vision_layers: int
    text_width: int
    text_layers: int
    dim: int
    vocabulary: int
    context: int
    persons: int


@dataclass(frozen=True)
class Recipe:
    """What the release does. Another value leaves that part of the recipe out, to see how much it matters."""

    lr: float = 1e-5
    eps: float = 1e-3
    decay: float = 4e-5
    new_modules: float = 5.0
    biases: float = 2.0
    decays_biases: bool = False
    temperature: float = 0.02
    masked_share: float = 0.15
    at_least_one: bool = True
    masks_in_place: bool = True
    epochs: int = 60
    rising_epochs: int = 5
    rises_from: float = 0.1
    sdm: float = 1.0
    identity: float = 1.0
    words: float = 1.0

    def without(self, part: str) -> Recipe:
        """The recipe with one part left out."""
        return replace(self, **{part: LEFT_OUT[part]})


LEFT_OUT: dict[str, Any] = {
    "eps": 1e-8,
    "decay": 0.0,
    "new_modules": 1.0,
    "biases": 1.0,
    "decays_biases": True,
    "at_least_one": False,
    "masks_in_place": False,
    "rises_from": 0.0,
    "sdm": 0.0,
    "identity": 0.0,
    "words": 0.0,
}


class Batch(NamedTuple):
    """Pictures, texts padded with 0 behind their end mark, random numbers that mask, and who is who."""

    pixels_N3HW: torch.Tensor
    ids_NT: torch.Tensor
    draw_NT3: torch.Tensor
    person_N: torch.Tensor


class _QuickGelu(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(1.702 * x)


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, width // 64, batch_first=True)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(OrderedDict(c_fc=nn.Linear(width, 4 * width), gelu=_QuickGelu(), c_proj=nn.Linear(4 * width, width)))

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None, padding: torch.Tensor | None) -> torch.Tensor:
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, attn_mask=mask, key_padding_mask=padding, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class _Transformer(nn.Module):
    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(_Block(width) for _ in range(layers))

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None, padding: torch.Tensor | None = None) -> torch.Tensor:
        for block in self.resblocks:
            x = block(x, mask, padding)
        return x


class _Visual(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width, patches = shape.vision_width, (shape.height // shape.patch) * (shape.width // shape.patch)
        self.conv1 = nn.Conv2d(3, width, shape.patch, stride=shape.patch, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width) * width**-0.5)
        self.positional_embedding = nn.Parameter(torch.randn(patches + 1, width) * width**-0.5)
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = _Transformer(width, shape.vision_layers)
        self.proj = nn.Parameter(torch.randn(width, shape.dim) * width**-0.5)

    def forward(self, pixels_N3HW: torch.Tensor) -> torch.Tensor:
        patches = self.conv1(pixels_N3HW).flatten(2).transpose(1, 2)
        positions = torch.cat([self.class_embedding.expand(len(patches), 1, -1), patches], dim=1) + self.positional_embedding
        return self.ln_post(self.transformer(self.ln_pre(positions))) @ self.proj


class _Clip(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.text_width
        self.visual = _Visual(shape)
        self.transformer = _Transformer(width, shape.text_layers)
        self.token_embedding = nn.Embedding(shape.vocabulary, width)
        self.positional_embedding = nn.Parameter(torch.randn(shape.context, width) * 0.01)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.randn(width, shape.dim) * width**-0.5)
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    def encode_text(self, ids_NT: torch.Tensor) -> torch.Tensor:
        tokens = ids_NT.shape[1]
        causal = torch.full((tokens, tokens), -math.inf, device=ids_NT.device).triu(1)
        states = self.transformer(self.token_embedding(ids_NT) + self.positional_embedding[:tokens], causal)
        return self.ln_final(states) @ self.text_projection


class PlainIrra(nn.Module):
    """The model and its three losses. Texts are padded with 0, which the IRR head's blocks do not attend to (the release's do)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        dim = shape.dim
        self.base_model = _Clip(shape)
        self.classifier = nn.Linear(dim, shape.persons)
        self.cross_attn = nn.MultiheadAttention(dim, dim // 64, batch_first=True)
        self.cross_modal_transformer = _Transformer(dim, 4)
        self.ln_pre_t, self.ln_pre_i, self.ln_post = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.mlm_head = nn.Sequential(
            OrderedDict(dense=nn.Linear(dim, dim), gelu=_QuickGelu(), ln=nn.LayerNorm(dim), fc=nn.Linear(dim, shape.vocabulary))
        )
        nn.init.normal_(self.classifier.weight, std=0.001)

    def features(self, pixels_N3HW: torch.Tensor, ids_NT: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Global features of pictures and texts, [N, D] each, as they come: the class token and the end mark, the highest number."""
        text_NTD = self.base_model.encode_text(ids_NT)
        return self.base_model.visual(pixels_N3HW)[:, 0], text_NTD[torch.arange(len(ids_NT)), ids_NT.argmax(dim=1)]

    def loss(self, batch: Batch, recipe: Recipe) -> torch.Tensor:
        """SDM and ID, and the prediction of the words that are masked; the first two read the masked text, too."""
        vocabulary = self.base_model.token_embedding.num_embeddings
        masked_NT, label_NT = masked(batch.ids_NT, batch.draw_NT3, first_mark=vocabulary - MARKS, recipe=recipe)
        seen_NT = masked_NT if recipe.masks_in_place else batch.ids_NT
        image_NPD = self.base_model.visual(batch.pixels_N3HW)
        seen_NTD = self.base_model.encode_text(seen_NT)
        image_ND, text_ND = image_NPD[:, 0], seen_NTD[torch.arange(len(seen_NT)), seen_NT.argmax(dim=1)]
        total = recipe.sdm * sdm(image_ND, text_ND, batch.person_N, recipe.temperature)
        for feature_ND in (image_ND, text_ND):
            total = total + recipe.identity / 2 * functional.cross_entropy(self.classifier(feature_ND), batch.person_N)
        masked_NTD = seen_NTD if recipe.masks_in_place else self.base_model.encode_text(masked_NT)
        image = self.ln_pre_i(image_NPD)
        crossed = self.cross_attn(self.ln_pre_t(masked_NTD), image, image, need_weights=False)[0]
        logits = self.mlm_head(self.ln_post(self.cross_modal_transformer(crossed, None, masked_NT == 0)))
        return total + recipe.words * functional.cross_entropy(logits.flatten(0, 1), label_NT.flatten(), ignore_index=0)


def sdm(image_ND: torch.Tensor, text_ND: torch.Tensor, person_N: torch.Tensor, temperature: float) -> torch.Tensor:
    """Similarity distribution matching: the sum of both directions' divergences of the softmax from the true matches."""
    same = (person_N[:, None] == person_N[None, :]).float()
    wanted = same / same.sum(dim=1, keepdim=True)
    score = functional.normalize(image_ND, dim=1) @ functional.normalize(text_ND, dim=1).T / temperature
    total = torch.zeros((), device=score.device)
    for direction in (score, score.T):
        found = torch.softmax(direction, dim=1)
        total = total + (found * (torch.log_softmax(direction, dim=1) - torch.log(wanted + 1e-8))).sum(dim=1).mean()
    return total


def masked(ids_NT: torch.Tensor, draw_NT3: torch.Tensor, *, first_mark: int, recipe: Recipe) -> tuple[torch.Tensor, torch.Tensor]:
    """Mask words as BERT does, by given random numbers (chosen?, which fate?, which other word?). The start mark stands for the mask.

    Args:
        ids_NT: texts; words have numbers from 1 to first_mark - 1, padding is 0.
        draw_NT3: in [0, 1).
        first_mark: number of the start mark, behind which the end mark follows.
        recipe: how many are masked, and whether one always is.

    Returns:
        (texts with masked words, labels: the word where one was chosen, else 0).
    """
    out, label = ids_NT.clone(), torch.zeros_like(ids_NT)
    for row, text in enumerate(ids_NT.tolist()):
        for place, word in enumerate(text):
            choice, fate, other = draw_NT3[row, place].tolist()
            if not 0 < word < first_mark or choice >= recipe.masked_share:
                continue
            label[row, place] = word
            if fate < 0.8:
                out[row, place] = first_mark
            elif fate < 0.9:
                out[row, place] = 1 + int(other * (first_mark - 1))
        if recipe.at_least_one and not label[row].any():
            label[row, 1], out[row, 1] = ids_NT[row, 1], first_mark
    return out, label


def adam(model: PlainIrra, recipe: Recipe) -> torch.optim.Adam:
    """Groups by the names of parameters, as the release forms them; each carries its own peak rate."""
    groups = []
    for name, weight in model.named_parameters():
        rate, decay = recipe.lr, recipe.decay
        if "cross" in name:
            rate = recipe.lr * recipe.new_modules
        if "bias" in name:
            rate, decay = recipe.lr * recipe.biases, recipe.decay if recipe.decays_biases else 0.0
        if "classifier" in name or "mlm_head" in name:
            rate = recipe.lr * recipe.new_modules
        groups.append({"params": [weight], "lr": rate, "peak": rate, "weight_decay": decay})
    return torch.optim.Adam(groups, lr=recipe.lr, betas=(0.9, 0.999), eps=recipe.eps)


def set_epoch(optimizer: torch.optim.Optimizer, epoch: int, recipe: Recipe) -> None:
    """The rates of an epoch, from 0: a linear rise, then half a cosine."""
    if epoch < recipe.rising_epochs:
        share = epoch / recipe.rising_epochs
        factor = recipe.rises_from * (1 - share) + share
    else:
        factor = (1 + math.cos(math.pi * (epoch - recipe.rising_epochs) / (recipe.epochs - recipe.rising_epochs))) / 2
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
