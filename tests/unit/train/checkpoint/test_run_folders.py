"""A changed setting does not start anew in silence: the run that is left is named, with step and differences, and dropped at the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from reid_ray.config.base import load_config
from reid_ray.train.checkpoint.run_folders import Record, differences, drop_run, other_runs, write_record
from reid_ray.train.config import NOT_IN_RUN_FINGERPRINT
from reid_ray.train.dual.config import TrainJob

NEEDED = ["images.path=x", "captions.paths=[x]", "workers.count=1"]


def record(out: Path, *overrides: str, inputs=(("images.path", "1"),)) -> Record:
    config = load_config(TrainJob, None, [*NEEDED, f"output.path={out}", *overrides])
    return Record("train", config.model_dump(mode="json", exclude=NOT_IN_RUN_FINGERPRINT), dict(inputs))


def begun(out: Path, made: Record, *steps: int) -> Path:
    """The folder of a run that was cut off after checkpoints at `steps`, the last of which is not whole."""
    folder = made.folder(out)
    folder.mkdir(parents=True)
    write_record(folder, made)
    place = folder if made.storage is None else Path(made.storage) / folder.name.strip(".")
    for step in steps:
        checkpoint = (place / "checkpoints" if made.storage is None else place) / f"step-{step:08d}"
        checkpoint.mkdir(parents=True)
        if step != steps[-1]:
            (checkpoint / "manifest.json").write_text("{}")
    return folder


def test_a_run_of_another_configuration_is_named_with_step_difference_and_what_to_do(tmp_path):
    out = tmp_path / "out"
    now = record(out, "optimizer.lr=0.002")
    there = begun(out, record(out, "optimizer.lr=0.001", "schedule.epochs=6"), 2, 4, 6)
    (other,) = other_runs(now.folder(out), out, storage=None)
    said = other.sentence(now)
    for part in (str(there), "step 4", "optimizer.lr 0.001, now 0.002", "schedule.epochs 6, now 30", "give its values again", "delete"):
        assert part in said
    assert "optimizer.beta1" not in said


def test_changed_inputs_and_options_of_another_version_are_differences(tmp_path):
    one = record(tmp_path / "out")
    assert differences(one, one) == []
    changed = record(tmp_path / "out", inputs=[("images.path", "2"), ("model.init", "3")])
    assert differences(one, changed) == [f"what lies at {name} has changed" for name in ("images.path", "model.init")]
    older = Record(one.job, {name: value for name, value in one.config.items() if name != "transfer"}, one.inputs)
    assert differences(older, one) == ["transfer unknown, now []"]


def test_only_this_outputs_other_runs_are_found(tmp_path):
    out = tmp_path / "out[1]"
    mine = record(out)
    begun(out, mine)
    other = begun(out, record(out, "optimizer.lr=1"))
    for neighbour in ("out[1].x", "out1", "out"):
        begun(tmp_path / neighbour, record(tmp_path / neighbour, "optimizer.lr=1"))
    (tmp_path / ".out[1].mine.run").mkdir()
    (tmp_path / ".out[1].0123456789abcdef.run").mkdir()  # of the name, but nothing of ours in it
    assert [found.folder for found in other_runs(mine.folder(out), out, storage=None)] == [other]


def test_where_and_with_how_many_workers_it_runs_is_no_other_run(tmp_path):
    out = tmp_path / "out"
    elsewhere = record(out, "workers.count=2", "engine.zero_stage=3", "ray.address=auto", "log.to=[]")
    assert elsewhere.folder(out) == record(out).folder(out)
    assert record(out, "optimizer.lr=1").folder(out) != record(out).folder(out)
    assert record(out, inputs=[("images.path", "2")]).folder(out) != record(out).folder(out)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_run_is_dropped_with_its_checkpoints_wherever_they_are(tmp_path, elsewhere):
    out, storage = tmp_path / "out", tmp_path / "storage"
    storage.mkdir()
    (storage / "of-others").mkdir()
    begun(out, record(out, "optimizer.lr=1", *([f"schedule.checkpoint_storage={storage}"] if elsewhere else [])), 3, 5)
    (other,) = other_runs(record(out).folder(out), out, storage=None)
    assert other.step == 3
    drop_run(other, storage=None)
    assert not list(tmp_path.glob(".out.*"))
    assert [path.name for path in storage.iterdir()] == ["of-others"]


def test_a_run_of_an_older_version_is_named_too(tmp_path):
    out = tmp_path / "out"
    folder = begun(out, record(out, "optimizer.lr=1"), 3, 5)
    (folder / "run.json").unlink()
    (folder / "lock").touch()
    (other,) = other_runs(record(out).folder(out), out, storage=None)
    assert "what it was started with is not recorded" in other.sentence(record(out))
