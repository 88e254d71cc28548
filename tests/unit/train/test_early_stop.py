"""Early stop: what is refused, when a validation is due, and that a run which has stopped stays stopped when it goes on."""

from __future__ import annotations

from pathlib import Path

from refusals import refused

from reid_ray.config.base import load_config
from reid_ray.errors import ConfigError
from reid_ray.train.checkpoint.contents import Progress
from reid_ray.train.dual.config import TrainJob
from reid_ray.train.loop import train

NEEDED = ["images.path=x", "captions.paths=[x]", "output.path=x", "workers.count=1"]


def test_a_run_that_has_stopped_early_does_no_step_when_it_is_resumed():
    config = load_config(TrainJob, None, [*NEEDED, "schedule.patience=2"])
    stopped = Progress(step=9, best_step=3, best_score=0.5, without_better=2)
    # Without parts: a step, a validation or a checkpoint would fail.
    none = dict.fromkeys(("selection", "checkpoints", "log"))
    assert train(None, folder=Path("x"), progress=stopped, steps=100, config=config, **none) == stopped


def test_validations_are_due_after_so_many_steps_or_at_the_end_of_epochs():
    for every, due in (("3", [3, 6, 9]), ("epoch", [4, 8])):
        schedule = load_config(TrainJob, None, [*NEEDED, f"schedule.validate_every={every}"]).schedule
        assert [step for step in range(1, 10) if schedule.validates_after(step, steps_per_epoch=4)] == due


def test_what_could_never_stop_or_looks_at_a_test_split_is_refused():
    for changes, message in (
        (["schedule.patience=2", "images.val_split=null"], "schedule.patience counts validations, but images.val_split is null"),
        (["schedule.validate_every=0"], "validate_every is 0; give a number of steps of at least 1, or epoch"),
        (["transfer=[{name: a, images: x, captions: x, val_split: test}]"], "val_split is 'test', but a test split is scored once"),
        (["transfer=[{name: a, images: x, captions: x, val_split: null, test_split: null}]"], "there is nothing to evaluate"),
        (["transfer=[{name: a, images: x, captions: x}, {name: a, images: y, captions: y}]"], "transfer has names that are not distinct"),
    ):
        with refused(ConfigError, message):
            load_config(TrainJob, None, [*NEEDED, *changes])
