"""The dual encoder: any picture size, one folder that round-trips, published weights of both families."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from refusals import refused
from transformers import AutoImageProcessor, CLIPModel

from reid_ray.config.base import load_config
from reid_ray.errors import ConfigError, DataError
from reid_ray.model.dual.architectures import with_image_size
from reid_ray.model.dual.config import ModelConfig
from reid_ray.model.dual.dual_encoder import build_dual_encoder, tokenise
from reid_ray.model.dual.grid import resize_positions
from reid_ray.model.dual.open_clip_weights import clip_config, convert_weights
from reid_ray.model.pretrained import load_encoder, locate, open_pretrained

TEXTS = ["A woman with long black hair wears a red coat.", "the man carries a blue backpack", "a person in grey trousers and white shoes"]
SHAPE = {"vision_width": 32, "vision_layers": 2, "text_width": 32, "text_layers": 2, "embed_dim": 16, "vocab_size": 300, "context": 16}


def tiny(height: int = 128, width: int = 64, **shape):
    return build_dual_encoder(ModelConfig(image_height=height, image_width=width, scratch={**SHAPE, **shape}), TEXTS)


def pictures(count: int = 3) -> list[Image.Image]:
    noise = np.random.default_rng(0).integers(0, 256, (count, 90, 47, 3), np.uint8)
    return [Image.fromarray(pixels) for pixels in noise]


def test_embeddings_are_unit_vectors_and_do_not_depend_on_their_batch():
    encoder = tiny()
    together, alone = encoder.encode_images(pictures()), np.concatenate([encoder.encode_images([p]) for p in pictures()])
    assert together.shape == (3, 16)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), np.concatenate([encoder.encode_texts([t]) for t in TEXTS]), atol=1e-6)
    assert encoder.encode_images([]).shape == encoder.encode_texts([]).shape == (0, 16)


@pytest.mark.parametrize("size", [(128, 64), (64, 64), (48, 80)])
@pytest.mark.slow
def test_folder_round_trips_at_any_size(tmp_path, size):
    encoder = tiny(*size)
    encoder.save(tmp_path, {"selected_on": "val"})
    again = load_encoder(tmp_path)
    assert again.fingerprint == encoder.fingerprint
    assert np.array_equal(again.encode_images(pictures()), encoder.encode_images(pictures()))
    assert np.array_equal(again.encode_texts(TEXTS), encoder.encode_texts(TEXTS))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert (manifest["image_height"], manifest["image_width"]) == size
    assert manifest["facts"] == {"selected_on": "val"}


@pytest.mark.slow
def test_plain_clip_model_loads_a_square_model_and_refuses_a_rectangular_one(tmp_path):
    square, oblong = tiny(64, 64), tiny(128, 64)
    square.save(tmp_path / "square", {})
    oblong.save(tmp_path / "oblong", {})
    plain = CLIPModel.from_pretrained(tmp_path / "square").eval()
    pixels = AutoImageProcessor.from_pretrained(tmp_path / "square")(pictures(), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        theirs = torch.nn.functional.normalize(plain.get_image_features(pixels).pooler_output, dim=-1)
    np.testing.assert_allclose(theirs.numpy(), square.encode_images(pictures()), atol=2e-2)  # their resizing rounds otherwise
    assert set(plain.state_dict()) == set(oblong.model.state_dict())
    with pytest.raises(RuntimeError, match="mismatch"):
        CLIPModel.from_pretrained(tmp_path / "oblong")


def test_fingerprint_follows_the_weights():
    one, other = tiny(), tiny()
    assert one.fingerprint == other.fingerprint
    with torch.no_grad():
        other.model.visual_projection.weight[0, 0] += 1e-3
    from reid_ray.model.dual.dual_encoder import DualEncoder

    assert DualEncoder(other.model, other.tokenizer, other.transform).fingerprint != one.fingerprint


def cubic(distance: float, a: float = -0.75) -> float:
    """Keys' cubic convolution kernel."""
    x = abs(distance)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def cubic_matrix(source: int, target: int) -> np.ndarray:
    """[target, source] weights of cubic interpolation at pixel centres, the border repeated."""
    matrix = np.zeros((target, source))
    for row in range(target):
        centre = (row + 0.5) * source / target - 0.5
        for tap in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
            matrix[row, min(max(tap, 0), source - 1)] += cubic(centre - tap)
    return matrix


@pytest.mark.parametrize(("source", "target"), [((14, 14), (24, 8)), ((4, 4), (3, 9)), ((8, 4), (24, 8))])
def test_resized_positions_match_cubic_convolution_by_hand(source, target):
    table = np.random.default_rng(1).normal(size=(1 + source[0] * source[1], 5)).astype(np.float32)
    resized = resize_positions(torch.from_numpy(table), source=source, target=target).numpy()
    grid = table[1:].reshape(*source, 5)
    by_hand = np.einsum("ir,jc,rcd->ijd", cubic_matrix(source[0], target[0]), cubic_matrix(source[1], target[1]), grid)
    assert np.array_equal(resized[0], table[0])
    np.testing.assert_allclose(resized[1:], by_hand.reshape(-1, 5), atol=1e-5)


