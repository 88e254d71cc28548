"""The editor: its fusion and attention, its folder, and its denoising beside diffusers' own pipelines."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from refusals import refused

from reid_ray.errors import DataError
from reid_ray.model.editor.attention_maps import AttentionWatch, grid_of_cells
from reid_ray.model.editor.attribute_fusion import AttributeFusion
from reid_ray.model.editor.config import DrawingConfig, EditorModelConfig, PublishedConfig
from reid_ray.model.editor.diffusion_sampling import Denoising, draw, noise_of
from reid_ray.model.editor.edit_inputs import PromptReader
from reid_ray.model.editor.editor_folder import FUSION, open_editor, save_editor, start_editor
from reid_ray.model.editor.published_editor import PublishedEditor
from reid_ray.model.editor.reference_editor import Editor

pytestmark = pytest.mark.slow


def test_fusion_is_the_published_formula_at_the_nouns_token_and_nothing_elsewhere():
    torch.manual_seed(0)
    fusion = AttributeFusion(6, 4).double()
    text, attribute = torch.randn(2, 5, 6).double(), torch.randn(2, 3, 4).double()
    position, given = torch.tensor([[1, 3, 0], [4, 0, 0]]), torch.tensor([[True, True, False], [True, False, False]])
    fused = fusion(text, attribute, position, given)
    w = {name: value.numpy() for name, value in fusion.state_dict().items()}

    def norm(x, name):
        return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]

    def mlp(x, name):
        y = w[f"{name}.expand.weight"] @ norm(x, f"{name}.norm") + w[f"{name}.expand.bias"]
        y = torch.nn.functional.gelu(torch.from_numpy(y)).numpy()
        return w[f"{name}.shrink.weight"] @ y + w[f"{name}.shrink.bias"]

    expected = text.numpy().copy()
    for row, place in ((0, 0), (0, 1), (1, 0)):
        at = int(position[row, place])
        own = text[row, at].numpy()
        seen = w["project.weight"] @ attribute[row, place].numpy() + w["project.bias"]
        joined = mlp(np.concatenate([own, seen]), "join") + own
        expected[row, at] = norm(mlp(joined, "refine") + joined, "norm")
    np.testing.assert_allclose(fused.detach().numpy(), expected, atol=1e-9)


def test_watched_attention_draws_the_same_sums_to_one_and_passes_gradients(small_config):
    unet = start_editor(small_config, ["a coat"] * 3, seed=3, steps=1, guidance=1).network.unet
    noisy, prompt = torch.randn(2, 28, 8, 8), torch.randn(2, 5, 32)
    plain = unet(noisy, 7, prompt).sample
    watch = AttentionWatch(unet)
    torch.testing.assert_close(unet(noisy, 7, prompt).sample, plain, atol=1e-5, rtol=1e-4)
    maps = watch.take()
    assert [grid_of_cells(each.shape[2], (8, 8)) for each in maps] == [(4, 4)] * len(maps)
    for each in maps:
        torch.testing.assert_close(each.sum(dim=-1), torch.ones(each.shape[:3]))
    sum(each[..., 1].mean() for each in maps).backward()
    assert all(weight.grad is not None for name, weight in unet.named_parameters() if "mid_block" in name and "attn2.to_q" in name)
    assert watch.take() == []


def test_batches_that_overlap_as_on_a_gpu_are_drawn_as_one_after_the_other(small_editor, edit_requests):
    editor = Editor(small_editor, DrawingConfig(batch_size=1), revision="none")
    overlapped = editor._overlapped([[request] for request in edit_requests])
    for one, other in zip(overlapped, editor.edit(edit_requests), strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(edit_requests) > 2
    assert editor._overlapped([]) == editor.edit([]) == []


def test_every_edit_is_its_own_and_changes_nothing_outside_its_mask(small_editor, edit_requests):
    editor = Editor(small_editor, DrawingConfig(batch_size=3), revision="none")
    together = editor.edit(edit_requests)
    for request, edited in zip(edit_requests, together, strict=True):
        assert edited.shape == request.picture.shape
        assert (edited[~request.mask] == request.picture[~request.mask]).all()
        assert (edited[request.mask] != request.picture[request.mask]).mean() > 0.5
        (alone,) = editor.edit([request])
        assert np.abs(alone.astype(int) - edited).max() <= 1
    other = replace(edit_requests[0], seed=99)
    assert (editor.edit([other])[0] != together[0]).any()
    bare = replace(edit_requests[0], references=())
    assert (editor.edit([bare])[0] != together[0]).any()


@pytest.mark.parametrize("mode", ["blend", "generate"])
def test_the_other_modes_draw_too(small_config, mode, edit_requests):
    opened = start_editor(small_config.model_copy(update={"mode": mode}), ["a coat"] * 3, seed=0, steps=2, guidance=2)
    for request, edited in zip(edit_requests, Editor(opened, DrawingConfig(), revision="none").edit(edit_requests), strict=True):
        outside = (edited[~request.mask] == request.picture[~request.mask]).all()
        assert outside == (mode == "blend")


def test_a_saved_editor_draws_the_same_and_a_changed_folder_is_refused(small_editor, tmp_path, edit_requests):
    first = Editor(small_editor, DrawingConfig(), revision="none").edit(edit_requests)
    save_editor(small_editor, tmp_path / "whole", {})
    save_editor(small_editor, tmp_path / "half", {}, half=True)
    again = Editor.open(tmp_path / "whole")
    assert all((a == b).all() for a, b in zip(again.edit(edit_requests), first, strict=True))
    near = Editor.open(tmp_path / "half").edit(edit_requests)
    assert max(np.abs(a.astype(int) - b).max() for a, b in zip(near, first, strict=True)) <= 8
    assert again.revision != Editor.open(tmp_path / "half").revision
    (tmp_path / "half" / FUSION).unlink()
    with refused(DataError, FUSION):
        open_editor(tmp_path / "half")


def test_stable_diffusion_begins_as_it_was_with_zeros_for_what_it_did_not_see(stable_diffusion, clip_folder):
    from diffusers import UNet2DConditionModel

    config = EditorModelConfig(init=str(stable_diffusion), attribute_encoder=str(clip_folder), height=16, width=16, crop=16, context=24)
    network = start_editor(config, [], seed=0, steps=2, guidance=2).network
    assert network.unet.config.in_channels == 9
    own = UNet2DConditionModel.from_pretrained(stable_diffusion / "unet")
    noisy, prompt = torch.randn(2, 4, 8, 8), torch.randn(2, 24, 32)
    beside = network.beside(torch.rand(2, 3, 16, 16), torch.ones(2, 1, 16, 16))
    torch.testing.assert_close(network.predict(noisy, torch.tensor(5), prompt, beside), own(noisy, 5, prompt).sample)


@pytest.mark.parametrize("mode", ["inpaint", "generate"])
def test_pictures_are_those_of_diffusers_own_pipelines(stable_diffusion, clip_folder, tmp_path, mode):
    """The stock pipeline opens our folder; given the fused prompt and the same noise it draws what we draw."""
    import diffusers

    config = EditorModelConfig(
        init=str(stable_diffusion), attribute_encoder=str(clip_folder), mode=mode, height=16, width=16, crop=16, context=24
    )
    opened = start_editor(config, [], seed=1, steps=3, guidance=4)
    torch.nn.init.normal_(opened.network.unet.conv_in.weight, std=0.2)  # so that mask and picture count
    save_editor(opened, tmp_path / "editor", {})
    opened = open_editor(tmp_path / "editor")
    kind = diffusers.StableDiffusionInpaintPipeline if mode == "inpaint" else diffusers.StableDiffusionPipeline
    pipeline = kind.from_pretrained(tmp_path / "editor", safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    picture, mask = torch.rand(1, 3, 16, 16), torch.zeros(1, 1, 16, 16)
    mask[..., 4:12, 6:14] = 1  # whole cells
    sequence, empty = torch.randn(1, 24, 32), opened.network.read_prompt(torch.from_numpy(PromptReader(opened.tokenizer).empty())[None])
    given = {"image": picture, "mask_image": mask} if mode == "inpaint" else {}
    with torch.no_grad():
        ours = draw(
            opened.network, opened.scheduler, pictures=picture * 2 - 1, masks=mask, sequence_NTD=sequence, empty_1TD=empty,
            noise=noise_of([5], (4, 8, 8)),
            drawing=Denoising(3, 4.0),
        )  # fmt: skip
        theirs = pipeline(
            prompt_embeds=sequence, negative_prompt_embeds=empty, latents=noise_of([5], (4, 8, 8)), num_inference_steps=3,
            guidance_scale=4.0, height=16, width=16, output_type="np", **given,
        ).images  # fmt: skip
    np.testing.assert_allclose((ours / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy(), theirs, atol=2e-4)


def test_a_published_pipeline_stands_behind_the_same_interface(stable_diffusion, clip_folder, tmp_path, edit_requests):
    config = EditorModelConfig(init=str(stable_diffusion), attribute_encoder=str(clip_folder), height=16, width=16, crop=16, context=24)
    save_editor(start_editor(config, [], seed=1, steps=2, guidance=2), tmp_path / "published", {})
    chosen = PublishedConfig(pipeline="auto", model=str(tmp_path / "published"), megapixels=0.001, precision="fp32", padding_mask_crop=4)
    editor = PublishedEditor.open(chosen, DrawingConfig(steps=2, guidance=2))
    for request, edited in zip(edit_requests, editor.edit(edit_requests), strict=True):
        assert edited.shape == request.picture.shape
        assert (edited[~request.mask] == request.picture[~request.mask]).all()
        assert (edited[request.mask] != request.picture[request.mask]).any()
        assert (editor.edit([request])[0] == edited).all()


def test_an_attribute_encoder_of_our_own_brings_its_text_encoder(clip_folder, small_config, edit_requests):
    opened = start_editor(small_config.model_copy(update={"attribute_encoder": str(clip_folder)}), [], seed=0, steps=1, guidance=1)
    from reid_ray.model.pretrained import load_encoder

    clip = load_encoder(clip_folder).model
    tokens = torch.from_numpy(PromptReader(opened.tokenizer)("a red coat", []).token_T)[None]
    torch.testing.assert_close(opened.network.read_prompt(tokens), clip.text_model(input_ids=tokens).last_hidden_state)
    assert opened.network.attribute_encoder.config.projection_dim == 24
    assert Editor(opened, DrawingConfig(), revision="none").edit(edit_requests[:1])[0].shape == (40, 20, 3)


def test_a_noun_of_several_tokens_is_stood_for_by_its_last_and_one_beyond_the_context_by_none(small_editor):
    reader = PromptReader(small_editor.tokenizer)
    prompt = "a man in a trenchcoat"
    read = reader(prompt, [(11, 21), (0, 1)])
    start, end = small_editor.tokenizer(prompt, return_offsets_mapping=True)["offset_mapping"][read.position_K[0]]
    assert end == 21
    assert start >= 11
    far = "a " * 60 + "coat"
    assert reader(far, [(120, 124)]).position_K == [-1]
