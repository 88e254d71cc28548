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
_ANSWER_S = 5.0  # until what has been written so far must be in the file
_END = b"\0end of the job\0"  # after it the process answers with one of:
_NOTHING, _WRITTEN, _LOST = b"0", b"1", b"2"
_NAME = re.compile(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d-\w+-\d+\.log")
_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_START = (
    "import sys; sys.path.insert(0, sys.argv[1]); from reid_ray.terminal.log_file import fill; "
    "fill(0, 1, path=sys.argv[2], answer=int(sys.argv[3]))"
)


@dataclass(frozen=True)
class LogFile:
    """A log file, and a process that fills it until nobody has `pipe` open any more.

    `pipe` is the descriptor to write to, `answer` the one from which the process is heard; both are this process's alone.
    """

    path: Path
    pipe: int
    answer: int
    process: subprocess.Popen[bytes]

    def sentence(self) -> str | None:
        """What a user is to know about what has been written so far, once it is in the file; None if there was nothing."""
        try:
            os.write(self.pipe, _END)
            said = os.read(self.answer, 1) if select.select([self.answer], [], [], _ANSWER_S)[0] else _WRITTEN
        except BrokenPipeError:  # somebody has ended the process
            said = _LOST
        if said == _NOTHING:
            return None
        if said == _WRITTEN:
            return f"what libraries printed is in {self.path}"
        return f"what libraries printed could not all be kept in {self.path}; see that its disk has room"


def log_folder() -> Path:
    """REID_RAY_LOGS, or reid_ray/logs in the folder for state of the XDG Base Directory Specification.

    Raises:
        RuntimeError: this user has no home.
    """
    told = os.environ.get(VARIABLE)
    if told:
        return Path(told).expanduser().absolute()
    return Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser().absolute() / "reid_ray" / "logs"


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
        return _filled(path, file)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(file)


def _filled(path: Path, file: int) -> LogFile:
    """Start the process."""
    (reader, writer), (answer, answering) = os.pipe(), os.pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _START, str(Path(__file__).resolve().parents[2]), str(path), str(answering)],
            stdin=reader,
            stdout=file,
            stderr=subprocess.DEVNULL,
            pass_fds=[answering],
            cwd="/",
            start_new_session=True,  # what a terminal sends to the job is none of its business
        )
    except OSError:
        os.close(writer)
        os.close(answer)
        raise
    finally:
        os.close(reader)
        os.close(answering)
    return LogFile(path, writer, answer, process)


def _remove_old(folder: Path) -> None:
    """Remove all but the newest KEPT - 1 logs, as their names say; one that is still being written stays."""
    logs = sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name)), reverse=True)
    for path in logs[KEPT - 1 :]:
        try:
            with path.open("r") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
        except OSError:  # being written, another user's, or gone just now
            continue


def fill(source: int, target: int, *, path: str, answer: int, largest: int = LARGEST) -> None:
    """Copy a pipe into a file until nobody writes any more; a file that stays empty is removed.

    Args:
        source: descriptor of the pipe.
        target: descriptor of the file, for reading too.
        path: of the file.
        answer: descriptor to which it is said, once the job is at its end, what has become of its words.
        largest: bytes of the file at most, but for a sentence in its middle.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends when everybody has said their last words
    log, rest, open_ = _Bounded(target, largest), b"", True
    while open_:
        ready = select.select([source], [], [], _PATIENCE_S if rest else None)[0]
        piece = os.read(source, _LINE) if ready else b""
        open_ = bool(piece) or not ready
        before, ended, after = (rest + piece).partition(_END)
        if ended:
            log.add(_plain(before))
            with contextlib.suppress(BrokenPipeError):
                os.write(answer, _LOST if log.failed else _WRITTEN if log.size else _NOTHING)
            before = after
        cut = _whole(before) if piece else len(before)
        log.add(_plain(before[:cut]))
        rest = before[cut:]
    if not log.size:
        Path(path).unlink(missing_ok=True)


def _whole(said: bytes) -> int:
    """How many bytes of it are whole lines; of a line without end, all but what may be the beginning of _END."""
    return len(said) - len(_END) if len(said) >= _LINE else max(said.rfind(b"\n"), said.rfind(b"\r")) + 1


def _plain(said: bytes) -> bytes:
    return without_secrets(_COLOUR.sub("", said.decode("utf-8", "replace"))).encode()


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
