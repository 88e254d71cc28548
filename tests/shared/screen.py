"""What a person sees of a command: its standard output and standard error, on a terminal or in two files, and what it said itself."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from dataclasses import dataclass
from pathlib import Path

RECORDED = Path(__file__).with_name("recorded.py")


@dataclass(frozen=True)
class Screen:
    """`seen` and `said` are the bytes that reached the streams, and those of our own lines in the same order."""

    code: int
    seen: str
    said: str
    log: Path | None  # that the last line names


def run_on(kind, script, *arguments, folder, cwd=None, timeout=600):
    """Run a Python script with arguments: kind "terminal" gives it one as its standard output and error, kind "file" a file."""
    record, logs = folder / "record", folder / "logs"
    command = [sys.executable, RECORDED, record, script, *arguments]
    own = {"REID_RAY_LOGS": str(logs), "REID_RAY_WARM_WORKERS": ""}  # what libraries say as they are imported is to be seen too
    options = {"env": {**os.environ, **own}, "cwd": cwd, "stdin": subprocess.DEVNULL}
    if kind == "terminal":
        code, seen = _on_terminal(command, timeout, options)
    else:
        with (folder / "output").open("w+b") as file:
            code = subprocess.run(command, stdout=file, stderr=file, timeout=timeout, check=False, **options).returncode
            file.seek(0)
            seen = file.read()
    text, said = (_plain(each) for each in (seen, record.read_bytes() if record.exists() else b""))
    last = text.rstrip("\n").rpartition("\n")[2].rpartition(" ")[2]
    return Screen(code, text, said, Path(last) if last.startswith(str(logs)) else None)


def _plain(written):
    return written.replace(b"\r\n", b"\n").decode()


def _on_terminal(command, timeout, options):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, start_new_session=True, **options)
    os.close(theirs)
    try:
        seen = _all_of(ours, time.monotonic() + timeout)
        return process.wait(timeout=10), seen
    finally:
        os.close(ours)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _all_of(terminal, deadline):
    """What is written until nobody has the terminal open any more."""
    pieces = []
    while select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))[0]:
        try:
            pieces.append(os.read(terminal, 1 << 16))
        except OSError:  # EIO: the last one is gone
            return b"".join(pieces)
    raise AssertionError(f"not done in time; so far: {b''.join(pieces)[-2000:]!r}")
