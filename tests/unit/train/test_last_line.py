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
