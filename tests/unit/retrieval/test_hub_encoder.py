"""An encoder by its hub name: a published CLIP with its real vocabulary, downloaded once, is one encoder to every job."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from fake_hub import COMMIT, fake_hub, files_of, hub_environment
from PIL import Image
from real_tokenizers import write_clip_tokenizer
from refusals import refused
from transformers import CLIPConfig, CLIPModel

from reid_ray.errors import DataError
from reid_ray.model.pretrained import load_encoder
from reid_ray.records import CAPTIONS, IMAGES, table_of
from reid_ray.retrieval.embed.config import EmbedJob
from reid_ray.retrieval.embed.job import run_embed
from reid_ray.retrieval.evaluate.config import EvaluateJob
from reid_ray.retrieval.evaluate.job import run_evaluate
from reid_ray.retrieval.index.config import IndexJob
from reid_ray.retrieval.index.job import run_index
from reid_ray.retrieval.searched_folder import encoder_of

NAME = "people/clip"
PINNED = f"{NAME}@{COMMIT}"
IN_PROCESS = {"execution": "in_process"}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """The folder of a CLIP with tiny towers, which the hub's NAME is, too: this machine has it of there."""
    folder = tmp_path_factory.mktemp("clip")
    tower = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = tower | {"vocab_size": 49408, "bos_token_id": 49406, "eos_token_id": 49407}
    vision = tower | {"image_size": 32, "patch_size": 16}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).save_pretrained(folder)
    write_clip_tokenizer(folder)
    fetch = f"from reid_ray.model.pretrained import encoder_folder; encoder_folder({NAME!r})"
    with fake_hub(NAME, files_of(folder)) as hub:
        subprocess.run([sys.executable, "-c", fetch], env=hub_environment(hub.endpoint, os.environ["HF_HOME"]), check=True)
        assert {path: count for path, count in hub.downloads.items() if count > 1} == {}
    return folder


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """A folder of crops, and tables of images and captions of them."""
    import pyarrow.parquet as pq

    folder = tmp_path_factory.mktemp("people")
    (folder / "crops").mkdir()
    random, rows, captions = np.random.default_rng(0), [], []
    for number in range(6):
        file = folder / "crops" / f"{number}.png"
        Image.fromarray(random.integers(0, 256, (48, 24, 3), np.uint8)).save(file)
        same = {"image_id": f"{number}", "dataset": "ours", "split": "test", "person_id": number, "camera_id": 1}
        rows.append({**same, "image": file.read_bytes()})
        captions.append({**same, "caption_id": f"{number}", "kind": "human", "text": f"a person with {number} bags", "status": "ok"})
    pq.write_table(table_of(IMAGES, rows), folder / "images.parquet")
    pq.write_table(table_of(CAPTIONS, captions), folder / "captions.parquet")
    return folder


@pytest.mark.slow
def test_index_notes_the_commit_and_a_search_finds_the_encoder_again(clip, people, tmp_path):
    job = {"images": {"source": "folder", "path": str(people / "crops")}, "encoder": NAME, "ray": IN_PROCESS}
    manifest = run_index(IndexJob.model_validate({**job, "output": {"path": str(tmp_path / "index"), "if_exists": "reuse"}}))
    assert manifest["facts"]["encoder_path"] == PINNED == manifest["config"]["encoder"]
    assert manifest["facts"]["encoder_fingerprint"] == load_encoder(clip).fingerprint
    assert encoder_of(str(tmp_path / "index"), None) == PINNED
    assert load_encoder(PINNED).fingerprint == load_encoder(clip).fingerprint
    again = run_index(IndexJob.model_validate({**job, "output": {"path": str(tmp_path / "index"), "if_exists": "reuse"}}))
    assert again["run_id"] == manifest["run_id"]


@pytest.mark.slow
def test_embed_and_evaluate_take_it_as_they_take_its_folder(clip, people, tmp_path):
    results = {}
    for name in (NAME, str(clip)):
        out = tmp_path / name.replace("/", "_")
        made = run_embed(
            EmbedJob.model_validate(
                {"captions": str(people / "captions.parquet"), "encoder": name, "ray": IN_PROCESS, "output": {"path": str(out / "texts")}}
            )
        )
        tables = {"images": str(people / "images.parquet"), "captions": str(people / "captions.parquet")}
        scored = run_evaluate(
            EvaluateJob.model_validate({**tables, "encoder": name, "ray": IN_PROCESS, "output": {"path": str(out / "score")}})
        )
        results[name] = (made["facts"]["encoder_fingerprint"], {key: scored["facts"][key] for key in ("r1", "map", "queries", "gallery")})
    assert results[NAME] == results[str(clip)]


def test_a_name_that_is_neither_here_nor_to_be_had_is_refused_before_anything_is_embedded(people, tmp_path):
    job = {"images": {"source": "folder", "path": str(people / "crops")}, "encoder": "people/nobody", "ray": IN_PROCESS}
    with refused(DataError, "encoder", "people/nobody", "HF_HUB_OFFLINE"):
        run_index(IndexJob.model_validate({**job, "output": {"path": str(tmp_path / "index")}}))
    assert not (tmp_path / "index").exists()
