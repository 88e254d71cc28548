"""SDM, noise-aware masking and IRR as the papers print them, in numpy alone, against the code that trains.

The functions of the first half know nothing of torch or reid_ray; they take weights and inputs as arrays.
"""

import math

import numpy as np
import pytest
import torch

from reid_ray.model.dual.clip import clip_from_scratch
from reid_ray.model.dual.config import ScratchConfig
from reid_ray.model.dual.token_features import image_pass, patch_features, token_features
from reid_ray.train.losses.contrastive import blocked_sdm_loss
from reid_ray.train.losses.image_text import sdm_loss
from reid_ray.train.losses.irr import IGNORED, InteractionEncoder, irr_cost, irr_loss, irr_targets
from reid_ray.train.masking.noise_aware import masking_probability, noise_levels


def layer_norm(x, weight, bias, eps=1e-5):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * weight + bias


def unit(x):
    return x / np.sqrt((x**2).sum(-1, keepdims=True))


def softmax(x):
    mass = np.exp(x - x.max(-1, keepdims=True))
    return mass / mass.sum(-1, keepdims=True)


def published_sdm(image, text, person, tau, eps=1e-8):
    same = (person[:, None] == person[None, :]).astype(float)
    q = same / same.sum(1, keepdims=True)
    total = 0.0
    for scores in (image @ text.T / tau, text @ image.T / tau):
        p = softmax(scores)
        total += (p * np.log(p / (q + eps))).sum(1).mean()
    return total


def published_masking(image_hidden, text_hidden, real, weights, p=0.15):
    """One caption: hidden states of layer l in, masking probabilities of its tokens out."""
    patches = unit(layer_norm(image_hidden[1:], *weights["image_norm"]) @ weights["image_projection"].T)
    tokens = unit(layer_norm(text_hidden, *weights["text_norm"]) @ weights["text_projection"].T)
    r = 1 - (tokens @ patches.T).max(axis=1)
    return np.where(real, np.clip(r - r[real].mean() + p, 0, 1), 0)


