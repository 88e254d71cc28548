"""One arm of a benchmark in a process of its own: a worker's arguments go in as JSON, its result or its complaint comes out.

Knows processes and JSON; not what is measured.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_WORKER = "--worker"

Worker = Callable[..., dict[str, Any]]


def run_worker(script: str, name: str, *, timeout_s: float = 3600, **arguments: Any) -> dict[str, Any]:
    """What the script's worker `name` returns for these JSON-able arguments, or {"error": what it complained of}."""
    command = [sys.executable, str(Path(script).resolve()), _WORKER, name, json.dumps(arguments)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {timeout_s:g} s"}
    if done.returncode:
        return {"error": complaint(done.stderr)}
    # Ray's processes may write to the same stream after the worker's own last line.
    last = next((line for line in reversed(done.stdout.splitlines()) if line.startswith("{")), None)
    return {"error": f"no result in {done.stdout[-300:]!r}"} if last is None else dict(json.loads(last))


def serve_worker(workers: Mapping[str, Worker]) -> bool:
    """In a script's main: whether this process is one that run_worker started; its result has then been printed."""
    if sys.argv[1:2] != [_WORKER]:
        return False
    name, arguments = sys.argv[2:]
    result = workers[name](**json.loads(arguments))
    print("\n" + json.dumps(result), flush=True)
    return True


def complaint(log: str) -> str:
    """The line of a traceback that names the first exception, and the last line but warnings."""
    lines = [line.strip() for line in log.splitlines() if line.strip() and "warn" not in line]
    named = [line for line in lines if "Error: " in line and not line.startswith("(")]
    return " | ".join(dict.fromkeys([*named[:1], *lines[-1:]]))[:600]
