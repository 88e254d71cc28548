"""Training data prepared by Ray tasks, and fetched through Ray by a node that does not see them."""

from pathlib import Path

import pytest
from refusals import refused
from stretches import contents, job_of_many, prepared, small_stretches

from reid_ray.errors import DataError
from reid_ray.train import shipment as shipments
from reid_ray.train.config import StagingConfig
from reid_ray.train.feed.spread import Spread
from reid_ray.train.shipment import ship, staged

pytestmark = pytest.mark.slow


def test_ray_tasks_prepare_what_one_thread_prepares_however_many_they_are(local_ray, tmp_path, monkeypatch):
    small_stretches(monkeypatch)
    job = job_of_many(tmp_path)
    one = prepared(job, tmp_path / "one", Spread(at_once=1), monkeypatch)
    for tasks in (1, 3):
        assert prepared(job, tmp_path / f"tasks {tasks}", Spread(at_once=tasks, by_tasks=True), monkeypatch) == one
    with Path(job.captions.paths[0], "part-00000.parquet").open("r+b") as file:
        file.seek(100)
        file.write(bytes(1000))
    with refused(DataError, "part-00000.parquet"):  # as itself, not as an error of Ray's
        prepared(job, tmp_path / "damaged", Spread(at_once=2, by_tasks=True), monkeypatch)


def test_a_node_without_the_runs_folder_fetches_it_from_the_drivers(local_ray, tmp_path, monkeypatch):
    monkeypatch.setattr(shipments, "_PIECE", 65_536)
    run = tmp_path / ".out.0123.run"
    for name, size in (("data/pictures.arrow/00000.arrow", 700_001), ("start/model.safetensors", 10), ("transfer/b/none.arrow", 0)):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(bytes(number % 251 for number in range(size)))
    copy = staged(ship(run), StagingConfig(path=str(tmp_path / "node")))
    assert copy != run
    assert {name: data for name, data in contents(copy).items() if name != "size"} == contents(run)
