"""Direct transfer (cross-dataset evaluation): the dual encoder on data sets that it was not trained on, during training and at the end.

On val splits the workers score the weights at hand after each validation; on test splits the evaluate job scores the kept weights, once.
Neither chooses anything. Knows the run's folder and the evaluate job; not the loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reid_ray.config.common import EmbedPoolConfig
from reid_ray.data.dataset_overlap import known_overlap
from reid_ray.records import SEEN, SEEN_FILE
from reid_ray.retrieval.evaluate.config import EvaluateJob
from reid_ray.retrieval.evaluate.exposure import exposure_of
from reid_ray.storage import read_table
from reid_ray.train.dual.config import TrainJob, TransferSet
from reid_ray.train.dual.held_out import prepare_held_out, require_split
from reid_ray.train.feed.prepared import FACTS, read_prepared
from reid_ray.train.feed.seen import exposure_of_rows
from reid_ray.train.log.run_log import read_metrics
from reid_ray.train.recipe import DATA, TRANSFER

_SHOWN = ("r1", "r5", "r10", "map", "minp", "queries", "gallery", "skipped")


def transfer_folder(folder: Path, other: TransferSet) -> Path:
    """Where the val split of `other` lies in a run's folder."""
    return folder / TRANSFER / other.name


def prepare_transfer(config: TrainJob, folder: Path) -> None:
    """Write the val splits for the workers, and see that the test splits can be scored.

    Raises:
        DataError: a data set lacks a split, or captions of it.
    """
    for other in config.transfer:
        if other.test_split is not None:
            require_split(other, other.test_split)
        path = transfer_folder(folder, other)
        if (path / FACTS).is_file():
            read_prepared(path)
        elif other.val_split is not None:
            path.mkdir(parents=True, exist_ok=True)
            prepare_held_out(other, other.val_split, path, max_pixels=config.images.max_pixels)


def transfer_results(
    config: TrainJob, folder: Path, out: Path, *, step: int, trained_on: list[str], before: Mapping[str, Path | None]
) -> list[dict[str, Any]]:
    """One entry per data set and split: the val scores of the kept weights, from the log, and the test scores, made now.

    Each says in "exposure" what the weights have seen of its images and texts.

    Args:
        config: the training job.
        folder: the run's folder.
        out: the output folder: the weights are in model/, evaluations go to transfer/.
        step: of the kept weights.
        trained_on: names of the training data sets, for what is known of shared pictures.
        before: the weights that training went on from, name -> their folder.
    """
    lines = [line for line in read_metrics(folder) if line.get("kind") == "transfer" and line["step"] == step]
    results = []
    for other in config.transfer:
        overlaps = sorted({sentence for name in trained_on if (sentence := known_overlap(name, other.name)) is not None})
        facts = {"dataset": other.name, "step": step, "known_overlap": overlaps}
        for line in lines:
            if line["dataset"] == other.name:
                scores = {name: line[name] for name in line if name not in {"kind", "step", "dataset"}}
                results.append({**facts, **scores, "exposure": _exposure(folder, other, before)})
        if other.test_split is not None:
            result = _score(config, other, out)
            results.append({**facts, "split": other.test_split, **{name: result[name] for name in (*_SHOWN, "texts_cut", "exposure")}})
    return results


def transfer_exposures(config: TrainJob, folder: Path, before: Mapping[str, Path | None]) -> dict[str, dict[str, Any] | None]:
    """What the weights will have seen of each val split, by the name of its scores in the log."""
    watched = [other for other in config.transfer if other.val_split is not None]
    return {f"transfer/{other.name}/{other.val_split}": _exposure(folder, other, before) for other in watched}


def _exposure(folder: Path, other: TransferSet, before: Mapping[str, Path | None]) -> dict[str, Any]:
    """Of the val split; of one that an older version prepared it is unknown."""
    file = transfer_folder(folder, other) / SEEN_FILE
    found = exposure_of_rows(folder / DATA, before, read_table(file, SEEN)) if file.is_file() else None
    return exposure_of({}) if found is None else found


def _score(config: TrainJob, other: TransferSet, out: Path) -> dict[str, Any]:
    from reid_ray.retrieval.evaluate.job import run_evaluate

    job = EvaluateJob.model_validate(
        {
            "encoder": str(out / "model"),
            "images": other.images,
            "captions": other.captions,
            "caption_kinds": other.caption_kinds,
            "split": other.test_split,
            "max_pixels": config.images.max_pixels,
            "embed": EmbedPoolConfig(num_cpus=config.workers.num_cpus, num_gpus=config.workers.num_gpus, batch_size=64),
            "output": {"path": str(out / TRANSFER / other.name), "if_exists": "replace"},
        }
    )
    return dict(run_evaluate(job)["facts"])
