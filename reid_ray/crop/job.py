"""The crop job: videos or folders of frames -> stretches -> actors that decode, detect and track -> an IMAGES table of crops.

Each stretch's crops are written by its actor, as a file beside the output (.NAME.stretches), which every node must see; a run that was cut
off goes on with the stretches that are missing. This process then joins the tracks of neighbours and writes the table, in the order of the
footage: what it holds is one stretch's crops, some megabytes. A video that cannot be used is a row of failures/.
"""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from reid_ray.config.base import fingerprint
from reid_ray.crop.config import CropJob, DetectorConfig
from reid_ray.crop.crop_rows import CropTables
from reid_ray.crop.detectors import open_detector
from reid_ray.crop.footage import Footage, Stretch, list_footage, stretches
from reid_ray.crop.hog import HOG_MODEL, require_hog
from reid_ray.crop.person_tracks import require_bytetrack
from reid_ray.crop.seams import joined
from reid_ray.crop.stretch_work import FOUND, StretchAccount, work_on
from reid_ray.data.execution import actor_pool, ray_data_execution
from reid_ray.errors import DataError, ResourceError
from reid_ray.model.model_files import model_revision, resolve_model
from reid_ray.progress import progress_bar
from reid_ray.runtime import pool_need, ray_session, require_resources, stays_in_process
from reid_ray.storage import JobOutput, read_manifest, write_durably
from reid_ray.terminal.own_lines import say

_LATER: dict[str, Any] = {"tracker": {"min_boxes"}}  # what counts when the stretches are through
_LEAST_OVERLAP_S = 3.0  # that neighbouring stretches share: longer than a track waits for its person


def run_crop(config: CropJob) -> dict[str, Any]:
    """Run the job; returns the manifest of config.output.path, which holds images/ (crop_rows.CROPS) and failures/.

    Raises:
        DataError: no footage, or nobody is found on any of it.
        ConfigError: a time of a name cannot be read, or the detector is none.
        ResourceError: a package is missing, or the cluster cannot hold the actors.
    """
    inputs = {"footage": config.footage.path, "detector": _described(config.detector)}
    output = JobOutput("crop", config.output.path, config, if_exists=config.output.if_exists, inputs=inputs)
    if (earlier := output.kept()) is not None:
        return earlier
    _require_packages(config)
    found, bad = list_footage(config.footage)
    overlap = max(_LEAST_OVERLAP_S, config.tracker.patience_s + 1)
    folder = output.path.with_name(f".{output.path.name}.stretches")
    with output:
        folder.mkdir(mode=0o700, exist_ok=True)  # crops of people: this user's alone
        some = list(stretches(found, seconds=_whole_steps(config), overlap=overlap))
        files = {number: folder / f"{_key(config, each, inputs['detector'])}.parquet" for number, each in enumerate(some)}
        _work(config, [(each, files[number]) for number, each in enumerate(some) if not files[number].exists()], overlap)
        with CropTables(output, config) as tables:
            for name, error in bad:
                tables.fail(name, error.reason, error.detail)
            for _, numbered in groupby(enumerate(some), key=lambda each: each[1].footage.name):
                mine = list(numbered)
                _publish(config, tables, mine[0][1].footage, [files[number] for number, _ in mine])
            tables.report()
        output.facts["unknown"] = unknown_of(found)
        failed = tables.failed_in_words()
        if not output.counts.written:
            raise DataError(
                f"{config.footage.path}: nobody is found on {len(found)} videos or folders ({output.counts}; {output.facts['boxes']}"
                f"{f'; {failed}' if failed else ''}); check footage.path, detector.min_score and crops.min_height"
            )
    shutil.rmtree(folder, ignore_errors=True)
    say(f"crop: {output.counts}; tracks {output.facts['tracks']['kept']} -> {config.output.path}/images")
    if failed is not None:
        say(f"crop: {failed} -> {config.output.path}/failures")
    if config.footage.pattern is not None and any(output.facts["unknown"].values()):
        told = " and ".join(f"the {what} of {count}" for what, count in output.facts["unknown"].items() if count)
        say(f"crop: of {len(found)} videos or folders {told} is not known, and no filter finds their crops by it (names, footage.pattern)")
    return read_manifest(config.output.path)


def unknown_of(footage: Sequence[Footage]) -> dict[str, int]:
    """How many videos or folders have no known camera, and no known time."""
    return {
        "camera": sum(each.camera is None for each in footage),
        "time": sum(each.start_us is None and not each.frame_us for each in footage),
    }


def _require_packages(config: CropJob) -> None:
    """Refuse now what an actor would refuse later."""
    if config.footage.kind == "videos":
        try:
            import av  # noqa: F401
        except ImportError:
            raise ResourceError(
                "footage.kind: videos are decoded by PyAV, which is missing; install the extra video, or set kind to frames"
            ) from None
    if config.detector.kind == "hog":
        require_hog()
    if config.tracker.kind == "bytetrack":
        require_bytetrack()


def _described(config: DetectorConfig) -> str:
    if config.kind == "hog":
        return HOG_MODEL
    resolved = resolve_model(str(config.model), field="detector.model")
    return f"{config.model} {model_revision(resolved, revision=config.revision, field='detector.model')}"


