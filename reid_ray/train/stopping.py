"""How an error that a user can mend comes from a worker to the driver, and ends the run there instead of being tried again.

Ray Train starts a group anew when a worker fails, which is right for a lost machine and in vain for a mistake in the data: the mistake
is written into the run's folder, a group that finds it there does nothing, and the driver raises it. Knows one file; not Ray.
"""

from __future__ import annotations

import json
from pathlib import Path

from reid_ray.errors import ReidRayError, TrainingError
from reid_ray.storage import write_json

_STOPPED = "stopped.json"


def stop_run(folder: Path, error: ReidRayError) -> None:
    """Leave word of `error` for the driver, and for a group of workers that would start after this one."""
    write_json(folder / _STOPPED, {"error": str(error)})


def is_stopped(folder: Path) -> bool:
    """Whether a worker has left word of an error since the driver began."""
    return (folder / _STOPPED).is_file()


def forget_stop(folder: Path) -> None:
    """What stopped the run the last time may be mended now; the driver calls it before workers start."""
    (folder / _STOPPED).unlink(missing_ok=True)


def raise_stop(folder: Path) -> None:
    """On the driver, raise what a worker left word of, if one did.

    Raises:
        TrainingError: in the worker's words.
    """
    if is_stopped(folder):
        raise TrainingError(json.loads((folder / _STOPPED).read_text(encoding="utf-8"))["error"])
