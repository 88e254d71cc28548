"""A hub's model is fetched with what an engine loads of it and nothing else, once for all processes of a machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from fake_hub import COMMIT, fake_hub

NAME = "people/describer"
FETCH = (
    "import sys; from reid_ray.model.hub_models import fetch_model; print(fetch_model(sys.argv[1], revision=None, field='rewriter.model'))"
)


def fetch(hub, home, *names):
    """Start a process for each name that fetches it into the same cache; (exit code, what it said) of each."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    environment.pop("HF_HUB_OFFLINE", None)
    started = [
        subprocess.Popen([sys.executable, "-c", FETCH, name], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for name in names
    ]
    said = [process.communicate(timeout=120) for process in started]
    return [(process.returncode, out.strip(), err) for process, (out, err) in zip(started, said, strict=True)]


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
        (one, folder, err), (other, again, _) = fetch(hub, tmp_path, NAME, NAME)
        assert (one, other) == (0, 0), err
        assert folder == again
        assert folder.endswith(COMMIT)
        assert hub.downloads == Counter(["config.json", "tokenizer.json", *taken])
        assert {name: Path(folder, name).read_bytes() for name in taken} == {name: files[name] for name in taken}


def test_a_model_that_the_hub_does_not_have_is_one_sentence_with_its_key(tmp_path):
    with fake_hub(NAME, {}) as hub:
        ((code, _, err),) = fetch(hub, tmp_path, "people/nobody")
    assert code == 1
    assert "DataError: rewriter.model people/nobody: " in err.splitlines()[-1]
