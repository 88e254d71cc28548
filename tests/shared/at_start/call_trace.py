"""Which files of reid_ray a program calls into, in which order: put this folder on PYTHONPATH and name a file in REID_RAY_CALL_TRACE.

sitecustomize.py imports this module when Python starts, so that Ray's worker processes, which inherit both variables, are traced too. Every
function of reid_ray is given one statement more as its module is loaded; what runs while a module is being imported is not counted.
Compiled kernels (numba) are left as they are. A line of the trace is a JSON list: nanoseconds of the machine's monotonic clock, driver,
task or actor, the id of the latter two, the thread, the file within reid_ray, the function. The clock tells in which order one thread
made its calls, and nothing of two threads or processes.
"""

import ast
import json
import marshal
import os
import sys
import threading
import time
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader

TRACE = os.environ["REID_RAY_CALL_TRACE"]
_seen = set()
_local = threading.local()


def called(file, function):
    """Note the first call into `file` of a driver's job, of each task and of each actor."""
    if getattr(_local, "importing", 0):
        return
    where = _where()
    if where is not None and (where, file) not in _seen:
        _seen.add((where, file))
        _write([time.monotonic_ns(), *where, threading.get_ident(), file, function])


def begin(job):
    """A driver's next job: what it calls into is noted anew."""
    _seen.clear()
    _write([time.monotonic_ns(), "begin", None, None, job, None])


def _where():
    """("driver" | "task" | "actor", which of them); None in a worker before it joins its Ray, or after, when threads may go on."""
    ray = sys.modules.get("ray._private.worker")
    if ray is None or ray.global_worker.mode != ray.WORKER_MODE:
        return None if any(word.endswith("/default_worker.py") for word in sys.orig_argv) else ("driver", None)
    actor = ray.global_worker.actor_id
    return ("task", ray.global_worker.current_task_id.hex()) if actor.is_nil() else ("actor", actor.hex())


def _write(values):
    handle = os.open(TRACE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(handle, (json.dumps(values) + "\n").encode())
    os.close(handle)


class _Loader(SourceFileLoader):
    def get_code(self, fullname):
        """The module's code with the statements: made by whichever process is first, kept beside the trace for the others."""
        kept = f"{TRACE}.{fullname}.code"
        try:
            with open(kept, "rb") as file:
                return marshal.load(file)
        except FileNotFoundError:
            code = self.source_to_code(self.get_data(self.path), self.path)
        own = f"{kept}.{os.getpid()}"
        with open(own, "wb") as file:
            marshal.dump(code, file)
        os.replace(own, kept)
        return code

    def source_to_code(self, data, path, *, _optimize=-1):
        tree = ast.parse(data, path)
        file = path.rpartition("/reid_ray/")[2]
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not any(
                "njit" in ast.unparse(each) for each in node.decorator_list
            ):
                first = 1 if ast.get_docstring(node, clean=False) is not None else 0
                note = ast.parse(f"__import__('sys').modules['call_trace'].called({file!r}, {node.name!r})").body[0]
                for part in ast.walk(note):
                    if hasattr(part, "lineno"):
                        part.lineno = part.end_lineno = node.lineno
                node.body.insert(first, note)
        return super().source_to_code(ast.fix_missing_locations(tree), path)

    def exec_module(self, module):
        _local.importing = getattr(_local, "importing", 0) + 1
        try:
            super().exec_module(module)
        finally:
            _local.importing -= 1


class _Finder(MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None) -> ModuleSpec | None:
        if fullname.partition(".")[0] != "reid_ray" or fullname.endswith("_kernels"):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(fullname, spec.loader.path)
        return spec


sys.meta_path.insert(0, _Finder())