def test_bilinear_positions_are_means_of_their_neighbours():
    table = torch.tensor([[9.0], [0.0], [1.0], [2.0], [3.0]])  # a class token, then 2 x 2 patches
    resized = resize_positions(table, source=(2, 2), target=(4, 2), mode="bilinear")
    assert resized[:, 0].tolist() == [9.0, 0.0, 1.0, 0.5, 1.5, 1.5, 2.5, 2.0, 3.0]


def test_another_size_changes_positions_alone():
    square = tiny(64, 64).model
    oblong = with_image_size(square, height=128, width=48)
    changed = [name for name, weight in oblong.state_dict().items() if not torch.equal(weight, square.state_dict()[name])]
    assert changed == ["vision_model.embeddings.position_embedding.weight"]
    assert oblong.get_image_features(torch.zeros(1, 3, 128, 48)).pooler_output.shape == (1, 16)
    with refused(ValueError, "(48, 128)", "(128, 48)"):
        oblong.get_image_features(torch.zeros(1, 3, 48, 128))
    with refused(ConfigError, "model.image_height 8", "model.image_width 8", "16"):
        with_image_size(square, height=8, width=8)


@pytest.mark.slow
def test_a_text_keeps_its_end_mark_and_any_script_has_tokens():
    encoder = tiny()
    tokens = tokenise(encoder.tokenizer, ["word " * 500, "", "红色外套 🧥"], context=encoder.context)
    end = encoder.model.config.text_config.eos_token_id
    assert tokens.shape[1] <= encoder.context
    assert (tokens == end).any(dim=1).all()
    vectors = encoder.encode_texts(["", "红色外套 🧥", "a\x00b", "x" * 100_000])
    assert np.isfinite(vectors).all()
    assert len(np.unique(vectors.round(5), axis=0)) == 4


def open_clip_model(quick_gelu: bool):
    open_clip = pytest.importorskip("open_clip")
    torch.manual_seed(3)
    cfg = {
        "embed_dim": 32,
        "quick_gelu": quick_gelu,
        "vision_cfg": {"image_size": 64, "layers": 3, "width": 64, "head_width": 16, "patch_size": 16},
        "text_cfg": {"context_length": 16, "vocab_size": 300, "width": 48, "heads": 3, "layers": 2},
    }
    return open_clip.model.CLIP(**cfg).eval(), cfg


