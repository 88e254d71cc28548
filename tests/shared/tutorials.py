"""Pages that are run from top to bottom: each command of a block of sh, and after it the lines that a block of text says come of it.

In a block of text `...` stands for what varies; lines that are not shown may stand between those that are. `reid-ray search` and
`reid-ray serve` go on while what follows asks them, until the next of them or the end; `reid-ray label ask` is answered, and then
stopped as by Ctrl-C. Ports 8000 and 8010 of the page are free ones here.
"""

from __future__ import annotations

import json
import os
import re
import select
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"^```(sh|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NEEDS = re.compile(r"#\s*needs (.*)")
_PORT = "8000"
_LABELS_PORT = "8010"
_SERVE = ("search", "serve")
_PATIENCE_S = 240.0


@dataclass(frozen=True)
class PageStep:
    """A command of a page, what it says it needs, and the lines that it is to say, if the page shows them: of a block's last command."""

    line: str
    needs: str
    shown: tuple[str, ...] = ()

    @property
    def words(self) -> list[str]:
        """As a shell would split it."""
        return shlex.split(self.line, comments=True)


def steps_of(page: str) -> list[PageStep]:
    """The commands of a page, in order."""
    steps: list[PageStep] = []
    for language, block in _FENCE.findall(page):
        if language == "text":
            last = steps.pop()
            steps.append(PageStep(last.line, last.needs, tuple(line for line in block.splitlines() if line.strip())))
            continue
        above = ""
        for line in block.replace("\\\n", " ").splitlines():
            found = _NEEDS.search(line)
            if line.lstrip().startswith("#"):
                above = found[1] if found else above
            elif line.strip():
                steps.append(PageStep(line, found[1] if found else above))
    return steps


def missing_line(shown: tuple[str, ...], said: str) -> str | None:
    """The first line of `shown` that does not come, in its turn, in what was said; None if all do."""
    at = 0
    lines = said.splitlines()
    for line in shown:
        wanted = re.compile(".*".join(re.escape(part) for part in line.strip().split("...")))
        at = next((number + 1 for number in range(at, len(lines)) if wanted.search(lines[number])), 0)
        if not at:
            return line
    return None


class PageRun:
    """Runs a page's steps in a folder; a context manager, at whose end whatever it started has ended.

    Args:
        folder: where the page's user is.
        label: what the user does at the address of a labelling page, before stopping it.
    """

    def __init__(self, folder: Path, *, label: Callable[[str], None]) -> None:
        self._folder, self._number, self._label = folder, 0, label
        self._port, self._labels_port = _free_port(), _free_port()
        self._jobs, self._service = _Session(folder, self._port), _Session(folder, self._port)

    def run(self, step: PageStep) -> None:
        """Run a step, and see that it ends well and says what the page shows."""
        self._number += 1
        said = self._folder / f"said_{self._number:02d}.txt"
        said.touch()
        words = [word.replace(_PORT, self._port) for word in step.words]
        if words[0] == "reid-ray" and words[1] in _SERVE:
            self._serve(step, words, said)
            return
        if words[:3] == ["reid-ray", "label", "ask"]:
            self._ask(step, words, said)
            return
        if words[0] == "reid-ray":
            code = self._jobs.done(words[1:], said)
        else:
            with said.open("w") as stream:
                done = subprocess.run(words, cwd=self._folder, stdout=stream, stderr=subprocess.STDOUT, timeout=_PATIENCE_S, check=False)
            code = done.returncode
        text = said.read_text()
        assert code == 0, f"{step.line}: ended with {code}\n{text}"
        self._compare(step, text)

    def _serve(self, step: PageStep, words: list[str], said: Path) -> None:
        self._service.stop()
        self._service = _Session(self._folder, self._port)
        port = "serve.serve.port" if words[1] == "search" else "serve.port"
        self._service.ask([*words[1:], f"{port}={self._port}"], said)
        self._until_it_serves(self._service, step, said)
        self._compare(step, said.read_text())

    def _ask(self, step: PageStep, words: list[str], said: Path) -> None:
        self._jobs.ask([*words[1:], "--port", self._labels_port], said)
        self._until_it_serves(self._jobs, step, said)
        self._label(f"http://127.0.0.1:{self._labels_port}")
        self._jobs.interrupt()
        code = self._jobs.code()
        assert code == 0, f"{step.line}: ended with {code}\n{said.read_text()}"
        self._compare(step, said.read_text())

    def _until_it_serves(self, session: _Session, step: PageStep, said: Path) -> None:
        end = time.monotonic() + _PATIENCE_S
        while "Ctrl-C stops it" not in said.read_text():
            assert session.running, f"{step.line}: ended\n{said.read_text()}"
            assert time.monotonic() < end, f"{step.line}: does not answer\n{said.read_text()}"
            time.sleep(0.1)

    def _compare(self, step: PageStep, text: str) -> None:
        own = text.replace(f":{self._port}/", f":{_PORT}/").replace(f":{self._labels_port}/", f":{_LABELS_PORT}/")
        missing = missing_line(step.shown, own)
        assert missing is None, f"{step.line}: the page shows\n    {missing}\nand it said\n{text}"

    def __enter__(self) -> PageRun:
        return self

    def __exit__(self, *_: object) -> None:
        self._service.stop()
        self._jobs.stop()


def _free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


class _Session:
    """A process of page_session.py; it starts with the first question."""

    def __init__(self, folder: Path, port: str) -> None:
        self._folder, self._url, self._process = folder, f"http://127.0.0.1:{port}", None

    @property
    def running(self) -> bool:
        """Whether it has not ended, nor what it was asked last."""
        return self._process is not None and self._process.poll() is None

    def ask(self, words: list[str], said: Path) -> None:
        """Begin with a command line."""
        if self._process is None:
            environment = {
                **os.environ,
                "REID_RAY_URL": self._url,
                "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            }
            script = [sys.executable, str(ROOT / "tests" / "shared" / "page_session.py")]
            self._process = subprocess.Popen(
                script, cwd=self._folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        self._process.stdin.write(json.dumps({"words": words, "said": str(said)}) + "\n")
        self._process.stdin.flush()

    def done(self, words: list[str], said: Path) -> int:
        """The exit code of a command line."""
        self.ask(words, said)
        return self.code()

    def interrupt(self) -> None:
        """What Ctrl-C does to the command line that is running."""
        self._process.send_signal(signal.SIGINT)

    def code(self) -> int:
        """The exit code of what was asked, once it has ended."""
        if not select.select([self._process.stdout], [], [], _PATIENCE_S)[0]:
            return 124
        answer = self._process.stdout.readline()
        return int(answer) if answer.strip() else 1

    def stop(self) -> None:
        """End it, as Ctrl-C does."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.stdin.close()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._process is not None:
            self._process.stdout.close()
        self._process = None
