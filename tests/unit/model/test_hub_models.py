"""A hub's model is fetched with what is loaded of it and nothing else, once for all processes of a machine; what fails is one sentence."""

from __future__ import annotations

import ast
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_hub import COMMIT, TOKEN, fake_hub, hub_environment
from refusals import refused

from reid_ray.errors import ConfigError, DataError
from reid_ray.model import hub_access
from reid_ray.model.hub_access import Wanted, chosen_files, is_hub_name, parts_of_name
from reid_ray.model.pretrained import ENCODER_FILES

NAME = "people/describer"
FILES = {"config.json": b"{}", "model.safetensors": bytes(1 << 20)}
# Names on the command line, one after the other; an error's last line is its sentence.
FETCH = """
import sys
from reid_ray.errors import ReidRayError
from reid_ray.model.hub_models import fetch_model
for name in sys.argv[1:]:
    try:
        print(fetch_model(name, revision=None, field="rewriter.model"))
    except ReidRayError as error:
        print(f"{type(error).__name__}: {error}")
"""


# Two nodes that are one machine.
FETCH_ON_NODES = """
import sys
from reid_ray.model import hub_models
hub_models.on_each_node = lambda work, need: [work(), work()]
for name in sys.argv[1:]:
    print(hub_models.fetch_on_nodes(name, hub_models.MODEL_FILES, None, field="rewriter.model"), "nodes")
"""


def fetch(endpoint, home, *names, **environment):
    """The lines of one process that fetches these, one by one."""
    done = subprocess.run(
        [sys.executable, "-c", FETCH, *names],
        env=hub_environment(endpoint, home, **environment),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("weights", "taken"),
    [
        (["model.safetensors", "pytorch_model.bin", "original/model.safetensors"], ["model.safetensors"]),
        (["pytorch_model.bin", "tf_model.h5"], ["pytorch_model.bin"]),
        (["consolidated.safetensors", "model.safetensors"], ["consolidated.safetensors"]),
    ],
)
def test_two_processes_of_a_machine_fetch_each_file_that_an_engine_loads_once(tmp_path, weights, taken):
    files = {"config.json": b"{}", "tokenizer.json": b"[]", "README.md": b"hello", **{name: os.urandom(1 << 16) for name in weights}}
    with fake_hub(NAME, files) as hub:
        command, environment = [sys.executable, "-c", FETCH, NAME], hub_environment(hub.endpoint, tmp_path)
        both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        folder, again = (process.communicate(timeout=120)[0].splitlines()[-1] for process in both)
        assert folder == again
        assert folder.endswith(COMMIT)
        assert hub.downloads == Counter(["config.json", "tokenizer.json", *taken])
        assert {name: Path(folder, name).read_bytes() for name in taken} == {name: files[name] for name in taken}


@pytest.mark.slow
def test_size_and_licence_are_said_before_a_download_and_nothing_is_asked_once_it_is_there(tmp_path):
    with fake_hub(NAME, FILES) as hub:
        hub.card = {"license": "other", "license_name": "people-licence"}
        said, folder = fetch(hub.endpoint, tmp_path, NAME)
        assert said.startswith(f"rewriter.model: {NAME} at {COMMIT[:12]}: 1.0 MB to download")
        assert "people-licence" in said
        asked = hub.asked.total()
        assert fetch(hub.endpoint, tmp_path, NAME, f"{NAME}@{COMMIT}") == [folder, folder]
        assert hub.asked.total() == asked
    assert fetch("http://127.0.0.1:9", tmp_path, NAME, HF_HUB_OFFLINE="1") == [folder]


@pytest.mark.slow
def test_of_several_nodes_one_line_says_what_they_download(tmp_path):
    with fake_hub(NAME, FILES) as hub:
        command, environment = [sys.executable, "-c", FETCH_ON_NODES, NAME, NAME], hub_environment(hub.endpoint, tmp_path)
        lines = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()
        assert lines[1:] == ["2 nodes", "2 nodes"]
        assert "1.0 MB" in lines[0]
        assert hub.downloads == Counter(list(FILES))


@pytest.mark.slow
def test_whatever_keeps_a_model_away_is_one_sentence_with_key_name_and_remedy(tmp_path):
    with fake_hub(NAME, FILES) as hub:
        nobody, no_such_tag = fetch(hub.endpoint, tmp_path / "a", "people/nobody", f"{NAME}@v9")
        hub.gated = True
        _, gated = fetch(hub.endpoint, tmp_path / "b", NAME)
        assert fetch(hub.endpoint, tmp_path / "b", NAME, HF_TOKEN=TOKEN)[-1].endswith(COMMIT), "a token that the hub knows opens it"
        hub.ill = 503
        (ill,) = fetch(hub.endpoint, tmp_path / "c", NAME)
        (offline,) = fetch(hub.endpoint, tmp_path / "c", NAME, HF_HUB_OFFLINE="1")
    (away,) = fetch("http://127.0.0.1:9", tmp_path / "c", NAME)
    expected = {
        nobody: ("people/nobody", "check the name", "token"),
        no_such_tag: (NAME, "v9", "/commits"),
        gated: (NAME, "licence", "HF_TOKEN", f"{hub.endpoint}/{NAME}"),
        ill: (NAME, "503", "later"),
        offline: (NAME, "HF_HUB_OFFLINE"),
        away: (NAME, "http://127.0.0.1:9", "network"),
    }
    for sentence, parts in expected.items():
        assert sentence.startswith("DataError: rewriter.model ")
        assert all(part in sentence for part in parts), sentence


