"""Does the suite notice? Each mutation of the list (catalogue.py) is made in a copy of the tree, and its quick tests are run there.

    python tests/mutations/run.py                  # all of them: killed / survived for each, and a total
    python tests/mutations/run.py --only ledger    # those whose name or file holds a word

A mutation changes one place as a mistake would. Tests that fail have killed it; if they pass, nothing holds that place. The tests are
run on the unchanged tree first, for tests that fail anyway prove nothing. Exit code 1 if a mutation survived, if its text no longer
stands exactly once in its file, or if the tests do not pass without it. The checkout itself is never touched.
"""

from __future__ import annotations

import argparse
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from catalogue import MUTATIONS  # type: ignore[import-not-found]
from mutation import Mutation  # type: ignore[import-not-found]

_ROOT = Path(__file__).resolve().parents[2]
_LEFT_OUT = shutil.ignore_patterns("__pycache__", ".*_cache", ".hypothesis")
_LEFT_OUT_AT_THE_TOP = shutil.ignore_patterns(".git", ".venv*", "build", "demo", "runs", "shared")
_PASSED, _FAILED = 0, 1  # pytest's exit codes; any other says that no test was run
_LIMIT_S = 600


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="WORD", help="mutations whose name or file holds WORD")
    parser.add_argument("--jobs", type=int, default=2, help="copies of the tree at work at the same time")
    arguments = parser.parse_args()
    chosen = [mutation for mutation in MUTATIONS if arguments.only in f"{mutation.name} {mutation.file}"]
    gone = [mutation for mutation in chosen if (_ROOT / mutation.file).read_text(encoding="utf-8").count(mutation.old) != 1]
    for mutation in gone:
        print(f"gone      {mutation.name}: its text does not stand exactly once in {mutation.file}")
    with _copies(arguments.jobs) as copies, ThreadPoolExecutor(arguments.jobs) as pool:
        unchanged = _run(copies, sorted({test for mutation in chosen for test in mutation.tests}))
        if unchanged != _PASSED:
            print("the tests do not pass on the unchanged tree, so they prove nothing")
            return 1
        outcomes = list(pool.map(lambda mutation: _outcome(copies, mutation), [each for each in chosen if each not in gone]))
    print(f"{outcomes.count('killed')} killed, {len(outcomes) - outcomes.count('killed')} survived, {len(gone)} gone")
    return 0 if set(outcomes) <= {"killed"} and not gone else 1


@contextmanager
def _copies(count: int) -> Iterator[queue.Queue[Path]]:
    """So many copies of the tree, to be taken and put back."""
    free: queue.Queue[Path] = queue.Queue()
    with tempfile.TemporaryDirectory(prefix="reid-ray-mutations-") as folder:
        for number in range(count):
            shutil.copytree(_ROOT, Path(folder, str(number)), ignore=_left_out, symlinks=True)
            free.put(Path(folder, str(number)))
        yield free


def _left_out(folder: str, names: list[str]) -> set[str]:
    return _LEFT_OUT(folder, names) | (_LEFT_OUT_AT_THE_TOP(folder, names) if Path(folder) == _ROOT else set())


def _outcome(copies: queue.Queue[Path], mutation: Mutation) -> str:
    started = time.monotonic()
    code = _run(copies, mutation.tests, mutation)
    # A negative code is a signal: the mutation has ended the process of its tests.
    outcome = "killed" if code < 0 else {_PASSED: "survived", _FAILED: "killed"}.get(code, f"no test was run (pytest {code})")
    print(f"{outcome:9} {mutation.name} ({mutation.file}, {time.monotonic() - started:.0f} s)", flush=True)
    return outcome


def _run(copies: queue.Queue[Path], tests: Sequence[str], mutation: Mutation | None = None) -> int:
    """pytest's exit code in a copy in which `mutation` is made; a test that no longer ends has failed."""
    copy = copies.get()
    file = copy / mutation.file if mutation else None
    text = file.read_text(encoding="utf-8") if file else ""
    try:
        if mutation and file:
            file.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
        # Compiled files of the text before would pass for those of the new one if both were written within a second.
        environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
        shown = None if mutation is None else subprocess.DEVNULL
        return subprocess.run(command, cwd=copy, env=environment, stdout=shown, stderr=shown, timeout=_LIMIT_S, check=False).returncode
    except subprocess.TimeoutExpired:
        return _FAILED
    finally:
        if file:
            file.write_text(text, encoding="utf-8")
        copies.put(copy)


if __name__ == "__main__":
    sys.exit(main())
