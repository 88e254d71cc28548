"""The file that keeps what libraries print: where it lies, how many are kept, and the process that fills it from a pipe.

A process of its own, because whoever prints may hold the interpreter's lock and must not wait for a thread that needs it; because the
processes that a job leaves behind still print; and because a full disk is not to be an error in the middle of a library. It takes
secrets out before anything is written, and holds the file to its size. Knows bytes; not jobs.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from reid_ray.redaction import without_secrets

VARIABLE, SHOW = "REID_RAY_LOGS", "show"
KEPT = 10  # newest files, this one among them
LARGEST = 8 << 20  # bytes of one file; in the middle the rest is left out, for the first and the last lines tell most
_LINE = 1 << 16  # a line is cut here, bytes
_PATIENCE_S = 1.0  # for the rest of a line that has begun
_SETTLE_S = 2.0  # for processes that end with the job
_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_START = "import sys; sys.path.insert(0, sys.argv[1]); from reid_ray.terminal.log_file import fill; sys.exit(fill(0, 1, path=sys.argv[2]))"


@dataclass(frozen=True)
class LogFile:
    """A log file and the process that fills it from `pipe`, the descriptor to write to."""

    path: Path
    pipe: int
    process: subprocess.Popen[bytes]

    def close(self) -> str | None:
        """Once nobody here writes any more: what a user is to know about the file, or None if nothing was written.

        A process that outlives the job may go on writing; it is not waited for longer than a moment.
        """
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=_SETTLE_S)
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            size = 0
        if self.process.returncode:
            return f"what libraries printed could not all be kept in {self.path}; see that its disk has room"
        return f"what libraries printed is in {self.path}" if size else None


def log_folder() -> Path:
    """REID_RAY_LOGS, or reid_ray/logs in the folder for state of the XDG Base Directory Specification.

    Raises:
        RuntimeError: this user has no home.
    """
    told = os.environ.get(VARIABLE)
    if told:
        return Path(told).expanduser()
    return Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "reid_ray" / "logs"


def open_log(job: str) -> LogFile:
    """A new log file in log_folder(), readable by this user alone, and its process. Older ones beyond KEPT are removed.

    Raises:
        OSError: the folder cannot be written to, or no process can be started.
        RuntimeError: this user has no home.
    """
    folder = log_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _remove_old(folder)
    path = folder / f"{time.strftime('%Y-%m-%dT%H-%M-%S')}-{job}-{os.getpid()}.log"
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        # Held as long as the process lives, which keeps the file from being removed as an old one.
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        reader, writer = os.pipe()
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _START, str(Path(__file__).resolve().parents[2]), str(path)],
                stdin=reader,
                stdout=file,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,  # what a terminal sends to the job is none of its business
            )
        except OSError:
            os.close(writer)
            raise
        finally:
            os.close(reader)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(file)
    return LogFile(path, writer, process)


def _remove_old(folder: Path) -> None:
    """Remove all but the newest KEPT - 1 logs, as their names say; one that is still being written stays."""
    for path in sorted(folder.glob("*T*-*.log"), reverse=True)[KEPT - 1 :]:
        try:
            with path.open("r") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
        except OSError:  # being written, another user's, or gone just now
            continue


def fill(source: int, target: int, *, path: str, largest: int = LARGEST) -> int:
    """Copy a pipe into a file until nobody writes any more; a file that stays empty is removed.

    Args:
        source: descriptor of the pipe.
        target: descriptor of the file, for reading too.
        path: of the file.
        largest: bytes of the file at most, but for a sentence in its middle.

    Returns:
        0, or 1 if something could not be written.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends when everybody has said their last words
    log, rest = _Bounded(target, largest), b""
    while True:
        ready = select.select([source], [], [], _PATIENCE_S if rest else None)[0]
        piece = os.read(source, _LINE) if ready else b""
        rest += piece
        cut = len(rest) if not piece or len(rest) >= _LINE else max(rest.rfind(b"\n"), rest.rfind(b"\r")) + 1
        if cut:
            log.add(without_secrets(_COLOUR.sub("", rest[:cut].decode("utf-8", "replace"))).encode())
            rest = rest[cut:]
        if ready and not piece:
            break
    if not log.size:
        Path(path).unlink(missing_ok=True)
    return int(log.failed)


class _Bounded:
    """A file that keeps its first half for good, and of the rest the newest quarter at least."""

    def __init__(self, descriptor: int, largest: int) -> None:
        self.size, self.failed = 0, False
        self._descriptor, self._largest, self._left_out = descriptor, largest, 0

    def add(self, data: bytes) -> None:
        """Append, or leave out where there is no room on the disk."""
        step = self._largest // 4
        try:
            for start in range(0, len(data), step):
                piece = data[start : start + step]
                if self.size + len(piece) > self._largest:
                    self._make_room(self._largest // 2, step)
                self._write(piece)
        except OSError:
            self.failed = True

    def _make_room(self, first: int, last: int) -> None:
        newest = os.pread(self._descriptor, last, self.size - last)
        self._left_out += self.size - last - first
        os.ftruncate(self._descriptor, first)
        os.lseek(self._descriptor, first, os.SEEK_SET)
        self.size = first
        self._write(f"\n... {self._left_out} bytes left out ...\n".encode() + newest)

    def _write(self, data: bytes) -> None:
        while data:
            written = os.write(self._descriptor, data)
            data, self.size = data[written:], self.size + written
