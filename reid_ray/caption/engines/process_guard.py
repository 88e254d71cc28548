"""Process guard: a small process beside one whose engine has processes of its own; it ends those when the first is gone, however it went.

A process that is killed ends nothing that it started: an engine core waits for its front end for ever, and workers that hang in a
collective never see that a pipe was closed. What an engine starts inherits an environment variable, by which the guard finds it, children
of children too. Knows process ids and that variable; not engines. Linux alone, as is vLLM's way to start processes.

    python -m reid_ray.caption.engines.process_guard PID TOKEN
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

GUARDED = "REID_RAY_GUARDED"  # environment variable: token of the process that started this one
_GRACE_S = 2.0  # for those that notice by themselves, so that they tidy up


def guard_what_is_started() -> None:
    """Whatever this process starts from now on, and what that starts, ends soon after it. A second call changes nothing."""
    if GUARDED in os.environ:
        return
    token = uuid.uuid4().hex
    command = [sys.executable, "-m", __spec__.name, str(os.getpid()), token]
    subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    os.environ[GUARDED] = token


def end_what_is_left(token: str) -> list[int]:
    """Kill the processes that inherited a token, until there are none; returns their ids."""
    ended: list[int] = []
    while found := [pid for pid in _with_token(token) if pid not in ended]:
        for pid in found:
            _kill(pid)
        ended += found
    return ended


def _with_token(token: str) -> list[int]:
    mark, found = f"{GUARDED}={token}".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:  # another user's, or gone meanwhile
            continue
    return [pid for pid in found if pid != os.getpid()]


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _main(pid: int, token: str) -> None:
    if os.getppid() == pid:  # else it is gone already, and another may have its id
        watched = os.pidfd_open(pid)
        if os.getppid() == pid:
            select.select([watched], [], [])  # readable once the process has ended
    time.sleep(_GRACE_S)
    end_what_is_left(token)


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2])
