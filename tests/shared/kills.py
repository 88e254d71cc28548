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
    kill_family(driver, patience_s=10)  # the driver alone would leave workers that might finish before they notice
    assert found, (folder / "driver.log").read_text()[-2000:]
    assert not (folder / "out").exists()


def kill_family(process: subprocess.Popen, *, patience_s: float) -> None:
    """Kill a process and all that it has started, each of which may end by itself meanwhile, and wait until they are gone."""
    family = []
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process.pid)
        family = [parent, *parent.children(recursive=True)]
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()
    psutil.wait_procs(family, timeout=patience_s)
