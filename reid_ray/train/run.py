"""Training driver: prepares the data once, runs the workers under Ray Train's TorchTrainer, resumes after failures, publishes the model.

A run works in a hidden folder beside its output, named after its configuration and input, until it is done. A driver that dies
leaves it there, and the same command resumes from its newest checkpoint. What is prepared, trained and published is the recipe's.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from reid_ray.data.labels.doubted_captions import note_doubted
from reid_ray.errors import ReidRayError
from reid_ray.progress import progress_bar
from reid_ray.retrieval.evaluate.exposure import exposure_sentence, marks_of, unseen
from reid_ray.runtime import Need, ray_session, require_resources
from reid_ray.storage import Counts, JobOutput, read_manifest
from reid_ray.terminal.own_lines import say
from reid_ray.train.checkpoint.run_folders import OtherRun, Record, checkpoints_of, drop_run, newest_step, other_runs, write_record
from reid_ray.train.config import NOT_IN_RUN_FINGERPRINT
from reid_ray.train.log.boards import MLFLOW, TENSORBOARD, WANDB, check_boards
from reid_ray.train.log.run_log import METRICS, read_metrics
from reid_ray.train.recipe import BEST, DATA, Recipe, Selection
from reid_ray.train.shipment import Shipment, put_at, remove_from, ship
from reid_ray.train.worker_errors import clear_stop, raise_lost_workers, raise_stop

_RAY = "ray"


def run_recipe(recipe: Recipe) -> dict[str, Any]:
    """Train. Returns the manifest of the output folder, which holds model/, metrics.jsonl, the boards' files and what the recipe adds.

    Raises:
        ReidRayError: inputs, initial weights or resources are missing; before any worker starts.
        TrainingError: training cannot go on, such as by a loss that is not a number; the newest checkpoint stays for the same command.
    """
    config, job = recipe.config, recipe.job
    out = JobOutput(job, config.output.path, config, if_exists=config.output.if_exists, inputs=recipe.inputs())
    if (finished := out.kept()) is not None:
        return finished
    recipe.check()
    check_boards(config.log)
    storage = config.schedule.checkpoint_storage
    if storage is not None:
        from reid_ray.train.checkpoint.checkpoint_place import open_checkpoint_storage

        open_checkpoint_storage(storage)
    with out.hold(), _run_folder(recipe, out) as (folder, others), ray_session(config.ray):
        workers = config.workers
        least = workers.count if workers.min_count is None else workers.min_count
        trainers = Need("workers", least, num_cpus=workers.num_cpus, num_gpus=workers.num_gpus)
        require_resources([trainers, *recipe.needs()])
        with out:
            note_doubted(out, recipe.captions())
            clock = time.perf_counter()
            facts = recipe.prepare(folder, out.counts)
            exposures = recipe.exposures(folder)
            facts["validation_exposure"] = exposed = exposures.get("validation")
            out.timings["prepare_seconds"] = time.perf_counter() - clock
            if exposed is not None and not unseen(exposed):
                say(f"{job}: what chooses the weights: {exposure_sentence(exposed, of='the validation images')}")
            clock = time.perf_counter()
            clear_stop(folder)
            with _shipped(recipe, folder) as shipment, _watched(folder, job, recipe.selection):
                _fit(recipe, folder, shipment, {name: marks_of(found) for name, found in exposures.items()})
            out.timings["train_seconds"] = time.perf_counter() - clock
            out.facts.update(facts, **_result(folder, recipe.selection))
            shutil.copytree(folder / BEST, out.folder / "model")
            for board in (TENSORBOARD, WANDB, MLFLOW):
                if (folder / board).is_dir():
                    shutil.copytree(folder / board, out.folder / board)
            shutil.copy(folder / METRICS, out.folder / METRICS)
            out.facts.update(recipe.publish(folder, out.folder, read_manifest(folder / BEST)))
        filesystem, checkpoints = checkpoints_of(folder, storage)
        filesystem.delete_dir(checkpoints)
        shutil.rmtree(folder / _RAY)
        for other in others:
            drop_run(other, storage=storage)
    account = recipe.account(out.counts, out.facts)
    say(f"{job}: {account}{recipe.sentence(out.facts)}; {_sentence(out.facts, recipe.selection)} -> {out.path}")
    return read_manifest(out.path)


@contextmanager
def _run_folder(recipe: Recipe, out: JobOutput) -> Iterator[tuple[Path, list[OtherRun]]]:
    """The hidden folder of this configuration on this input, and the runs of others beside it; the output's lock is held.

    Where and on how many machines a run works is not part of its name, so it can go on elsewhere and on more or fewer workers. The folder
    is kept only if there is a run to resume. Which run is resumed, and which are not, is printed before anything starts.
    """
    storage = recipe.config.schedule.checkpoint_storage
    record = Record(recipe.job, recipe.config.model_dump(mode="json", exclude=NOT_IN_RUN_FINGERPRINT), out.provenance)
    folder = record.folder(out.path)
    others = other_runs(folder, out.path, storage=storage)
    if (step := newest_step(folder, storage)) is not None:
        say(f"{recipe.job}: goes on from the checkpoint of step {step} in {folder}")
    for other in others:
        say(f"{recipe.job}: {other.sentence(record)}")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # it holds the pictures that are trained on
    cut_off = False
    try:
        write_record(folder, record)
        yield folder, others
    except ReidRayError:
        raise
    except BaseException:
        cut_off = (folder / DATA).is_dir()
        raise
    finally:
        if not (folder / _RAY).exists() and not cut_off:  # no worker started and nothing is prepared, so there is nothing to go on from
            shutil.rmtree(folder)


@contextmanager
def _shipped(recipe: Recipe, folder: Path) -> Iterator[Shipment]:
    """What workers read of the run's folder, also at staging.through while they train; a run that fails leaves it for the next attempt."""
    shipment, through = ship(folder), recipe.config.staging.through
    if through is not None:
        put_at(shipment, through)
    yield shipment
    if through is not None:
        remove_from(shipment, through)


