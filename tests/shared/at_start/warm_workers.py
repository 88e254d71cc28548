"""Ray's workers as forks of a process that has imported torch or vLLM already, which costs three to eight seconds of CPU.

A process that is about to become a Ray worker hands its command, variables and streams to a process of imports, waits for the fork, and
ends as that ends; if it is killed itself, the fork is killed too. There is one process of imports for each set of variables and paths
with which workers are started, so that what a package reads from them as it is imported is what it would read in the worker. Nothing of
reid_ray is imported there, nor Ray: its library draws the ids of objects from a generator whose state forks would share, and two
workers would give two objects one name; and as it is loaded it reads which raylet it belongs to. REID_RAY_WARM_WORKERS names a file that
says what is imported, and with which process all end; without it, workers start as Ray starts them. Forks share the seed of the hashes of
strings, and workers do not: the tests of tests/e2e go without.
"""

import json
import os
import sys
from array import array

VARIABLE = "REID_RAY_WARM_WORKERS"
TRACE = "REID_RAY_CALL_TRACE"  # concerns reid_ray alone (call_trace.py), of which nothing is imported before a fork
# Variables that tell one process from another, and which no package reads as it is imported.
OF_ONE_PROCESS = ("PYTEST_", "RAY_RAYLET_PID", "RAY_JOB_ID", "RAY_TRAIN_", "RAY_WARN_BLOCKING_GET_INSIDE_ASYNC", TRACE)
PATIENCE_S = 50.0  # Ray gives a worker a minute


def become_fork(command: list[str], variables: dict[str, str]) -> None:
    """Be a worker of this command, or return where there is nobody to fork."""
    if not (file := variables.get(VARIABLE)):
        return
    import socket
    from hashlib import sha256

    kept = sorted((name, value) for name, value in variables.items() if not name.startswith(OF_ONE_PROCESS))
    place = os.path.join(os.path.dirname(file), sha256(json.dumps([kept, sys.path, command[0]]).encode()).hexdigest()[:16])
    with socket.socket(socket.AF_UNIX) as connection:
        if not _connect(connection, place, [command[0], __file__, file, place], variables):
            variables[VARIABLE] = ""
            return
        asked = json.dumps({"command": command, "variables": variables, "folder": os.getcwd(), "path": sys.path}).encode()
        streams = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [0, 1, 2]).tobytes())
        connection.sendmsg([len(asked).to_bytes(4, "big")], [streams])
        connection.sendall(asked)
        said = connection.recv(4)
    os._exit(int.from_bytes(said, "big") if said else 1)


def _connect(connection, place: str, command: list[str], variables: dict[str, str]) -> bool:
    """Connect to the process of imports, which the first that asks starts; False if it is not there in time."""
    import fcntl
    import subprocess
    import time

    def connected() -> bool:
        try:
            connection.connect(place)
        except OSError:
            return False
        return True

    if connected():
        return True
    started = None
    with open(f"{place}.lock", "w") as lock:
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end and (started is None or started.poll() is None):
            if connected():
                return True
            if started is None:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    pass  # another has started it
                else:
                    with open(f"{place}.log", "ab") as log:  # the lock stays with the process that is started
                        options = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, "start_new_session": True}
                        untraced = {name: value for name, value in variables.items() if name != TRACE}
                        started = subprocess.Popen(command, env=untraced, pass_fds=[lock.fileno()], **options)
            time.sleep(0.02)
    return False


def serve(file: str, place: str) -> None:
    """Import, then fork for each that asks, until the owner is gone."""
    import gc
    import importlib
    import select
    import socket

    with open(file) as said:
        settings = json.load(said)
    owner, which = settings["owner"], "engine" if "VLLM_LOGGING_LEVEL" in os.environ else "worker"
    os.environ.update(settings["variables"][which])
    sys.modules["ray"] = None  # who would import it, as vLLM does, finds that it is not there
    for name in settings["imports"][which]:
        importlib.import_module(name)
    del sys.modules["ray"]
    gc.collect()
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{place}.new")
        listener.listen(64)
        os.rename(f"{place}.new", place)
        waiting = select.poll()
        waiting.register(listener, select.POLLIN)
        ends: dict[
            int, tuple[socket.socket, int]
        ] = {}  # of a fork's pidfd and of its asker's connection: that connection, and the fork's id
        while _lives(owner):
            for ready, _ in waiting.poll(1000):
                if ready == listener.fileno():
                    connection, _ = listener.accept()
                    if (process := _fork(connection, [listener, *{own for own, _ in ends.values()}])) is not None:
                        for file in (connection.fileno(), os.pidfd_open(process)):
                            ends[file] = connection, process
                            waiting.register(file, select.POLLIN)
                elif ready in ends:
                    _end(ready, ends, waiting)


def _lives(process: int) -> bool:
    return os.path.exists(f"/proc/{process}")


def _end(ready: int, ends: dict, waiting) -> None:
    """A fork has ended, or whoever waits for it: then it is killed."""
    import contextlib
    import signal

    connection, process = ends[ready]
    if ready == connection.fileno():
        os.kill(process, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    for file in [file for file, (_, each) in ends.items() if each == process]:
        waiting.unregister(file)
        del ends[file]
        if file != connection.fileno():
            os.close(file)
    with contextlib.suppress(OSError):  # nobody waits
        connection.sendall((code % 256).to_bytes(4, "big"))
    connection.close()


def _fork(connection, others) -> int | None:
    """The id of a fork that does what is asked; None if nobody asks after all."""
    import socket

    try:
        head, streams, _, _ = socket.recv_fds(connection, 4, 3)
        asked = b""
        while len(asked) < int.from_bytes(head, "big"):
            piece = connection.recv(1 << 16)
            if not piece:
                raise ConnectionError
            asked += piece
    except OSError:
        connection.close()
        return None
    if process := os.fork():
        for stream in streams:
            os.close(stream)
        return process
    for each in (connection, *others):
        each.close()
    _to_the_end(_work, streams, **json.loads(asked))


def _work(streams: list[int], *, command: list[str], variables: dict[str, str], folder: str, path: list[str]) -> None:
    """What a Python process of the command would do."""
    import runpy

    os.setpgid(0, 0)  # Ray ends a worker's whole group
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    sys.orig_argv, sys.argv = command, command[1:]
    sys.path[:] = [os.path.dirname(command[1]), *path]
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()
    if variables.get(TRACE):
        import call_trace  # noqa: F401 - it lies beside this file
    runpy.run_path(command[1], run_name="__main__")


def _to_the_end(work, *values, **named) -> None:
    """Work, then end as a Python process does, but for taking down its modules: a second of CPU where vLLM is among them."""
    import atexit
    import gc
    import threading
    import traceback

    code = None
    try:
        work(*values, **named)
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001 - which would else go on in the process of imports' loop
        traceback.print_exc()
        code = 1
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()
    gc.freeze()  # an engine that goes has Python look for garbage, among a million objects of vLLM's modules: half a second
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit((code or 0) & 0xFF)


if __name__ == "__main__":
    serve(*sys.argv[1:])
