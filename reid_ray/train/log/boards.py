"""Experiment trackers: TensorBoard, Weights & Biases, MLflow. One class each; only rank 0 has any.

Knows names, numbers and steps; not what they mean. The last two are used if they are installed and asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from reid_ray.errors import ConfigError
from reid_ray.train.config import LogConfig

TENSORBOARD, WANDB, MLFLOW = "tensorboard", "wandb", "mlflow"


class Board(Protocol):
    """One experiment tracker."""

    def numbers(self, numbers: Mapping[str, float], *, step: int) -> None:
        """Names such as train/loss, after `step` steps."""
        ...

    def close(self) -> None:
        """Flush."""
        ...


def check_boards(config: LogConfig) -> None:
    """Refuse a board that is not installed.

    Raises:
        ConfigError: names it.
    """
    for name, package in ((WANDB, "wandb"), (MLFLOW, "mlflow")):
        if name in config.to and find_spec(package) is None:
            raise ConfigError(f"log.to: {name} is not installed; run `pip install {package}` on every node, or take {name} off the list")


def open_boards(config: LogConfig, folder: Path, *, start: int, settings: dict[str, Any]) -> list[Board]:
    """The boards of `config`, local files in `folder`; a resumed run goes on from `start` in the same one.

    Args:
        config: which ones, and under which names.
        folder: the run's folder.
        start: the step that the run starts or resumes from.
        settings: the job's configuration, shown beside the numbers.
    """
    boards: list[Board] = []
    if TENSORBOARD in config.to:
        boards.append(_TensorBoard(folder, start))
    if WANDB in config.to:
        boards.append(_Wandb(config, folder, settings))
    if MLFLOW in config.to:
        boards.append(_MLflow(config, folder, settings))
    return boards


class _TensorBoard:
    def __init__(self, folder: Path, start: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder / TENSORBOARD), purge_step=start + 1)

    def numbers(self, numbers: Mapping[str, float], *, step: int) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    """Steps are a number of their own, because W&B's must never go back, and a resumed run does some again."""

    def __init__(self, config: LogConfig, folder: Path, settings: dict[str, Any]) -> None:
        import wandb

        (folder / WANDB).mkdir(exist_ok=True)
        self._run = wandb.init(
            project=config.project,
            name=config.run,
            id=_remembered(folder / WANDB / "run_id", lambda: uuid4().hex[:8]),
            resume="allow",
            mode=config.wandb_mode,
            dir=str(folder / WANDB),
            config=settings,
        )
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def numbers(self, numbers: Mapping[str, float], *, step: int) -> None:
        self._run.log({"step": step, **numbers})

    def close(self) -> None:
        self._run.finish()


class _MLflow:
    def __init__(self, config: LogConfig, folder: Path, settings: dict[str, Any]) -> None:
        from mlflow import MlflowClient

        (folder / MLFLOW).mkdir(exist_ok=True)
        uri = config.mlflow_uri or f"sqlite:///{(folder / MLFLOW / 'mlflow.db').absolute()}"
        self._client = MlflowClient(tracking_uri=uri)

        def begin() -> str:
            known = self._client.get_experiment_by_name(config.project)
            experiment = known.experiment_id if known is not None else self._client.create_experiment(config.project)
            return str(self._client.create_run(experiment, run_name=config.run).info.run_id)

        self._run_id = _remembered(folder / MLFLOW / "run_id", begin)
        for name, value in settings.items():
            self._client.log_param(self._run_id, name, str(value)[:500])

    def numbers(self, numbers: Mapping[str, float], *, step: int) -> None:
        for name, value in numbers.items():
            self._client.log_metric(self._run_id, name, value, step=step)

    def close(self) -> None:
        self._client.set_terminated(self._run_id)


def _remembered(path: Path, make: Callable[[], str]) -> str:
    """The run's id: from `path` if an earlier worker group has written it, else a new one."""
    if not path.is_file():
        path.write_text(make(), encoding="utf-8")
    return path.read_text(encoding="utf-8")