def _fit(recipe: Recipe, folder: Path, shipment: Shipment, exposure: dict[str, list[str]]) -> None:
    # Ray Train hands these on to its controller, which reads them when it starts.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.v2.api.exceptions import WorkerGroupError

    from reid_ray.train.checkpoint.checkpoint_place import refuse_newer
    from reid_ray.train.worker import train_worker

    config, workers = recipe.config, recipe.config.workers
    # How long a group waits for its resources before an elastic run starts a smaller one.
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(workers.patience_seconds)
    resources = {"CPU": workers.num_cpus, **({"GPU": workers.num_gpus} if workers.num_gpus else {})}
    count = workers.count if workers.min_count is None else (workers.min_count, workers.count)
    filesystem, checkpoints = checkpoints_of(folder, config.schedule.checkpoint_storage)
    filesystem.create_dir(checkpoints, recursive=True)
    refuse_newer(filesystem, checkpoints)
    settings = {
        "recipe": recipe,
        "folder": str(folder),
        "shipment": shipment,
        "exposure": exposure,
        "filesystem": filesystem,
        "checkpoints": checkpoints,
    }
    trainer = _trainer_class()(
        partial(train_worker, settings),  # a configuration beside it Ray Train hands to its controller too, which would import the recipe
        scaling_config=ScalingConfig(num_workers=count, use_gpu=workers.num_gpus > 0, resources_per_worker=resources),
        run_config=RunConfig(
            name=_RAY,
            storage_path=str(folder),
            failure_config=FailureConfig(max_failures=config.schedule.max_failures),
            logging_config=LoggingConfig(log_level="WARNING"),  # the run's own log says what Ray Train would say
        ),
    )
    try:
        trainer.fit()
    except WorkerGroupError as error:
        raise_stop(folder)
        raise_lost_workers(error.worker_failures, max_failures=config.schedule.max_failures)
        raise
    raise_stop(folder)


