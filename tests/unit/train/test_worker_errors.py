"""A mistake that a worker finds ends the run at the driver in the worker's words, and is not tried again."""

from __future__ import annotations

import pytest
from ray.exceptions import RayActorError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError
from refusals import refused

from reid_ray.errors import DataError, ResourceError, TrainingError
from reid_ray.train import worker
from reid_ray.train.worker_errors import clear_stop, is_stopped, raise_lost_workers, raise_stop


def fails(error):
    def train(settings):
        raise error

    return train


@pytest.mark.parametrize("error", [TrainingError("step 7: sdm is not finite"), DataError("noise.npy: is cut off")])
def test_the_driver_raises_what_a_worker_found_and_the_next_group_does_nothing(tmp_path, monkeypatch, error):
    monkeypatch.setattr(worker.dist, "get_rank", lambda: 0)
    monkeypatch.setattr(worker, "_train", fails(error))
    settings = {"folder": str(tmp_path)}
    if isinstance(error, TrainingError):  # on all workers alike: the group ends well, so that Ray Train starts none after it
        worker.train_worker(settings)
    else:
        with pytest.raises(DataError):
            worker.train_worker(settings)
    monkeypatch.setattr(worker, "_train", fails(AssertionError("tried again")))
    worker.train_worker(settings)
    with pytest.raises(TrainingError, match=str(error)):
        raise_stop(tmp_path)
    clear_stop(tmp_path)
    assert not is_stopped(tmp_path)
    raise_stop(tmp_path)


def test_what_a_user_cannot_mend_is_left_to_ray_train(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "_train", fails(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        worker.train_worker({"folder": str(tmp_path)})
    assert not is_stopped(tmp_path)


def test_workers_that_died_are_named_and_an_exception_in_one_is_not_taken_for_a_death():
    died = WorkerHealthCheckFailedError("worker", RayActorError())
    with refused(ResourceError, "rank 1, 3", "2 groups", "schedule.max_failures", "the same command"):
        raise_lost_workers({3: died, 0: RuntimeError("Connection closed by peer"), 1: died}, max_failures=2)
    raise_lost_workers({0: RuntimeError("a bug")}, max_failures=2)