def _whole_steps(config: CropJob) -> float:
    """stretch_s in whole steps from one frame that is looked at to the next, so that a cut changes no choice."""
    rate = config.frames_per_second
    return config.stretch_s if rate is None else max(1, round(config.stretch_s * rate)) / rate


def _key(config: CropJob, stretch: Stretch, detector: str) -> str:
    """32 hex digits of all that a stretch's crops depend on: the same for the same work, whoever asks."""
    footage = stretch.footage
    asked = config.model_dump(mode="json", exclude={"output": True, "ray": True, "pool": True, "part_mb": True, "footage": True, **_LATER})
    states = footage.store.states([f"{footage.name}/{file}".lstrip("/") for file in footage.frames]) if footage.frames else footage.state
    about = (footage.place, footage.frames, states, stretch.start, stretch.stop, stretch.beyond, footage.rate, footage.start_us)
    digest = sha256(repr((fingerprint(asked), config.footage.max_pixels, detector, about)).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


def _work(config: CropJob, missing: Sequence[tuple[Stretch, Path]], overlap: float) -> None:
    """Make the files of the stretches that are missing: by actors, or here if the footage is short."""
    if not missing:
        return
    model = config.detector.model
    here = config.model_copy(update={"detector": config.detector.model_copy(update={"model": model and _absolute(model)})})
    alone = config.pool.most == 1 and stays_in_process(config.ray, sum(_looks(config, stretch) for stretch, _ in missing), config.pool)
    done = _by_itself(here, missing, overlap) if alone else _by_actors(here, missing, overlap)
    frames = 0
    with progress_bar("crop", len(missing), unit="stretch") as bar:
        for count in done:
            frames += count
            bar.set_postfix_str(f"frames {frames}")
            bar.update(1)


def _looks(config: CropJob, stretch: Stretch) -> int:
    """How many frames of a stretch are looked at, or so."""
    if stretch.footage.frames:
        return len(stretch.footage.frames)
    stop = stretch.stop if stretch.stop is not None else stretch.footage.seconds
    seconds = config.stretch_s if stop is None else stop - stretch.start
    return round(seconds * (config.frames_per_second or stretch.footage.rate))


def _by_itself(config: CropJob, missing: Sequence[tuple[Stretch, Path]], overlap: float) -> Iterator[int]:
    """Frames of each stretch, worked on in this process."""
    worker = StretchWorker(config, overlap)
    return (worker.make(stretch, file) for stretch, file in missing)


def _by_actors(config: CropJob, missing: Sequence[tuple[Stretch, Path]], overlap: float) -> Iterator[int]:
    """Frames of each stretch, as actors are through with them."""
    import ray

    pool = config.pool.model_copy(update={"batch_size": 1})
    with ray_session(config.ray), ray_data_execution(no_progress_timeout_s=7200, in_order=False):
        require_resources([pool_need("pool", config.pool)])
        items = [{"work": pickle.dumps((stretch, str(file)))} for stretch, file in missing]
        done = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            StretchActor, fn_constructor_args=(config, overlap), **actor_pool(pool)
        )
        for batch in done.iter_batches(batch_size=None, batch_format="pyarrow"):
            yield from batch["frames"].to_pylist()


def _absolute(model: str) -> str:
    """A folder absolute: an actor's working directory need not be this one's."""
    return os.path.abspath(model) if os.path.isdir(model) else model


class StretchWorker:
    """Works on stretches, one after the other: holds a detector, and writes each stretch's file."""

    def __init__(self, config: CropJob, overlap: float) -> None:
        if config.detector.kind == "transformers":
            import torch

            torch.set_num_threads(max(1, int(config.pool.num_cpus)))
        device = "cuda:0" if config.pool.num_gpus else "cpu"
        self._config, self._overlap = config, overlap
        self._detector = open_detector(config.detector, min_height=config.crops.min_height, device=device)

    def make(self, stretch: Stretch, file: Path) -> int:
        """Work on a stretch and write its file; returns how many of its frames were looked at."""
        table = work_on(stretch, self._config, self._detector, overlap=self._overlap)
        write_durably(file, partial(pq.write_table, table))
        return StretchAccount.unpacked(table.schema.metadata[FOUND]).frames


class StretchActor:
    """The Ray Data actor round a StretchWorker."""

    def __init__(self, config: CropJob, overlap: float) -> None:
        self._worker = StretchWorker(config, overlap)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Work on the stretches of a batch; returns how many frames each had."""
        asked = [pickle.loads(pickled) for pickled in batch["work"].to_pylist()]
        return pa.table({"frames": pa.array([self._worker.make(stretch, Path(file)) for stretch, file in asked], pa.int64())})


def _publish(config: CropJob, tables: CropTables, footage: Footage, files: Iterable[Path]) -> None:
    """Join the tracks of a footage's stretches, and write their crops."""
    crops = config.crops
    for tracks, found in joined(_read(files), most=crops.per_track, span_s=crops.span_s):
        tables.add_found(footage, found)
        for track in tracks:
            tables.add_track(footage, track)


def _read(files: Iterable[Path]) -> Iterator[pa.Table]:
    for file in files:
        yield pq.read_table(file)