def _trainer_class() -> type[Any]:
    """TorchTrainer; on a Ray without a dashboard less the callback that asks the dashboard once a second and warns each time.

    It would clean up after a controller that outlives its driver, which on a Ray that this process started cannot be.
    """
    from ray._private.worker import get_dashboard_url
    from ray.train.torch import TorchTrainer

    if get_dashboard_url():
        return TorchTrainer
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # a local Ray has no spot instances

    class QuietTorchTrainer(TorchTrainer):
        def _create_default_callbacks(self) -> list[Any]:
            return [each for each in super()._create_default_callbacks() if type(each).__name__ != "PlacementGroupCleanerCallback"]

    return QuietTorchTrainer


@contextmanager
def _watched(folder: Path, job: str, selection: Selection | None) -> Iterator[None]:
    """A progress bar that follows the workers' log while they train."""
    done = threading.Event()

    def follow() -> None:
        with progress_bar(job, None, unit="step") as bar:
            while not done.wait(1.0):
                _show(bar, read_metrics(folder), selection)
            _show(bar, read_metrics(folder), selection)

    thread = threading.Thread(target=follow, name="train-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _show(bar: Any, lines: list[dict[str, Any]], selection: Selection | None) -> None:
    trained = [line for line in lines if line.get("kind") == "train"]
    validated = [line for line in lines if line.get("kind") == "validation"]
    starts = [line for line in lines if line.get("event") == "start"]
    if not trained:
        return
    bar.total = starts[-1]["steps"]
    score = validated[-1][selection.number] if validated and selection is not None else None
    marks = f" ({', '.join(borne)})" if validated and (borne := validated[-1].get("exposure", ["UNKNOWN"])) else ""
    scores = f", {selection.title} {score:.3f}{marks}" if score is not None and selection is not None else ""
    restarts = f", restarted {len(starts) - 1}x" if len(starts) > 1 else ""
    bar.set_postfix_str(f"loss {trained[-1]['loss']:.3f}{scores}{restarts}", refresh=False)
    bar.update(trained[-1]["step"] - bar.n)


def _result(folder: Path, selection: Selection | None) -> dict[str, Any]:
    lines = read_metrics(folder)
    trained = [line for line in lines if line.get("kind") == "train"]
    validated = [line for line in lines if line.get("kind") == "validation"]
    starts = [line for line in lines if line.get("event") == "start"]
    stops = [line for line in lines if line.get("event") == "early_stop"]
    return {
        "stopped": f"after {stops[-1]['validations_without_better']} validations without a better score" if stops else "after all steps",
        "steps": trained[-1]["step"],
        "steps_per_epoch": starts[-1]["steps_per_epoch"],
        "workers": len(starts[-1]["workers"]),
        "restarts": len(starts) - 1,
        "validations_not_finite": len([each for each in validated if selection is not None and each[selection.number] is None]),
        "last_loss": trained[-1]["loss"],
        "selected": read_manifest(folder / BEST)["facts"],
    }


def captions_in_words(counts: Counts, facts: dict[str, Any]) -> str:
    """What became of the captions that were read; the parts add up."""
    used = [f"training {facts['samples']} of {facts['persons']} persons"]
    if rewrites := facts["rewrites"]:
        used.append(f"rewrites of these {rewrites}")
    used.append(f"validation {facts['validation_queries']}")
    # An older version prepared rewrites of what validates, too, which nothing asks for.
    if others := counts.written - facts["samples"] - rewrites - facts["validation_queries"]:
        used.append(f"rewrites that nothing uses {others}")
    return f"captions: read {counts.read}, {', '.join(used)}{counts.unused_in_words()}"


def _sentence(facts: dict[str, Any], selection: Selection | None) -> str:
    chosen = facts["selected"]
    marks = "".join(f", {mark}" for mark in marks_of(facts["validation_exposure"]))
    kept = f"{selection.title} {chosen[selection.number]:.3f} on {selection.split}{marks}" if selection is not None else "last step"
    lost = facts["validations_not_finite"]
    return f"{facts['steps']} steps, kept step {chosen['step']} ({kept}{f', {lost} validations were not a number' if lost else ''})"
