"""What a model is loaded from: every format and wrapped names read alike, and nothing drawn at random for what a file lacks."""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from refusals import refused
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel, BertTokenizerFast, CLIPModel

from reid_ray.caption.filters.faithfulness import SentenceEncoder
from reid_ray.errors import DataError
from reid_ray.model.dual.config import ModelConfig
from reid_ray.model.dual.dual_encoder import build_dual_encoder
from reid_ray.model.mllm.config import MllmConfig
from reid_ray.model.mllm.model_folder import check_mllm, load_mllm, open_mllm, save_mllm
from reid_ray.model.model_files import resolve_model
from reid_ray.model.pretrained import load_encoder, open_pretrained
from reid_ray.model.strict_loading import check_names
from reid_ray.model.weight_files import read_state

PACKAGE = Path(__file__).resolve().parents[3] / "reid_ray"
TEXTS = ["a man in red", "a woman in blue"] * 4
SHAPE = {"vision_width": 64, "vision_layers": 2, "text_width": 64, "text_layers": 2, "embed_dim": 16, "vocab_size": 300, "context": 16}
SIZE = {"image_height": 64, "image_width": 64}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A folder that training would write, and what its texts encode to."""
    folder = tmp_path_factory.mktemp("encoder") / "good"
    encoder = build_dual_encoder(ModelConfig(**SIZE, scratch={"patch_size": 16, **SHAPE}), TEXTS)
    encoder.save(folder, {})
    return folder, encoder.encode_texts(TEXTS)


def changed(folder, target, change, *, manifest=False):
    """A copy of a folder whose weights went through `change`."""
    shutil.copytree(folder, target)
    save_file(change(load_file(target / "model.safetensors")), target / "model.safetensors", {"format": "pt"})
    if not manifest:
        (target / "manifest.json").unlink(missing_ok=True)
    return target


def renamed(rename):
    return lambda state: {rename(name): value for name, value in state.items()}


def without(part):
    return lambda state: {name: value for name, value in state.items() if part not in name}


def both_ways(folder):
    yield lambda: load_encoder(folder)
    yield lambda: open_pretrained(ModelConfig(init=str(folder), **SIZE))


WRAPPINGS = {
    "DataParallel": lambda name: f"module.{name}",
    "compiled": lambda name: f"_orig_mod.{name}",
    "both": lambda name: f"module._orig_mod.{name}",
    "a compiled tower": lambda name: name.replace("text_model.", "text_model._orig_mod."),
}


@pytest.mark.parametrize("wrapping", WRAPPINGS.values(), ids=WRAPPINGS)
@pytest.mark.parametrize("layout", ["safetensors", "sharded", "bin", "checkpoint"])
@pytest.mark.slow
def test_wrapped_names_are_read_as_the_models_own_in_every_format(good, tmp_path, wrapping, layout):
    folder, want = good
    copy = changed(folder, tmp_path / "copy", renamed(wrapping), manifest=True)
    state = load_file(copy / "model.safetensors")
    if layout != "safetensors":
        (copy / "model.safetensors").unlink()
    if layout == "sharded":
        names = sorted(state)
        halves = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
        for file, part in halves.items():
            save_file({name: state[name] for name in part}, copy / file, {"format": "pt"})
        index = {"metadata": {}, "weight_map": {name: file for file, part in halves.items() for name in part}}
        (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    elif layout != "safetensors":
        torch.save(state if layout == "bin" else {"epoch": 3, "state_dict": state}, copy / "pytorch_model.bin")
    for load in both_ways(copy):
        np.testing.assert_allclose(load().encode_texts(TEXTS), want, atol=1e-6)


BROKEN = {
    "a layer": (without("text_model.encoder.layers.1."), "text_model.encoder.layers.1.layer_norm1.bias"),
    "a projection": (without("text_projection"), "text_projection.weight"),
    "a shape": (lambda s: s | {"text_projection.weight": s["text_projection.weight"][:8].clone()}, "8 x 64, should be 16 x 64"),
    "a stranger": (lambda s: s | {"other.weight": torch.ones(2)}, "1 unknown"),
    "another prefix": (renamed(lambda name: f"encoder.{name}"), "unknown"),
    "NaN": (lambda s: s | {"text_projection.weight": torch.full((16, 64), torch.nan)}, "text_projection.weight holds NaN"),
    "infinity": (lambda s: s | {"visual_projection.weight": torch.full((16, 64), -torch.inf)}, "visual_projection.weight"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("change", "said"), BROKEN.values(), ids=BROKEN)
def test_weights_that_are_not_the_models_are_refused_by_name(good, tmp_path, change, said):
    copy = changed(good[0], tmp_path / "copy", change)
    for load in both_ways(copy):
        with refused(DataError, said, str(copy)):
            load()


@pytest.mark.slow
def test_constants_that_transformers_no_longer_saves_are_no_strangers(good, tmp_path):
    constant = {"text_model.embeddings.position_ids": torch.arange(16)[None]}
    copy = changed(good[0], tmp_path / "copy", lambda state: state | constant)
    np.testing.assert_allclose(load_encoder(copy).encode_texts(TEXTS), good[1], atol=1e-6)


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda _: b"", lambda data: b"version https://git-lfs" + data[:50]]
)
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_damaged_file_is_refused_by_its_name(good, tmp_path, damage, name):
    copy = changed(good[0], tmp_path / "copy", dict)
    if name.endswith(".bin"):
        torch.save(load_file(copy / "model.safetensors"), copy / name)
        (copy / "model.safetensors").unlink()
    (copy / name).write_bytes(damage((copy / name).read_bytes()))
    for load in both_ways(copy):
        with refused(DataError, str(copy), "copy"):
            load()


def test_a_lost_shard_is_named(good, tmp_path):
    copy = changed(good[0], tmp_path / "copy", dict)
    (copy / "model.safetensors").rename(copy / "a.safetensors")
    names = load_file(copy / "a.safetensors")
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(names, "a.safetensors") | {"x": "b.bin"}}))
    with refused(DataError, "model.safetensors.index.json", "b.bin"):
        load_encoder(copy)


def test_a_pickle_that_is_no_dictionary_of_weights_runs_no_code(tmp_path):
    class Harm:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "harmed",))

    torch.save({"weight": Harm()}, tmp_path / "weights.bin")
    with refused(DataError, "weights.bin"):
        read_state(tmp_path / "weights.bin")
    assert not (tmp_path / "harmed").exists()


def test_a_name_that_is_there_twice_once_unwrapped_is_refused(good, tmp_path):
    for number, name in enumerate(("text_projection.weight", "module.text_projection.weight")):
        twice = {name: torch.ones(16, 64)}
        copy = changed(good[0], tmp_path / f"{number}", lambda state, more=twice: renamed(WRAPPINGS["both"])(state) | more)
        with refused(DataError, "text_projection.weight"):
            load_encoder(copy)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["weights", "preprocessing"])
def test_an_own_folder_changed_since_it_was_written_is_refused(good, tmp_path, part):
    def other(state):
        return state | {"text_projection.weight": state["text_projection.weight"] + (0.01 if part == "weights" else 0)}

    copy = changed(good[0], tmp_path / "copy", other, manifest=True)
    if part == "preprocessing":
        file = copy / "preprocessor_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"image_mean": [0.5, 0.5, 0.5]}))
    for load in both_ways(copy):
        with refused(DataError, str(copy), "manifest.json"):
            load()
    (copy / "manifest.json").unlink()
    for load in both_ways(copy):
        load()


def test_an_adapter_in_a_models_folder_is_neither_applied_nor_left_out_in_silence(good, tmp_path):
    copy = changed(good[0], tmp_path / "copy", dict)
    (copy / "adapter_config.json").write_text("{}")
    for load in (*both_ways(copy), lambda: check_names(copy)):
        with refused(DataError, "adapter_config.json"):
            load()


# open_clip's own format


@pytest.fixture(scope="module")
def open_clip_folder(good, tmp_path_factory):
    """A folder in open_clip's format, without weights, and its weights."""
    import open_clip

    folder = tmp_path_factory.mktemp("open_clip")
    vision = {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16, "head_width": 64}
    marks = json.loads((good[0] / "tokenizer.json").read_text())["added_tokens"]
    entries = 1 + max(mark["id"] for mark in marks)  # open_clip reads a text at the highest id, which is the end mark's
    text = {"context_length": 16, "vocab_size": entries, "width": 64, "heads": 1, "layers": 2}
    shape = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": shape, "preprocess_cfg": {}}))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(good[0] / name, folder)
    torch.manual_seed(0)
    state = open_clip.CLIP(**shape).state_dict()
    return folder, {name: value.contiguous() for name, value in state.items() if name != "attn_mask"}