@pytest.mark.parametrize("quick_gelu", [False, True])
@pytest.mark.slow
def test_open_clip_folder_gives_the_embeddings_of_open_clip(tmp_path, quick_gelu):
    theirs, cfg = open_clip_model(quick_gelu)
    tiny().tokenizer.save_pretrained(tmp_path)
    torch.save(theirs.state_dict(), tmp_path / "open_clip_pytorch_model.bin")
    preprocess = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": cfg, "preprocess_cfg": preprocess}))
    ours = open_pretrained(ModelConfig(init=str(tmp_path), image_height=64, image_width=64))
    pixels = torch.randn(4, 3, 64, 64)
    ids = torch.randint(0, 298, (4, 16))
    ids[torch.arange(4), torch.tensor([5, 9, 12, 15])] = 299
    with torch.no_grad():
        torch.testing.assert_close(ours.model.get_image_features(pixels).pooler_output, theirs.encode_image(pixels), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(ours.model.get_text_features(ids).pooler_output, theirs.encode_text(ids), atol=1e-4, rtol=1e-4)
    assert ours.transform.mean == (0.5, 0.5, 0.5)


def test_open_clip_folder_without_its_configuration_or_of_another_architecture_is_refused(tmp_path):
    theirs, cfg = open_clip_model(False)
    tiny().tokenizer.save_pretrained(tmp_path)
    torch.save(theirs.state_dict(), tmp_path / "open_clip_pytorch_model.bin")
    with refused(DataError, "open_clip_config.json", "QuickGELU"):
        load_encoder(tmp_path)
    cfg["vision_cfg"]["timm_model_name"] = "convnext_base"
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": cfg}))
    with refused(DataError, "vision_cfg.timm_model_name"):
        load_encoder(tmp_path)


@pytest.mark.slow
def test_pretrained_weights_open_at_another_size(tmp_path):
    published = tiny(64, 64)
    published.save(tmp_path, {})
    encoder = open_pretrained(ModelConfig(init=str(tmp_path), image_height=128, image_width=64))
    assert np.array_equal(encoder.encode_texts(TEXTS), published.encode_texts(TEXTS))
    encoder.save(tmp_path / "resized", {})
    assert load_encoder(tmp_path / "resized").fingerprint == encoder.fingerprint


@pytest.mark.slow
def test_what_is_missing_is_named(tmp_path):
    with refused(DataError, "nowhere", "model/"):
        load_encoder(tmp_path / "nowhere")
    with refused(DataError, str(tmp_path), "model.safetensors"):
        load_encoder(tmp_path)
    tiny().save(tmp_path / "model", {})
    (tmp_path / "model" / "tokenizer.json").unlink()
    with refused(DataError, "tokenizer.json", "model.tokenizer"):
        load_encoder(tmp_path / "model")
    with refused(DataError, "model.init", "/no/weights"):
        locate("/no/weights")
    with refused(DataError, "model.tokenizer", "/no/tokens"):
        open_pretrained(ModelConfig(init=str(tmp_path / "model"), tokenizer="/no/tokens"))
    with refused(DataError, "model.init", "HF_HUB_OFFLINE"):
        locate("nobody/no-such-model")


def test_contradictory_model_sections_are_refused():
    with refused(ConfigError, "init", "scratch"):
        load_config(ModelConfig, None, ["init=openai/clip-vit-base-patch16", "scratch.vision_width=64"])
    with refused(ConfigError, "patch_size"):
        load_config(ModelConfig, None, ["image_height=100"])
    with refused(ConfigError, "vision_width"):
        load_config(ModelConfig, None, ["scratch.vision_heads=7"])


@pytest.mark.slow
def test_overlapping_patches_are_those_that_unfolding_cuts_and_their_stride_is_saved(tmp_path):
    published = tiny(64, 64)
    published.save(tmp_path / "published", {})
    encoder = open_pretrained(ModelConfig(init=str(tmp_path / "published"), image_height=76, image_width=40, patch_stride=12))
    embeddings = encoder.model.vision_model.embeddings
    pixels = torch.randn(2, 3, 76, 40)
    cut = torch.nn.functional.unfold(pixels, 16, stride=12).transpose(1, 2)  # 6 rows, 3 columns
    by_hand = cut @ embeddings.patch_embedding.weight.flatten(1).T
    table = embeddings.position_embedding.weight.detach()
    with torch.no_grad():
        torch.testing.assert_close(embeddings(pixels)[:, 1:], by_hand + table[1:], atol=1e-5, rtol=1e-5)
    old = published.model.vision_model.embeddings.position_embedding.weight.detach().numpy()
    cubic_table = np.einsum("ir,jc,rcd->ijd", cubic_matrix(4, 6), cubic_matrix(4, 3), old[1:].reshape(4, 4, -1))
    np.testing.assert_allclose(table[1:].numpy(), cubic_table.reshape(18, -1), atol=1e-5)

    encoder.save(tmp_path / "overlapping", {})
    again = load_encoder(tmp_path / "overlapping")
    assert again.fingerprint == encoder.fingerprint
    assert np.array_equal(again.encode_images(pictures()), encoder.encode_images(pictures()))
    assert json.loads((tmp_path / "overlapping" / "manifest.json").read_text())["patch_stride"] == 12
    kept = open_pretrained(ModelConfig(init=str(tmp_path / "overlapping"), image_height=76, image_width=40))
    assert kept.fingerprint == encoder.fingerprint
    with refused(ConfigError, "model.patch_stride 20", "16"):
        open_pretrained(ModelConfig(init=str(tmp_path / "published"), image_height=64, image_width=64, patch_stride=20))
    assert tiny(64, 32, patch_size=8).model.vision_model.embeddings.num_patches == 32


@pytest.mark.parametrize(("name", "grid"), [("ViT-B-16", (24, 8)), ("ViT-B-32", (12, 4)), ("ViT-L-14", (27, 9))])
@pytest.mark.slow
def test_openais_published_shapes_have_a_place_in_transformers_model_at_384x128(name, grid):
    open_clip = pytest.importorskip("open_clip")
    with torch.device("meta"):  # shapes without memory
        cfg = open_clip.get_model_config(name)
        theirs = convert_weights(open_clip.model.CLIP(**cfg).state_dict())
        ours = CLIPModel(clip_config(cfg, origin=name))
        assert {key: weight.shape for key, weight in theirs.items()} == {key: weight.shape for key, weight in ours.state_dict().items()}
        resized = with_image_size(ours, height=384, width=128)
        assert resized.vision_model.embeddings.position_embedding.weight.shape[0] == 1 + grid[0] * grid[1]
        features = resized.get_image_features(torch.zeros(1, 3, 384, 128)).pooler_output
    assert features.shape == (1, {"ViT-L-14": 768}.get(name, 512))
