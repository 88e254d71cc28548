"""Which checkpoints of a run count, which are kept, and that one with a file cut off does not: without an engine."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace

import pyarrow.fs
import pytest

from reid_ray.errors import DataError
from reid_ray.storage import MANIFEST
from reid_ray.train.checkpoint import checkpoint_place as checkpoints
from reid_ray.train.checkpoint.checkpoint_place import Checkpoints
from reid_ray.train.checkpoint.contents import KIND, Progress, check

PARTS = SimpleNamespace(engine=SimpleNamespace(rank=0, barrier=lambda: None))


@pytest.fixture
def run(tmp_path, monkeypatch) -> Checkpoints:
    """The checkpoints of a run of one worker, two of which are kept; a checkpoint is a file of ten bytes."""

    def write(folder: Path, parts: object, progress: Progress, *, world: int) -> dict[str, object]:
        (folder / "weights").write_bytes(b"0123456789")
        return {"kind": KIND, "progress": {"step": progress.step}, "workers": world}

    monkeypatch.setattr(checkpoints, "write_parts", write)
    monkeypatch.setattr(checkpoints.dist, "get_world_size", lambda: 1)
    return Checkpoints(pyarrow.fs.LocalFileSystem(), str(tmp_path), keep=2)


def test_the_newest_are_kept_and_one_without_its_manifest_does_not_count(run, tmp_path):
    for step in (5, 10, 15, 20):
        run.save(PARTS, Progress(step=step))
    assert run.steps() == [15, 20]
    (tmp_path / "step-00000025").mkdir()  # begun on a store that knows no renaming
    (tmp_path / "step-00000025" / "weights").write_bytes(b"0123456789")
    assert run.steps() == [15, 20]


@pytest.mark.parametrize("damage", [lambda file: file.write_bytes(b"012345678"), lambda file: file.unlink()], ids=["cut off", "gone"])
def test_a_checkpoint_whose_file_is_cut_off_or_gone_is_refused_by_its_name(run, tmp_path, damage):
    run.save(PARTS, Progress(step=5))
    folder = tmp_path / "step-00000005"
    assert check(folder)["progress"] == {"step": 5}
    damage(folder / "weights")
    with pytest.raises(DataError, match="weights"):
        check(folder)


def test_a_checkpoint_that_was_not_finished_is_not_seen_and_does_not_stand_in_the_way(run, tmp_path, monkeypatch):
    def dying(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(checkpoints, "write_parts", dying)
        run.save(PARTS, Progress(step=5))
    assert run.steps() == []
    run.save(PARTS, Progress(step=5))
    assert run.steps() == [5]
    assert sorted(path.name for path in (tmp_path / "step-00000005").iterdir()) == [MANIFEST, "weights"]
