"""Checkpoints of IRRA's code: the same features as the model that wrote them, which here is IRRA in plain torch."""

import os
import shutil

import pytest
import torch
from refusals import refused
from torch.nn import functional

from benchmarks.irra.plain_irra import PlainIrra, Shape
from reid_ray.errors import DataError
from reid_ray.model.dual.config import ModelConfig
from reid_ray.model.dual.dual_encoder import build_dual_encoder, tokenise
from reid_ray.model.pretrained import load_encoder, open_pretrained

TEXTS = ["A woman with long black hair wears a red coat.", "the man carries a blue backpack", "white shoes"]
SIZE = {"image_height": 96, "image_width": 32}
HEADS = {"classifier", "cross_attn", "cross_modal_transformer", "ln_pre_t", "ln_pre_i", "ln_post", "mlm_head"}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """(The plain model, a folder with a tokenizer for its vocabulary.)"""
    scratch = {"vision_width": 16, "vision_layers": 1, "text_width": 16, "text_layers": 1, "embed_dim": 8, "vocab_size": 300, "context": 20}
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer = build_dual_encoder(ModelConfig(**SIZE, scratch=scratch), TEXTS).tokenizer
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    shape = Shape(96, 32, 16, 128, 2, 64, 3, 48 + 16, vocabulary=len(tokenizer), context=20, persons=7)
    return PlainIrra(shape).eval(), folder


def written(plain, folder, *, prefix: str = "", half: bool = False):
    """A folder with the model's checkpoint, as IRRA's training leaves it, and the tokenizer."""
    model, tokenizer = plain
    shutil.copytree(tokenizer, folder)
    state = {prefix + name: weight.half() if half else weight for name, weight in model.state_dict().items()}
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)
    torch.save({"model": state, "optimizer": optimizer.state_dict(), "epoch": 60}, folder / "best.pth")
    return folder


def features(plain, encoder, pixels):
    ids = tokenise(encoder.tokenizer, TEXTS, context=encoder.context)
    end = encoder.tokenizer.eos_token_id
    behind = (ids == end).cumsum(dim=1) > 1
    behind |= (ids != end) & ((ids == end).cumsum(dim=1) > 0)
    with torch.no_grad():
        theirs = [functional.normalize(feature, dim=1) for feature in plain[0].features(pixels, ids.masked_fill(behind, 0))]
        image = encoder.model.get_image_features(pixel_values=pixels).pooler_output
        text = encoder.model.get_text_features(input_ids=ids).pooler_output
    return theirs, [functional.normalize(feature, dim=1) for feature in (image, text)]


@pytest.mark.parametrize(("prefix", "half"), [("", False), ("module.", False), ("module.", True)])
def test_a_checkpoint_gives_the_features_of_the_model_that_wrote_it(plain, tmp_path, prefix, half):
    folder = written(plain, tmp_path / "run", prefix=prefix, half=half)
    encoder = load_encoder(folder)
    assert (encoder.transform.height, encoder.transform.width) == (96, 32)
    theirs, ours = features(plain, encoder, torch.randn(3, 3, 96, 32, generator=torch.Generator().manual_seed(1)))
    for their, our in zip(theirs, ours, strict=True):
        torch.testing.assert_close(our, their, atol=2e-3 if half else 1e-5, rtol=0)


@pytest.mark.slow
def test_training_starts_from_it_at_another_size_and_knows_what_it_left_out(plain, tmp_path):
    folder = written(plain, tmp_path / "run", prefix="module.")
    for file in list(folder.iterdir()):
        if file.name != "best.pth":
            file.unlink()
    config = ModelConfig(init=str(folder), tokenizer=str(plain[1]), image_height=64, image_width=48, position_resize="bilinear")
    encoder = open_pretrained(config)
    assert {name.split(".")[0] for name in encoder.left_out} == HEADS
    assert len(encoder.left_out) == sum(not name.startswith("base_model.") for name in plain[0].state_dict())
    table = plain[0].base_model.visual.positional_embedding.detach()
    grid = table[1:].reshape(1, 6, 2, -1).permute(0, 3, 1, 2)
    expected = functional.interpolate(grid, size=(4, 3), mode="bilinear").permute(0, 2, 3, 1).reshape(12, -1)
    found = encoder.model.vision_model.embeddings.position_embedding.weight.detach()
    torch.testing.assert_close(found, torch.cat([table[:1], expected]))
    encoder.save(tmp_path / "ours", {})
    assert load_encoder(tmp_path / "ours").fingerprint == encoder.fingerprint


class _Runs:
    def __reduce__(self):
        return os.mkdir, (os.environ["RUNS_HERE"],)


def test_code_in_a_checkpoint_does_not_run(plain, tmp_path, monkeypatch):
    monkeypatch.setenv("RUNS_HERE", str(tmp_path / "ran"))
    folder = written(plain, tmp_path / "run")
    torch.save({"model": plain[0].state_dict(), "args": _Runs()}, folder / "best.pth")
    with refused(DataError, "best.pth"):
        load_encoder(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
def test_what_is_no_such_checkpoint_is_refused_by_what_is_wrong(plain, tmp_path):
    folder = written(plain, tmp_path / "run")
    shutil.copy(folder / "best.pth", folder / "best1.pth")
    with refused(DataError, "best.pth", "best1.pth"):
        load_encoder(folder)
    (folder / "best1.pth").unlink()
    with refused(DataError, "model.init", "best.pth", "folder"):
        open_pretrained(ModelConfig(init=str(folder / "best.pth"), **SIZE))
    state = plain[0].state_dict()
    for change, said in (
        ({"base_model.visual.proj": None}, "visual_projection.weight"),
        ({"base_model.visual.conv1.weight": None}, "base_model.visual.conv1.weight"),
        ({"base_model.visual.positional_embedding": state["base_model.visual.positional_embedding"][:11]}, "10 patches"),
        ({name: None for name in state if name.startswith("base_model.")}, "base_model."),
    ):
        torch.save({"model": {name: value for name, value in (state | change).items() if value is not None}}, folder / "best.pth")
        with refused(DataError, "best.pth", said):
            load_encoder(folder)
