"""Token and patch features of layer l against running the layers by hand."""

import pytest
import torch

from reid_ray.model.dual.clip import clip_from_scratch
from reid_ray.model.dual.config import ScratchConfig
from reid_ray.model.dual.token_features import image_pass, layer_at, patch_features, token_features

END = 299


@pytest.fixture(scope="module")
def clip():
    torch.set_num_threads(1)
    shape = ScratchConfig(vision_width=32, vision_layers=4, text_width=24, text_layers=3, embed_dim=16, vocab_size=300, context=10)
    return clip_from_scratch(shape, height=48, width=32, vocab_size=300, end_id=END, seed=0)


def _unit(features):
    return features / features.pow(2).sum(-1, keepdim=True).sqrt()


@pytest.mark.parametrize("layer", [1, 3, 4])
def test_patches_are_the_layers_output_normed_and_projected_without_the_class_token(clip, layer):
    pixels = torch.randn(2, 3, 48, 32, generator=torch.Generator().manual_seed(0))
    tower = clip.vision_model
    with torch.no_grad():
        hidden = tower.pre_layrnorm(tower.embeddings(pixels))
        for block in tower.encoder.layers[:layer]:
            hidden = block(hidden, None)
        expected = _unit(clip.visual_projection(tower.post_layernorm(hidden))[:, 1:])
    output, captured = image_pass(clip, pixels, layer=layer)
    torch.testing.assert_close(patch_features(clip, captured), expected)
    torch.testing.assert_close(output.pooler_output, clip.get_image_features(pixel_values=pixels).pooler_output)
    assert output.pooler_output.requires_grad
    assert not captured.requires_grad


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_tokens_are_the_layers_output_under_a_causal_mask(clip, layer):
    ids = torch.tensor([[298, 5, 7, 11, END, END], [298, 3, END, END, END, END]])
    tower = clip.text_model
    mask = torch.full((6, 6), float("-inf")).triu(1)[None, None]
    with torch.no_grad():
        hidden = tower.embeddings(input_ids=ids)
        for block in tower.encoder.layers[:layer]:
            hidden = block(hidden, mask)
        expected = _unit(clip.text_projection(tower.final_layer_norm(hidden)))
    torch.testing.assert_close(token_features(clip, ids, layer=layer), expected)


def test_no_layer_beyond_l_runs_and_the_model_is_left_as_it_was(clip):
    ran = []
    hooks = [block.register_forward_hook(lambda *_, n=n: ran.append(n)) for n, block in enumerate(clip.text_model.encoder.layers, 1)]
    names = list(clip.state_dict())
    token_features(clip, torch.tensor([[298, 4, END]]), layer=2)
    for hook in hooks:
        hook.remove()
    assert ran == [1, 2]
    assert list(clip.state_dict()) == names
    assert len(clip.text_model.encoder.layers) == 3


def test_ten_of_twelve_is_twenty_of_twenty_four():
    assert [layer_at(10 / 12, layers) for layers in (1, 3, 4, 12, 24)] == [1, 2, 3, 10, 20]
    assert [layer_at(0.83, layers) for layers in (12, 24)] == [10, 20]