@pytest.mark.slow
def test_a_download_that_breaks_off_goes_on_where_it_was(tmp_path):
    with fake_hub(NAME, FILES) as hub:
        hub.breaks = {"model.safetensors": 1}
        folder = Path(fetch(hub.endpoint, tmp_path, NAME)[-1])
        assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]


@pytest.mark.slow
def test_after_a_kill_what_is_whole_is_kept_and_what_is_not_is_no_model(tmp_path):
    with fake_hub(NAME, FILES) as hub:
        fetch(hub.endpoint, tmp_path / "first", NAME)
        hub.downloads.clear()
        hub.pauses = True
        killed = subprocess.Popen(
            [sys.executable, "-c", FETCH, NAME], env=hub_environment(hub.endpoint, tmp_path), stdout=subprocess.DEVNULL
        )
        assert hub.paused.wait(60)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        (half,) = fetch(hub.endpoint, tmp_path, NAME, HF_HUB_OFFLINE="1")
        assert "whole" in half
        hub.pauses = False
        hub.downloads.clear()
        _, folder = fetch(hub.endpoint, tmp_path, NAME)
        assert hub.downloads["model.safetensors"] == 1
        assert (Path(folder) / "model.safetensors").read_bytes() == FILES["model.safetensors"]


def test_a_disk_without_the_room_is_told_before_the_download(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=99_000_000))
    with refused(DataError, "encoder", NAME, "3.1 GB", "99.0 MB", "HF_HOME"):
        hub_access._refuse_full_disk(3_100_000_000, "encoder", NAME)


@pytest.mark.slow
def test_one_file_alone_asks_a_hub(root):
    """Whatever else loads a model has its folder from there: one way to fail, and one line before a download."""
    named = {
        str(file.relative_to(root))
        for file in (root / "reid_ray").rglob("*.py")
        if "import huggingface_hub" in (text := file.read_text("utf-8")) or "from huggingface_hub" in text
    }
    assert named == {"reid_ray/model/hub_access.py"}
    by_revision = [
        f"{file.relative_to(root)}:{node.lineno}"
        for file in (root / "reid_ray").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "from_pretrained"
        if any(word.arg == "revision" for word in node.keywords)
    ]
    assert by_revision == [], "a folder has no revision: these would ask the hub themselves"


def test_a_revision_that_is_named_twice_is_refused_unless_it_is_the_same_or_a_commit():
    with refused(ConfigError, "rewriter.model", NAME, "v1", "v2"):
        hub_access.hub_commit(f"{NAME}@v1", field="rewriter.model", revision="v2")
    assert hub_access.hub_commit(f"{NAME}@v1", field="rewriter.model", revision=COMMIT) == COMMIT
    assert hub_access.hub_commit(f"{NAME}@{COMMIT}", field="rewriter.model") == COMMIT


def test_names_of_a_hub_are_told_from_paths_with_or_without_a_revision():
    assert parts_of_name("google/siglip-base-patch16-224@refs/pr/4") == ("google/siglip-base-patch16-224", "refs/pr/4")
    assert parts_of_name("google/siglip-base-patch16-224") == ("google/siglip-base-patch16-224", None)
    for path in ("/srv/model", "./model", "../model", "~/model", "model", "a/b/c", "runs/", "a/b@", "s3://bucket/model"):
        assert not is_hub_name(path), path


@pytest.mark.parametrize(
    ("files", "taken"),
    [
        # As openai/clip-vit-base-patch16, google/siglip-base-patch16-224 and laion/CLIP-ViT-B-32-laion2B-s34B-b79K have them.
        (["config.json", "flax_model.msgpack", "model.safetensors", "pytorch_model.bin", "tf_model.h5", "vocab.json", "merges.txt"],
         ["config.json", "model.safetensors", "vocab.json", "merges.txt"]),
        (["config.json", "model.safetensors", "spiece.model", "tokenizer.json"], ["config.json", "model.safetensors", "tokenizer.json"]),
        (["open_clip_config.json", "open_clip_pytorch_model.bin", "open_clip_model.safetensors", "tokenizer.json"],
         ["open_clip_config.json", "open_clip_model.safetensors", "tokenizer.json"]),
        (["config.json", "pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin", "pytorch_model.bin.index.json"],
         ["config.json", "pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin", "pytorch_model.bin.index.json"]),
        (["manifest.json", "heads.safetensors", "adapter/adapter_model.safetensors", "seen.parquet"],
         ["manifest.json", "heads.safetensors", "adapter/adapter_model.safetensors", "seen.parquet"]),
    ],
)  # fmt: skip
def test_of_an_encoders_repository_one_form_of_weights_is_taken(files, taken):
    assert chosen_files(files, ENCODER_FILES) == taken
    assert chosen_files(files, Wanted(["*.json"])) == [file for file in taken if file.endswith(".json")]
