"""A lock is one process', and that of a dead one is told from a live one's."""

import errno
import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
import time

import pytest
from refusals import refused

from reid_ray.errors import DataError
from reid_ray.storage import lock as locks
from reid_ray.storage.lock import OutputLock, lock_path

HOLDER = """
import sys, time
from pathlib import Path
from reid_ray.storage import lock as locks
if sys.argv[2] == "lease":
    import fcntl, errno
    def flock(*_): raise OSError(errno.ENOLCK, "no locks")
    fcntl.flock = flock
locks.OutputLock(Path(sys.argv[1]), "other").acquire()
print("held", flush=True)
time.sleep(60)
"""


FORKING = """
import os
if os.fork() == 0:
    print("the child runs", flush=True)
    time.sleep(30)
else:
    os.kill(os.getpid(), 9)
"""


@pytest.fixture(params=["flock", "lease"])
def kind(request, monkeypatch):
    """Both ways to lock: the second where the file system has no flock."""
    if request.param == "lease":

        def without(*_):
            raise OSError(errno.ENOLCK, "no locks")

        monkeypatch.setattr(fcntl, "flock", without)
    return request.param


def holder(output, kind):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(output), kind], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_a_lock_that_cannot_be_written_leaves_nothing_and_is_there_for_the_next(kind, tmp_path):
    lock, (soft, hard) = OutputLock(tmp_path / "out", "mine"), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))  # files have names, and room for nothing, as on a full disk
    try:
        with refused(OSError, "File too large"):
            lock.acquire()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (lock.held, list(tmp_path.iterdir())) == (False, [])
    lock.acquire()
    lock.release()


def test_a_lock_is_held_once_and_leaves_nothing(kind, tmp_path):
    one, two = OutputLock(tmp_path / "out", "a"), OutputLock(tmp_path / "out", "b")
    one.acquire()
    with pytest.raises(DataError, match=f"\\(a, process {os.getpid()} on "):
        two.acquire()
    one.release()
    two.acquire()
    two.release()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_lock_of_a_process_that_was_killed_is_taken_over(kind, tmp_path):
    process = holder(tmp_path / "out", kind)
    with pytest.raises(DataError, match=f"other, process {process.pid}"):
        OutputLock(tmp_path / "out", "a").acquire()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert lock_path(tmp_path / "out").exists()
    lock = OutputLock(tmp_path / "out", "a")
    lock.acquire()
    lock.release()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_child_that_outlives_its_parent_does_not_hold_the_parents_lock(tmp_path):
    script = HOLDER.replace("time.sleep(60)", FORKING)
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "out"), "flock"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    assert process.stdout.readline() == "the child runs\n"
    process.wait()
    lock = OutputLock(tmp_path / "out", "a")
    lock.acquire()
    lock.release()


def test_a_lease_of_another_host_is_taken_over_once_it_is_not_renewed(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(errno.EOPNOTSUPP, "no locks")))
    path = lock_path(tmp_path / "out")
    path.write_text(json.dumps({"job": "train", "host": "elsewhere", "boot": "x", "pid": 1, "started": "1", "since": "then"}))
    with pytest.raises(DataError, match="train, process 1 on elsewhere"):
        OutputLock(tmp_path / "out", "a").acquire()
    long_ago = time.time() - locks.LEASE_S - 5
    os.utime(path, (long_ago, long_ago))
    lock = OutputLock(tmp_path / "out", "a")
    lock.acquire()
    assert json.loads(path.read_text())["job"] == "a"
    lock.release()
    assert list(tmp_path.iterdir()) == []


def test_a_number_that_another_process_has_now_is_not_the_dead_owner(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(errno.EOPNOTSUPP, "no locks")))
    owner = {**locks.this_process("train"), "pid": os.getppid(), "started": "1"}
    lock_path(tmp_path / "out").write_text(json.dumps(owner))
    lock = OutputLock(tmp_path / "out", "a")
    lock.acquire()
    lock.release()