OPEN_CLIP = {
    "plain": lambda s: s,
    "DataParallel": lambda s: {f"module.{name}": value for name, value in s.items()},
    "compiled": lambda s: {f"_orig_mod.{name}": value for name, value in s.items()},
    "half": lambda s: {name: value.half() for name, value in s.items()},
    "OpenAI's constants": lambda s: s | {name: torch.tensor(64) for name in ("input_resolution", "context_length", "vocab_size")},
}


@pytest.mark.parametrize("layout", ["safetensors", "bin", "checkpoint"])
@pytest.mark.parametrize("change", OPEN_CLIP.values(), ids=OPEN_CLIP)
def test_open_clip_weights_are_read_alike_in_every_format(open_clip_folder, tmp_path, change, layout):
    folder, state = open_clip_folder
    copy = shutil.copytree(folder, tmp_path / "copy")
    if layout == "safetensors":
        save_file(change(state), copy / "open_clip_model.safetensors")
    else:
        put = change(state) if layout == "bin" else {"epoch": 3, "optimizer": {"lr": 0.1}, "state_dict": change(state)}
        torch.save(put, copy / "open_clip_pytorch_model.bin")
    model = open_pretrained(ModelConfig(init=str(copy), **SIZE)).model
    torch.testing.assert_close(model.text_projection.weight.T, state["text_projection"], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("ln_final.weight"), "text_model.final_layer_norm.weight"),
        (lambda s: s | {"text_projection": s["text_projection"][:, :8].contiguous()}, "8 x 64, should be 16 x 64"),
        (lambda s: s | {"visual.proj": s["visual.proj"] * torch.nan}, "visual_projection.weight holds NaN"),
    ],
)
def test_open_clip_weights_that_do_not_fit_are_refused_by_name(open_clip_folder, tmp_path, change, said):
    folder, state = open_clip_folder
    copy = shutil.copytree(folder, tmp_path / "copy")
    torch.save(change(state), copy / "open_clip_pytorch_model.bin")
    with pytest.raises(DataError) as error:
        open_pretrained(ModelConfig(init=str(copy), **SIZE))
    assert said in str(error.value)
    assert "open_clip_pytorch_model.bin" in str(error.value)


