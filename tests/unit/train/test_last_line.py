"""The last line of a training run: what became of the captions, in words whose numbers add up."""

import json
import re
from pathlib import Path

import pytest

from reid_ray.storage import Counts
from reid_ray.train.run import captions_in_words

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "96cb249"


@pytest.mark.parametrize("run", ["training", "tuning"])
def test_every_caption_is_in_one_part(run):
    manifest = json.loads((GOLDEN / run / "manifest.json").read_text())
    counts = Counts.of(manifest["counts"])
    said = captions_in_words(counts, manifest["facts"])
    read, *parts = (int(number) for number in re.findall(r"\d+", re.sub(r" of \d+ persons|(left out|failed) \d+", "", said)))
    assert (read, sum(parts)) == (24, 24)
    assert f"left out {counts.left_out['other_split']} (other_split" in said


def test_rewrites_are_those_that_are_learnt_from_and_what_an_older_version_prepared_beside_them_is_told_apart():
    counts = Counts.of({"read": 30, "written": 21, "failed": {"no_text": 1}, "left_out": {"other_split": 8}})
    said = captions_in_words(counts, {"samples": 10, "persons": 5, "rewrites": 4, "validation_queries": 5})
    assert "training 10 of 5 persons, rewrites of these 4, validation 5, rewrites that nothing uses 2, left out 8" in said
