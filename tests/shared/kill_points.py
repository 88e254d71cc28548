"""Runs one action again and again in child processes, each killed before another file-system call of its commit, until one survives.

Run as a program it is the parent of these children, fresh and without threads: `python kill_points.py MODULE FUNCTION FOLDER JSON EVERY`.
"""

import functools
import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

CALLS = {
    "open",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.mkdir",
    "os.link",
    "os.truncate",
    "os.utime",
    "reid_ray.fsync",
    "reid_ray.exchange",
}


def outcomes(module, function, folder, *, every=1, **arguments):
    """For each kill point: what the module's function `after` returns about the folder once the child is dead; the last child survived.

    `function(folder, **arguments)` is the action; `before(folder)` of the module makes the folder for each child anew. Calls are counted
    from the first commit on, or from the start of the action where the module says COUNT_FROM_START. `every` looks at one in so many.
    """
    command = [sys.executable, __file__, module, function, str(folder), json.dumps(arguments), str(every)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def _killed_at(point, action, *, from_start):
    """Run `action` in a child that dies before its call number `point` after a commit began; True if it died."""
    child = os.fork()
    if child == 0:
        count = [0 if from_start else None]

        def hook(event, arguments):
            if event == "reid_ray.commit" and count[0] is None:
                count[0] = 0
            elif count[0] is not None and event in CALLS:
                count[0] += 1
                if count[0] == point:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        status = 1
        try:
            action()
            status = 0
        finally:
            sys.stdout.flush()
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, "the action failed"
    return False


def main():
    module_name, function, root, arguments, every = sys.argv[1:]
    sys.path.insert(0, str(Path(__file__).parent))
    module, arguments = importlib.import_module(module_name), json.loads(arguments)
    for point in range(1, 10_000, int(every)):
        folder = Path(root) / str(point)
        folder.mkdir()
        module.before(folder, **arguments)
        action = functools.partial(getattr(module, function), folder, **arguments)
        died = _killed_at(point, action, from_start=getattr(module, "COUNT_FROM_START", False))
        print(json.dumps({"point": point, "died": died, **module.after(folder, **arguments)}), flush=True)
        if not died:
            return


if __name__ == "__main__":
    main()
