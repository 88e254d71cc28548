"""Which text follows an image and its caption: the first source that has one, and never a matter of how many workers draw."""

import numpy as np
import pyarrow as pa
import pytest
from refusals import refused

from reid_ray.config.base import load_config
from reid_ray.errors import ConfigError
from reid_ray.train.feed.pairs import PAIRS
from reid_ray.train.feed.prepared import RowFile, write_rows
from reid_ray.train.mllm.config import TuneJob
from reid_ray.train.mllm.continuation import Continuations, draws

# person, picture, caption, rewrites
ROWS = [
    (7, 0, "a", ["a1", "a2"]),
    (7, 0, "b", []),
    (7, 1, "c", []),
    (8, 2, "d", []),
    (8, 2, "e", []),
    (9, 3, "f", []),
]


def samples(path):
    table = pa.table(
        {
            "text": [row[2] for row in ROWS],
            "rewrites": pa.array([row[3] for row in ROWS], pa.list_(pa.string())),
            "person": [row[0] for row in ROWS],
            "picture": [row[1] for row in ROWS],
            "camera": [-1] * len(ROWS),
            "synthetic": [False] * len(ROWS),
        },
        schema=PAIRS,
    )
    write_rows(path, table.schema, [table])
    return RowFile(path)


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (["rewrite", "image", "identity"], ["a1 a2", "a", "a b", "e", "d", ""]),
        (["identity"], ["c", "c", "a b", "", "", ""]),
        (["image", "caption"], ["b", "a", "c", "e", "d", "f"]),
    ],
)
def test_each_sample_is_continued_by_its_first_source(tmp_path, sources, expected):
    continuations = Continuations(samples(tmp_path / "samples.arrow"), sources)
    assert continuations.available().tolist() == [bool(text) for text in expected]
    for row, texts in enumerate(expected):
        if texts:
            assert {continuations.draw(row, number) for number in np.linspace(0, 0.999, 50)} == set(texts.split())
        else:
            with refused(ValueError, f"sample {row}"):
                continuations.draw(row, 0.5)


def test_draws_are_those_of_the_place_and_step():
    whole = draws(3, 11, np.arange(8))
    np.testing.assert_array_equal(np.concatenate([draws(3, 11, np.arange(4)), draws(3, 11, np.arange(4, 8))]), whole)
    assert not np.isclose(whole, draws(3, 12, np.arange(8))).any()
    assert whole.min() >= 0
    assert whole.max() < 1


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("batches.sampler=shuffle", "latent_triplet needs identities more than once in a batch"),
        ("batches.chunk=4", "batches.chunk is for dual encoders"),
        ("model.train_visual=true", "train_visual and lora.visual are both set"),
        (
            "objective={lm_image: {weight: 0}, latent_id: {weight: 0}, latent_triplet: {weight: 0}}",
            "no term shows the language model an image",
        ),
        ("workers.count=3", "batches.size 16 is not a multiple of workers.count 3"),
        ("model={lora: {llm: [], visual: []}, train_projector: false}", "no part of the model trains"),
        ("model.lora.visual=[]", "objective.visual_id is in the loss, but no part that it could teach trains; set model.lora.visual"),
        ("objective={latent_id: {weight: 0}, latent_triplet: {weight: 0}, pooling: attention}", "no term trains its query"),
        ("select=text", "objective.sdm weighs 0"),
    ],
)
def test_a_contradiction_is_refused_with_its_name(root, override, sentence):
    with refused(ConfigError, sentence):
        load_config(TuneJob, root / "jobs" / "configs" / "train" / "tune.yaml", [override])
