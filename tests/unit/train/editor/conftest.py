"""Synthetic people in four tables, and a small editor's training prepared from them."""

from __future__ import annotations

import pytest
from edit_tables import write_edit_tables

from reid_ray.config.base import load_config
from reid_ray.config.common import SyntheticConfig
from reid_ray.storage import Counts
from reid_ray.train.editor.config import TrainEditorJob
from reid_ray.train.editor.job import EditorRecipe

SMALL = [
    "model.height=16", "model.width=16", "model.crop=16", "model.context=48",
    "model.scratch={patch: 2, channels: [16, 32], width: 32, vocab_size: 300, head_width: 8, sight_layers: 1}",
    "trains=[unet, fusion, attribute_encoder]", "batches.size=8", "batches.other_shot_share=0.5", "objective.attribute=0.1",
    "workers.count=1", "optimizer.name=adamw", "optimizer.eps=1e-4", "optimizer.lr=1e-3",
]  # fmt: skip


@pytest.fixture(scope="session")
def people(tmp_path_factory):
    config = SyntheticConfig(identities=12, images_per_identity=2, height=64, width=32, test_share=0.25, val_share=0)
    return write_edit_tables(tmp_path_factory.mktemp("people"), config)


@pytest.fixture(scope="session")
def job_of(people):
    """A job on the tables of `people`, with changes."""

    def job(*changes: str) -> TrainEditorJob:
        tables = [f"images.path={people}/images", f"data.segments={people}/segments", f"data.captions=[{people}/captions]"]
        given = [*tables, f"data.references={people}/references", f"output.path={people}/out", *SMALL, *changes]
        return load_config(TrainEditorJob, None, given)

    return job


@pytest.fixture(scope="session")
def prepared(job_of, tmp_path_factory):
    """(the run's folder, counts, facts)."""
    folder, counts = tmp_path_factory.mktemp("run"), Counts()
    facts = EditorRecipe(job_of()).prepare(folder, counts)
    return folder, counts, facts
