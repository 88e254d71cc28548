"""Fatal errors of workers, passed to the driver: an error that a user can mend ends the run instead of being retried.

Ray Train starts a group anew when a worker fails, which is right for a lost machine and in vain for a mistake in the data: the mistake
is written into the run's folder, a group that finds it there does nothing, and the driver raises it. Lost workers that are lost again and
again end the run in a sentence too. Knows one file, and what Ray Train says of workers that died.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from reid_ray.errors import ReidRayError, ResourceError, TrainingError
from reid_ray.storage import write_json

_STOPPED = "stopped.json"


def stop_run(folder: Path, error: ReidRayError) -> None:
    """Write `error` down for the driver, and for a group of workers that would start after this one."""
    write_json(folder / _STOPPED, {"error": str(error)})


def is_stopped(folder: Path) -> bool:
    """Whether a worker has written a fatal error since the driver began."""
    return (folder / _STOPPED).is_file()


def clear_stop(folder: Path) -> None:
    """Remove the error of an earlier attempt, which may be mended now; the driver calls it before workers start."""
    (folder / _STOPPED).unlink(missing_ok=True)


def raise_stop(folder: Path) -> None:
    """On the driver, raise the error that a worker wrote, if one did.

    Raises:
        TrainingError: in the worker's words.
    """
    if is_stopped(folder):
        raise TrainingError(json.loads((folder / _STOPPED).read_text(encoding="utf-8"))["error"])


def raise_lost_workers(failures: Mapping[int, Exception], *, max_failures: int) -> None:
    """On the driver, raise that workers died, if that is why the last group failed; an exception in one is not raised here.

    Args:
        failures: Ray Train's, by rank.
        max_failures: schedule.max_failures.

    Raises:
        ResourceError: names the workers, what is kept and the remedy.
    """
    from ray.exceptions import RayActorError
    from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError, WorkerHealthCheckTimeoutError

    died = (RayActorError, WorkerHealthCheckFailedError, WorkerHealthCheckTimeoutError)
    lost = [str(rank) for rank, failure in sorted(failures.items()) if isinstance(failure, died)]
    if lost:
        raise ResourceError(
            f"workers: rank {', '.join(lost)} died, and {max_failures} groups of workers had been lost before (schedule.max_failures); the "
            "newest checkpoint is kept, and the same command goes on from it: see whether memory ran out (the memory job predicts what is "
            "needed), lower batches.size or add memory"
        ) from None
