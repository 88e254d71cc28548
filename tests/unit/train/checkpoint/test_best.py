"""The best weights on disk are those that the checkpoint speaks of, wherever a run was cut off."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import pytest
import torch

from reid_ray.train.checkpoint import best
from reid_ray.train.checkpoint.best import drop_previous_best, replace_best, restore_best
from reid_ray.train.checkpoint.contents import Progress, seed_forward
from reid_ray.train.recipe import BEST


def keep(folder: Path, step: int) -> None:
    def write(path: Path) -> None:
        path.mkdir()
        (path / "weights").write_text(str(step))
        (path / "manifest.json").write_text(json.dumps({"facts": {"step": step}}))

    replace_best(folder, write)


def kept(folder: Path) -> int | None:
    return int((folder / BEST / "weights").read_text()) if (folder / BEST).is_dir() else None


def at(step: int, best_step: int) -> Progress:
    return Progress(step=step, best_step=best_step, best_score=0.5 if best_step else None, without_better=1)


def test_weights_found_after_the_checkpoint_are_forgotten_with_its_steps(tmp_path):
    keep(tmp_path, 2)
    drop_previous_best(tmp_path)  # the checkpoint of step 3 is stored
    keep(tmp_path, 4)
    keep(tmp_path, 5)
    assert kept(tmp_path) == 5
    assert restore_best(tmp_path, at(3, 2)) == at(3, 2)
    assert kept(tmp_path) == 2
    assert [path.name for path in tmp_path.iterdir()] == [BEST]


def test_weights_that_the_checkpoint_speaks_of_stay(tmp_path):
    keep(tmp_path, 2)
    keep(tmp_path, 4)
    # A checkpoint of step 4 was stored, but the run was cut off before it could be settled.
    assert restore_best(tmp_path, at(4, 4)) == at(4, 4)
    assert kept(tmp_path) == 4


def test_a_run_that_starts_anew_has_no_weights_of_an_attempt_before(tmp_path):
    keep(tmp_path, 3)
    assert restore_best(tmp_path, Progress()) == Progress()
    assert list(tmp_path.iterdir()) == []


def test_the_last_weights_of_a_run_without_validation_stay(tmp_path):
    keep(tmp_path, 8)
    assert restore_best(tmp_path, at(8, 0)) == at(8, 0)
    assert kept(tmp_path) == 8


def test_where_the_best_weights_are_lost_the_score_is_lost_with_them(tmp_path):
    recovered = restore_best(tmp_path, at(6, 4))
    assert (recovered.step, recovered.best_step, recovered.best_score) == (6, 0, None)


def test_killed_anywhere_while_weights_are_replaced_the_run_goes_on_with_its_own(tmp_path, monkeypatch):
    """At each rename and each deletion in turn, with one and with two sets of weights at hand."""
    for earlier in ([2], [2, 4]):
        for deadly in range(8):
            folder = tmp_path / f"{len(earlier)}-{deadly}"
            folder.mkdir()
            for step in earlier:
                keep(folder, step)
            calls = iter(range(100))

            def dies(act, calls=calls, deadly=deadly):
                def do(*arguments, **options):
                    if next(calls) == deadly:
                        raise KeyboardInterrupt
                    return act(*arguments, **options)

                return do

            with monkeypatch.context() as patched:
                patched.setattr(Path, "rename", dies(Path.rename))
                patched.setattr(best.shutil, "rmtree", dies(shutil.rmtree))
                with contextlib.suppress(KeyboardInterrupt):
                    keep(folder, 5)
            assert restore_best(folder, at(3, 2)) == at(3, 2)
            assert kept(folder) == 2, (earlier, deadly)
            assert [path.name for path in folder.iterdir()] == [BEST]


@pytest.mark.parametrize("step", [0, 1, 500])
def test_two_workers_drop_different_activations(step):
    drawn = []
    for rank in range(4):
        seed_forward(step, rank)
        drawn.append(tuple(torch.rand(4).tolist()))
    assert len(set(drawn)) == 4
    seed_forward(step, 2)
    assert tuple(torch.rand(4).tolist()) == drawn[2]