def attention(query, key, value, weights, heads, allowed=None):
    """softmax(q k / sqrt(d)) v per head, for one sample; weights as (in weight, in bias, out weight, out bias)."""
    (in_weight, in_bias, out_weight, out_bias), dim = weights, query.shape[-1]
    projected = [x @ w.T + b for x, w, b in zip((query, key, value), np.split(in_weight, 3), np.split(in_bias, 3), strict=True)]
    results = []
    for head in range(heads):
        part = slice(head * dim // heads, (head + 1) * dim // heads)
        q, k, v = (x[:, part] for x in projected)
        scores = q @ k.T / math.sqrt(dim // heads)
        results.append(softmax(scores if allowed is None else np.where(allowed[None, :], scores, -1e30)) @ v)
    return np.concatenate(results, axis=1) @ out_weight.T + out_bias


def quick_gelu(x):
    return x / (1 + np.exp(-1.702 * x))


def published_irr(text, image, real, w, heads, blocks):
    """One pair: token features in, logits over the vocabulary out. `w` maps names of parameters to arrays."""

    def take(*names):
        return [w[name] for name in names]

    def attention_weights(prefix):
        return take(*(f"{prefix}.{name}" for name in ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")))

    answer = layer_norm(image, *take("image_norm.weight", "image_norm.bias"))
    x = layer_norm(text, *take("text_norm.weight", "text_norm.bias"))
    x = attention(x, answer, answer, attention_weights("cross_attention"), heads)
    for n in range(blocks):
        y = layer_norm(x, *take(f"blocks.{n}.norm1.weight", f"blocks.{n}.norm1.bias"))
        x = x + attention(y, y, y, attention_weights(f"blocks.{n}.self_attn"), heads, allowed=real)
        y = layer_norm(x, *take(f"blocks.{n}.norm2.weight", f"blocks.{n}.norm2.bias"))
        y = quick_gelu(y @ w[f"blocks.{n}.linear1.weight"].T + w[f"blocks.{n}.linear1.bias"])
        x = x + y @ w[f"blocks.{n}.linear2.weight"].T + w[f"blocks.{n}.linear2.bias"]
    x = layer_norm(x, *take("output_norm.weight", "output_norm.bias"))
    x = quick_gelu(x @ w["head.dense.weight"].T + w["head.dense.bias"])
    return layer_norm(x, *take("head.norm.weight", "head.norm.bias")) @ w["head.classify.weight"].T + w["head.classify.bias"]


@pytest.mark.parametrize("persons", [4, 1000])
def test_sdm_at_the_published_temperature(persons):
    draw = np.random.default_rng(0)
    image, text = unit(draw.normal(size=(24, 8))), unit(draw.normal(size=(24, 8)))
    person = draw.integers(0, persons, 24)
    expected = published_sdm(image, text, person, 0.02)
    tensors = [torch.tensor(x) for x in (image, text, person)]
    dense = sdm_loss(*tensors, image_CD=tensors[0], text_CD=tensors[1], person_C=tensors[2], temperature=0.02)
    assert float(dense) == pytest.approx(expected, rel=1e-12)
    assert float(blocked_sdm_loss(*tensors, temperature=0.02, tile=5)) == pytest.approx(expected, rel=1e-12)


def test_noise_aware_masking_from_hidden_states_to_probabilities():
    shape = ScratchConfig(vision_width=32, vision_layers=3, text_width=24, text_layers=3, embed_dim=16, vocab_size=300, context=10)
    clip = clip_from_scratch(shape, height=64, width=32, vocab_size=300, end_id=299, seed=1).double()
    pixels = torch.randn(2, 3, 64, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ids = torch.tensor([[298, 5, 7, 11, 299, 299], [298, 3, 8, 4, 12, 299]])
    real = np.array([[False, True, True, True, False, False], [False, True, True, True, True, False]])
    _, hidden = image_pass(clip, pixels, layer=2)
    levels = noise_levels(patch_features(clip, hidden), token_features(clip, ids, layer=2))
    probability = masking_probability(levels.numpy(), real, mean=0.15)

    text_hidden = []
    hook = clip.text_model.encoder.layers[1].register_forward_hook(lambda *args: text_hidden.append(args[2].detach().numpy()))
    clip.text_model(input_ids=ids)
    hook.remove()
    names = {"image_norm": clip.vision_model.post_layernorm, "text_norm": clip.text_model.final_layer_norm}
    weights = {name: (norm.weight.detach().numpy(), norm.bias.detach().numpy()) for name, norm in names.items()}
    weights["image_projection"] = clip.visual_projection.weight.detach().numpy()
    weights["text_projection"] = clip.text_projection.weight.detach().numpy()
    for n in range(2):
        expected = published_masking(hidden[n].numpy(), text_hidden[0][n], real[n], weights)
        np.testing.assert_allclose(probability[n], expected, atol=2e-6)  # features are rounded to float32 on the way
        assert expected[real[n]].std() > 1e-3


def test_irr_from_token_features_to_loss():
    torch.manual_seed(0)
    dim, vocabulary, heads, blocks = 8, 20, 2, 4
    encoder = InteractionEncoder(dim, vocabulary, heads=heads, blocks=blocks).double()
    for weight in encoder.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    draw = np.random.default_rng(0)
    text, image = draw.normal(size=(2, 6, dim)), draw.normal(size=(2, 5, dim))
    real = np.array([[True] * 6, [True] * 4 + [False] * 2])
    ids, chosen = draw.integers(0, vocabulary, (2, 6)), np.array([[0, 1, 0, 1, 0, 0], [0, 0, 1, 0, 0, 0]], bool)

    logits = encoder(torch.tensor(text), torch.tensor(image), torch.tensor(real), torch.ones(2, 6, dtype=torch.bool)).reshape(2, 6, -1)
    targets = irr_targets(torch.tensor(ids), torch.tensor(chosen))
    loss = irr_loss(irr_cost(logits[targets != IGNORED], targets), torch.tensor(chosen.sum(axis=1)))
    weights = {name: value.detach().numpy() for name, value in encoder.state_dict().items()}
    costs = []
    for n in range(2):
        expected = published_irr(text[n], image[n], real[n], weights, heads, blocks)
        np.testing.assert_allclose(logits[n].detach().numpy()[real[n]], expected[real[n]], rtol=1e-9, atol=1e-10)
        costs += [-math.log(softmax(expected[i])[ids[n, i]]) for i in range(6) if chosen[n, i]]
    assert loss.item() == pytest.approx(np.mean(costs), rel=1e-5)
    assert (targets == IGNORED).sum() == 9
