"""Boards: the same numbers as in metrics.jsonl; one that is not installed is refused before anything starts."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from refusals import refused

from reid_ray.errors import ConfigError
from reid_ray.retrieval.evaluate.exposure import MARKS
from reid_ray.train.config import LogConfig
from reid_ray.train.log.boards import check_boards
from reid_ray.train.log.run_log import RunLog, read_metrics


def _log_twice(folder, config: LogConfig) -> None:
    """A run of three lines that resumes from step 2."""
    for start, values in ((0, {1: 5.0, 2: 4.0, 3: 9.0}), (2, {3: 3.0})):
        log = RunLog(folder, config, start=start, writes=True, settings={"batches": {"size": 8}})
        for step, value in values.items():
            log.numbers("train", step=step, numbers={"loss": value, "mfu": None})
        log.close()


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_tensorboard_and_the_file_hold_the_same_numbers_after_a_resume(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _log_twice(tmp_path, LogConfig())
    lines = read_metrics(tmp_path)
    assert [(line["step"], line["loss"], line["mfu"]) for line in lines] == [(1, 5.0, None), (2, 4.0, None), (3, 3.0, None)]
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert board.Tags()["scalars"] == ["train/loss"]
    assert [(event.step, event.value) for event in board.Scalars("train/loss")] == [(1, 5.0), (2, 4.0), (3, 3.0)]


def test_transfer_lines_are_told_apart_by_data_set_and_split(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = RunLog(tmp_path, LogConfig(), start=0, writes=True, settings={}, exposure={"transfer/ICFG-PEDES/val": ["OVERLAP"]})
    for dataset in ("ICFG-PEDES", "another"):
        log.numbers("transfer", step=4, numbers={"r1": 0.5}, dataset=dataset, split="val")
    log.close()
    line = {"step": 4, "kind": "transfer", "split": "val", "r1": 0.5}
    assert read_metrics(tmp_path) == [
        {**line, "dataset": "ICFG-PEDES", "exposure": ["OVERLAP"]},
        {**line, "dataset": "another", "exposure": ["UNKNOWN"]},
    ]
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert {"transfer/ICFG-PEDES/val/r1", "transfer/another/val/r1"} <= set(board.Tags()["scalars"])


def test_beside_every_score_its_marks_stand_in_the_file_and_on_the_boards(tmp_path):
    """Of one of which nothing is known, too; a loss has none."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for name, exposure, borne in (
        ("seen", {"validation": ["SEEN", "TEXTS"]}, {"SEEN", "TEXTS"}),
        ("clean", {"validation": []}, set()),
        ("unknown", None, {"UNKNOWN"}),
    ):
        log = RunLog(made(tmp_path / name), LogConfig(), start=0, writes=True, settings={}, exposure=exposure)
        log.numbers("train", step=1, numbers={"loss": 1.0})
        log.numbers("validation", step=1, numbers={"r1": 0.5})
        log.close()
        trained, validated = read_metrics(tmp_path / name)
        assert ("exposure" in trained, set(validated["exposure"])) == (False, borne)
        board = EventAccumulator(str(tmp_path / name / "tensorboard"))
        board.Reload()
        marks = {tag.rpartition("/")[2]: board.Scalars(tag)[0].value for tag in board.Tags()["scalars"] if "/exposure/" in tag}
        assert marks == {mark: float(mark in borne) for mark in MARKS}


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_board_that_is_not_installed_is_refused(name):
    if find_spec(name) is not None:
        pytest.skip(f"{name} is installed here")
    with refused(ConfigError, "log.to", f"pip install {name}"):
        check_boards(LogConfig(to=[name]))
    check_boards(LogConfig())


def test_mlflow_holds_the_numbers_and_goes_on_with_the_same_run(tmp_path):
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed here")
    _log_twice(tmp_path, LogConfig(to=["mlflow"], run="one"))
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("reid_ray").experiment_id])
    assert [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "train/loss")][-1] == (3, 3.0)
    assert run.data.params == {"batches": "{'size': 8}"}


def test_wandb_writes_a_run_without_a_network(tmp_path):
    pytest.importorskip("wandb", reason="W&B is not installed here")
    _log_twice(tmp_path, LogConfig(to=["wandb"]))
    assert list((tmp_path / "wandb").rglob("*.wandb"))
