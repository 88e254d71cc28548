"""Exit codes and signal handling of jobs: error messages, and unwinding (clean-up) on every signal. The table is docs/exit_codes.md.

0: done. 2: something a user can mend, in one sentence. 1: a fault of the program, with its traceback. 130, 143, 129: Ctrl-C, SIGTERM and
a closed terminal, all of which unwind the job like an error, so that what it has not finished is removed. Knows signals and exit codes;
not jobs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

from reid_ray.redaction import without_secrets
from reid_ray.system_errors import sentence_of
from reid_ray.terminal.own_lines import standard_error, standard_output

DONE, FAULT, MENDABLE = 0, 1, 2
_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "the end of its terminal"}


class StoppedError(KeyboardInterrupt):
    """A signal asked the job to stop; a KeyboardInterrupt, so that every library lets it pass as it does Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def exit_code_of(
    work: Callable[[], Any], *, place: Callable[[], str | None] = lambda: None, user_paths: Callable[[], Sequence[str]] = lambda: ()
) -> int:
    """Do a job's work and return its exit code, with what went wrong on standard error.

    Args:
        work: the job.
        place: where it writes, once that is known; for an error that names no file.
        user_paths: what the names of the user's files begin with, once they are known; see system_errors.sentence_of.

    Raises:
        Exception: what no user can mend.
    """
    try:
        with stop_signals():
            work()
            standard_output().flush()
    except KeyboardInterrupt as error:
        number = error.number if isinstance(error, StoppedError) else signal.SIGINT
        _say(f"stopped by {_NAMES[signal.Signals(number)]}; results that were finished stay as they are")
        return 128 + number
    except Exception as error:
        sentence = sentence_of(error, place=place(), user_paths=user_paths())
        if sentence is None:
            raise
        _say(f"error: {sentence}")
        return MENDABLE
    return DONE


@contextlib.contextmanager
def stop_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP raise StoppedError in the main thread, as Ctrl-C raises KeyboardInterrupt; a second one ends the process at once.

    One that is ignored (nohup) stays ignored, and a process that was forked off keeps the system's own handling.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def stop(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        if os.getpid() != owner:
            os.kill(os.getpid(), number)
        raise StoppedError(number)

    numbers = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) == signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def kept_signals() -> Iterator[None]:
    """What handles SIGTERM stays as it is, whatever a library inside sets (ray.init takes it for itself)."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGTERM, before)


def _say(words: str) -> None:
    """Print to standard error; a standard output that nobody reads any more is let go, or Python would complain at exit."""
    with contextlib.suppress(OSError, ValueError):
        print(without_secrets(words), file=standard_error(), flush=True)
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
