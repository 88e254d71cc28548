"""Ray's workers start without one import of Ray that serves nobody.

Ray starts a worker that has variables of its own, as those of engines and of Ray Train have, by setup_worker.py, which imports Ray, a
third of a second of CPU, sets the variables and becomes default_worker.py, which imports Ray again. A process that is about to run
setup_worker.py does the same here, at once. Where it is asked for more, a command before the worker's say, Ray's own script does it.
tests/repo/test_at_start.py compares the two.
"""

import json
import os
import sys

from warm_workers import become_fork

CONTEXT, LANGUAGE = "--serialized-runtime-env-context=", "--language="


def become_worker(script: str, *words: str) -> None:
    """Become the worker that setup_worker.py would become, or return to let it."""
    read = {mark: [word.removeprefix(mark) for word in words if word.startswith(mark)] for mark in (CONTEXT, LANGUAGE)}
    if read[LANGUAGE] != ["PYTHON"] or len(read[CONTEXT]) > 1:
        return
    context = {name: value for name, value in json.loads((read[CONTEXT] or ["{}"])[0]).items() if value}
    variables, python = context.pop("env_vars", {}), context.pop("py_executable", sys.executable)
    if context or any("$" in value for value in variables.values()):
        return
    left = [word for word in words if not word.startswith((CONTEXT, LANGUAGE))]
    command, environment = [python, *left], {**os.environ, **variables}
    become_fork(command, environment)
    os.execve(python, command, environment)
