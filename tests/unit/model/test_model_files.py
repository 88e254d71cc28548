"""Model names: what each stands for, what is refused by name, and digests that notice any change of the weights."""

from __future__ import annotations

import json
import os

import pytest
from refusals import refused

from reid_ray.errors import ConfigError, DataError
from reid_ray.model import model_files as models
from reid_ray.model.model_files import model_revision, resolve_model


def _weights(folder, size=3 << 20):
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(os.urandom(size))
    return folder


def test_a_folder_resolves_to_itself_and_a_hub_name_passes_through(tmp_path, monkeypatch):
    folder = _weights(tmp_path / "weights")
    assert resolve_model(str(folder)) == str(folder)
    monkeypatch.chdir(tmp_path)
    assert resolve_model("./weights") == resolve_model("weights") == str(folder)
    assert resolve_model("Qwen/Qwen2.5-VL-7B-Instruct") == "Qwen/Qwen2.5-VL-7B-Instruct"


@pytest.mark.parametrize("name", ["/no/such/folder", "./nothing", "../nothing", "~/nothing-here", "nothing", "a/b/c", "runs/captioner/"])
def test_a_missing_path_is_refused_with_its_field(name):
    with refused(ConfigError, "captioner.model") as error:
        resolve_model(name, field="captioner.model")
    assert name in str(error.value)


def test_a_folder_without_a_model_and_an_unknown_builtin_are_refused(tmp_path):
    with refused(ConfigError, str(tmp_path)):
        resolve_model(str(tmp_path))
    with refused(ConfigError, "builtin:gpt"):
        resolve_model("builtin:gpt")


def test_a_builtin_that_is_not_prepared_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("REID_RAY_CACHE", str(tmp_path))
    with refused(DataError, "reid-ray setup"):
        resolve_model("builtin:smollm2-135m-instruct")
    folder = _weights_at(tmp_path / "models" / "smollm2-135m-instruct")
    assert resolve_model("builtin:smollm2-135m-instruct") == str(folder)


def _weights_at(folder):
    folder.parent.mkdir(parents=True)
    return _weights(folder)


def test_a_conversion_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("REID_RAY_CACHE", str(tmp_path))
    empty = tmp_path / "package"
    empty.mkdir()
    monkeypatch.setattr(models, "_package_folder", lambda *_: empty)
    with refused(DataError, models._GGUF):
        models.prepare("smollm2-135m-instruct")
    (empty / models._GGUF).write_bytes(b"not a GGUF file")
    with refused(DataError, str(empty), "GGUF"):
        models.prepare("smollm2-135m-instruct")
    assert not list(tmp_path.rglob("*.partial"))
    assert not (tmp_path / "models" / "smollm2-135m-instruct").exists()


def test_a_digest_does_not_depend_on_the_place_but_on_every_part(tmp_path):
    folder = _weights(tmp_path / "a")
    first = model_revision(str(folder))
    assert model_revision(str(folder)) == first
    folder.rename(tmp_path / "b")
    folder = tmp_path / "b"
    assert model_revision(str(folder)) == first
    seen = {first}
    data = bytearray((folder / "model.safetensors").read_bytes())
    for place in (0, 20_000, len(data) // 2, len(data) - 1):  # a re-trained model differs nearly everywhere; here in 16 KiB
        changed = data[:]
        changed[place : place + 16_384] = bytes(byte ^ 1 for byte in changed[place : place + 16_384])
        (folder / "model.safetensors").write_bytes(changed)
        seen.add(model_revision(str(folder)))
    (folder / "config.json").write_text('{"a": 1}')
    seen.add(model_revision(str(folder)))
    (folder / "extra.json").write_text("{}")
    seen.add(model_revision(str(folder)))
    assert len(seen) == 7


def test_a_hub_model_that_cannot_be_had_is_refused_with_its_field(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with refused(DataError, "rewriter.model", "nobody/nothing", "HF_HUB_OFFLINE"):
        model_revision("nobody/nothing", field="rewriter.model")


def test_a_folder_of_ours_whose_weights_are_not_those_of_its_manifest_is_refused(tmp_path):
    folder = _weights(tmp_path / "weights")
    models.refuse_other_weights(folder, field="model.base")  # without a manifest it is another program's
    for manifest in ("[1]", "{}", "not JSON", json.dumps({"facts": {"weights": models.weights_digest(folder)}})):
        (folder / "manifest.json").write_text(manifest)
        models.refuse_other_weights(folder, field="model.base")
    (folder / "model.safetensors").write_bytes(os.urandom(3 << 20))
    with refused(DataError, "model.base"):
        models.refuse_other_weights(folder, field="model.base")
