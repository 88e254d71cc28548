"""The feed of a training run, decoded by actors of Ray Data."""

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from feeds import assert_equal, feed_of, prepare

from reid_ray.train.feed import ray_decoders
from reid_ray.train.feed.prepared import PICTURES

pytestmark = pytest.mark.slow


def test_actors_of_ray_data_give_the_batches_of_threads_also_after_a_resume(local_ray, tmp_path, monkeypatch):
    prepared = prepare(tmp_path / "here")
    changes = ["batches.crop_padding=3", "batches.colour=0.3", "batches.erase=1"]
    expected = [feed_of(prepared, *changes).make(step) for step in range(8)]
    pool = "batches.decoders={replicas: 2, num_cpus: 0.5, batch_size: 5}"  # three blocks a step
    monkeypatch.setattr(ray_decoders, "_SEGMENT", 12)  # a new Ray dataset after four steps
    for start in (0, 5):
        made = feed_of(prepared, *changes, pool, resize=np.asarray)  # actors cannot import a test's function
        if start:  # this time they stand on nodes that have a copy at another place
            made.elsewhere = partial(Path, shutil.copytree(prepared, tmp_path / "elsewhere"))
            (prepared / PICTURES).rename(tmp_path / "out of sight")
        batches = list(made.batches(start, 8))
        assert len(batches) == 8 - start
        for one, other in zip(batches, expected[start:], strict=True):
            assert_equal(one, other)
