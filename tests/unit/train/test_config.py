"""Contradictions between engine, workers and batch are refused before anything starts."""

import pytest

from reid_ray.config import load_config
from reid_ray.errors import ConfigError
from reid_ray.train.dual.config import TrainJob

NEEDED = ["images.path=i", "captions.paths=[c]", "output.path=o", "batches.size=12"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["engine={zero_stage: 0, offload_optimizer: true}"], "offload_optimizer needs a sharded optimizer; set zero_stage to 1, 2 or 3"),
        (["engine={zero_stage: 2, offload_parameters: true}"], "offload_parameters needs zero_stage 3, not 2"),
        (["engine={zero_stage: 0, precision: bf16}"], "precision bf16 needs zero_stage 1 or more"),
        (["workers={count: 2, min_count: 3}"], "min_count 3 is above count 2"),
        (["workers={count: 5}"], "batches.size 12 is not a multiple of workers.count 5"),
        (
            ["workers={count: 6, min_count: 4}"],
            "batches.size 12 is not a multiple of 5 workers, which workers.min_count allows; set it to a multiple of 60",
        ),
        (["optimizer.layer_decay=0"], "optimizer.layer_decay"),
    ],
)
def test_a_contradiction_is_refused_by_name(overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_config(TrainJob, None, [*NEEDED, "workers.count=1", *overrides])


def test_a_batch_that_every_allowed_number_of_workers_divides_is_taken():
    job = load_config(TrainJob, None, [*NEEDED, "workers={count: 4, min_count: 2}"])
    assert (job.workers.min_count, job.workers.count) == (2, 4)