# The base of a tune, and what a tune wrote

BASE = Path(resolve_model("builtin:tiny-mllm"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("visual.blocks.2."), "missing"),
        (without("lm_head"), "lm_head.weight"),
        (lambda s: s | {"lm_head.weight": s["lm_head.weight"] * torch.nan}, "lm_head.weight holds NaN"),
    ],
)
def test_the_base_of_a_tune_is_refused_where_it_lacks_a_weight(tmp_path, change, said):
    config = MllmConfig(base=str(changed(BASE, tmp_path / "base", change)))
    with refused(DataError, said):
        open_mllm(config)
    if "NaN" not in said:  # that takes reading them all: a worker finds it
        with refused(DataError, said):
            check_mllm(config)


@pytest.mark.slow
def test_the_base_of_a_tune_is_read_under_wrapped_names(tmp_path):
    wrapped = changed(BASE, tmp_path / "base", renamed(WRAPPINGS["both"]))
    check_mllm(MllmConfig(base=str(wrapped)))
    plain, again = (open_mllm(MllmConfig(base=str(folder))).mllm.model for folder in (BASE, wrapped))
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in again.state_dict().items())
    assert again.generation_config.max_new_tokens == plain.generation_config.max_new_tokens == 96


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A folder that tuning would write: adapters and projector."""
    folder = tmp_path_factory.mktemp("tuned") / "model"
    opened = open_mllm(MllmConfig(base=str(BASE), lora={"rank": 2, "llm": ["q_proj"]}, train_projector=True))
    trained = {name: torch.randn_like(weight) for name, weight in opened.mllm.model.named_parameters() if weight.requires_grad}
    heads = {"pool.query": torch.randn(128)}
    save_mllm(opened, folder, trained=trained, heads=heads, facts={"pooling": "attention", "text_latents": True})
    return folder, trained


@pytest.mark.parametrize("file", ["adapter/adapter_model.safetensors", "trained.safetensors", "heads.safetensors"])
@pytest.mark.parametrize("damage", ["less", "other", "shape", "wrapped"])
@pytest.mark.slow
def test_a_tuned_folder_gives_its_own_weights_or_is_refused(tuned, tmp_path, file, damage):
    folder, trained = tuned
    copy = shutil.copytree(folder, tmp_path / "copy")
    state = load_file(copy / file)
    name = sorted(state)[0]
    state = {
        "less": lambda: {key: value for key, value in state.items() if key != name},
        "other": lambda: state | {name: state[name] + 1},
        "shape": lambda: state | {name: state[name].flatten()[:1].clone()},  # would be broadcast
        "wrapped": lambda: {f"module.{key}": value for key, value in state.items()},
    }[damage]()
    save_file(state, copy / file)
    if damage != "wrapped":
        with refused(DataError, str(copy)):
            load_mllm(copy)
        return
    weights = dict(load_mllm(copy).mllm.model.named_parameters())
    assert all(torch.equal(weights[name], value) for name, value in trained.items())


# The sentence encoder of the faithfulness filter


@pytest.fixture(scope="module")
def sentences(tmp_path_factory):
    """A BERT of two layers with a vocabulary of letters."""
    folder = tmp_path_factory.mktemp("bert") / "plain"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz")]
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 64}
    BertModel(BertConfig(vocab_size=len(words), **shape)).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("change", [renamed(WRAPPINGS["DataParallel"]), renamed(lambda name: f"bert.{name}"), without("pooler."), dict])
@pytest.mark.slow
def test_a_sentence_encoder_scores_as_its_file_says(sentences, tmp_path, change):
    copy = changed(sentences, tmp_path / "copy", change)
    np.testing.assert_allclose(SentenceEncoder(str(copy)).encode(TEXTS), SentenceEncoder(str(sentences)).encode(TEXTS), atol=1e-6)


def test_a_sentence_encoder_that_lacks_a_layer_is_refused(sentences, tmp_path):
    with refused(DataError, "encoder.layer.1."):
        SentenceEncoder(str(changed(sentences, tmp_path / "copy", without("encoder.layer.1."))))


# Where models may be loaded


def calls(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield node, node.func.attr, ast.unparse(node.func.value)


@pytest.mark.slow
def test_only_one_file_loads_models():
    harmless = ("Tokenizer", "Processor", "Config", "config_class")
    for path in PACKAGE.rglob("*.py"):
        for node, name, owner in calls(path):
            where = f"{path.relative_to(PACKAGE)}:{node.lineno}"
            if name == "from_pretrained" and path.name != "strict_loading.py":
                assert any(word in owner for word in harmless), f"{where} loads a model past reid_ray.model.strict_loading"
            if (name, owner) == ("load", "torch"):
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert given.get("weights_only") == "True", f"{where} may run code from a file"


def test_transformers_own_loader_would_draw_a_missing_layer_at_random(good, tmp_path):
    """The reason for all this: should it fail one day, transformers refuses by itself."""
    copy = changed(good[0], tmp_path / "copy", without("text_model.encoder.layers.1."))
    one, other = (CLIPModel.from_pretrained(copy).state_dict()["text_model.encoder.layers.1.mlp.fc1.weight"] for _ in range(2))
    assert not torch.equal(one, other)
