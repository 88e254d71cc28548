"""Kill a training run once it has saved checkpoints, seen in its own log, and say what was found."""

from __future__ import annotations

import contextlib
import subprocess
import time
from pathlib import Path

import psutil

from reid_ray.train.log.run_log import read_metrics


def wait_for(found, *, alive=lambda: True, seconds: float = 600.0):
    """What `found` gives, as soon as it gives something; None if it does not in time, or the run is not alive any more."""
    deadline = time.time() + seconds
    while time.time() < deadline and alive():
        if result := found():
            return result
        time.sleep(0.005)
    return None


def lines_of(folder: Path) -> list[dict]:
    """The log of the run that is under way with its output in `folder`/out."""
    return [line for run in folder.glob(".out.*.run") for line in read_metrics(run)]


def saved(lines: list[dict]) -> int:
    """How many checkpoints a log speaks of."""
    return sum(line.get("event") == "checkpoint" for line in lines)


def kill_driver_after(checkpoints: int, command: list[str], folder: Path) -> None:
    """Start a driver whose output is `folder`/out, and end it as a machine that goes down would: driver, Ray and workers at once.

    Raises:
        AssertionError: the driver ended before it had saved so many checkpoints, with the end of its log.
    """
    with (folder / "driver.log").open("w") as log:
        driver = subprocess.Popen(command, stdout=log, stderr=log)
    found = wait_for(lambda: saved(lines_of(folder)) >= checkpoints, alive=lambda: driver.poll() is None)
    # The driver alone would leave workers that might finish before they notice.
    killed = [psutil.Process(driver.pid), *psutil.Process(driver.pid).children(recursive=True)] if driver.poll() is None else []
    for process in killed:
        with contextlib.suppress(psutil.NoSuchProcess):  # a worker may end by itself meanwhile
            process.kill()
    driver.wait()
    assert found, (folder / "driver.log").read_text()[-2000:]
    psutil.wait_procs(killed, timeout=10)
    assert not (folder / "out").exists()
