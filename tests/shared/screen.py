"""What a person sees of a command: its standard output and standard error, on a terminal or in two files, and what it said itself."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
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


def run_on(kind, script, *arguments, folder, timeout=600):
    """Run a Python script with arguments: kind "terminal" gives it one as its standard output and error, kind "file" a file."""
    record, output = folder / "record", folder / "output"
    command = [sys.executable, RECORDED, record, script, *arguments]
    environment = {**os.environ, "REID_RAY_LOGS": str(folder / "logs")}
    if kind == "terminal":
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
        process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True, close_fds=True
        )
        os.close(theirs)
        seen = _all_of(ours)
        code = process.wait(timeout=timeout)
    else:
        with output.open("wb") as file:
            code = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment, timeout=timeout, check=False
            ).returncode
        seen = output.read_bytes()
    text, said = (_plain(each) for each in (seen, record.read_bytes() if record.exists() else b""))
    last = text.rstrip("\n").rpartition("\n")[2].rpartition(" ")[2]
    logs = folder / "logs"
    return Screen(code, text, said, Path(last) if last.startswith(str(logs)) else None)


def _plain(written):
    return written.replace(b"\r\n", b"\n").decode()


def _all_of(terminal):
    pieces = []
    while True:
        try:
            piece = os.read(terminal, 1 << 16)
        except OSError:  # EIO: the last one who had it open is gone
            break
        if not piece:
            break
        pieces.append(piece)
    os.close(terminal)
    return b"".join(pieces)
