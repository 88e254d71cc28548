"""A terminal that shows a job's own lines and nothing else, for the time of a block: the rest goes to a log file.

Libraries write to the descriptors 1 and 2 in many ways: Python's logging and warnings, print, C++ that knows no Python, processes that
inherit them. All of it is caught at the one place that all of them share, the descriptors. Only a command line does this (cli/);
importing or calling a job from Python leaves the streams as they are.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import os
import sys
import traceback
from collections.abc import Iterator

from reid_ray.exit_codes import FAULT
from reid_ray.terminal.log_file import SHOW, VARIABLE, LogFile, log_folder, open_log
from reid_ray.terminal.own_lines import OwnStream, are_kept_apart, kept_apart, say, standard_error

HELP = f"What libraries print goes to a log, which the last line names; {VARIABLE}={SHOW} shows it here."


@contextlib.contextmanager
def quiet_terminal(job: str) -> Iterator[None]:
    """Inside, only what goes through own_lines reaches standard output and standard error; the last line names the log, if there is one.

    Nothing changes where the streams are not Python's own (a test that captures them), inside another quiet_terminal, and with
    REID_RAY_LOGS=show. Where no log can be written, a sentence says so and everything is shown.

    Args:
        job: names the log file.

    Raises:
        SystemExit: for an exception that the block lets through: its traceback is on standard error already, before the last line.
    """
    _occupy_closed()
    if are_kept_apart() or os.environ.get(VARIABLE) == SHOW or not _streams_are_pythons_own():
        yield
        return
    try:
        log = open_log(job)
    except (OSError, RuntimeError) as error:
        why = error.strerror or type(error).__name__ if isinstance(error, OSError) else str(error)
        print(
            f"{_folder_in_words()}: no log can be kept there ({why}), so what libraries print is shown here; {_REMEDY}",
            file=standard_error(),
        )
        yield
        return
    failed = False
    with contextlib.ExitStack() as stack:
        stack.enter_context(_diverted(log))
        try:
            yield
        except Exception:  # noqa: BLE001 - a fault of the program is told as Python would tell it, but before the last line
            failed = True
            traceback.print_exc(file=standard_error())
    said = log.sentence()
    if said is not None:
        with contextlib.suppress(OSError):  # nobody reads any more: the job has said so already
            say(said)
    if failed:
        raise SystemExit(FAULT)


_REMEDY = f"set {VARIABLE} to a folder that can be written to, or to {SHOW} for this alone"


def _streams_are_pythons_own() -> bool:
    for stream, original, descriptor in ((sys.stdout, sys.__stdout__, 1), (sys.stderr, sys.__stderr__, 2)):
        if stream is not original or (original is not None and original.fileno() != descriptor):
            return False
    return True


def _occupy_closed() -> None:
    """A standard descriptor that is closed would be the next file's, and what is printed would end in that."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest that is free


def _folder_in_words() -> str:
    try:
        return str(log_folder())
    except RuntimeError:
        return "the folder for logs"


@contextlib.contextmanager
def _diverted(log: LogFile) -> Iterator[None]:
    """Descriptors 1 and 2 lead to the log, here and in processes that are started inside; own_lines leads where they led before.

    When the process itself ends they lead to the log once more: libraries have last words too.
    """
    output, error = (
        OwnStream(os.dup(descriptor), "utf-8" if stream is None else stream.encoding)
        for descriptor, stream in ((1, sys.stdout), (2, sys.stderr))
    )
    if not faulthandler.is_enabled():
        faulthandler.enable(error.fileno(), all_threads=False)  # a crash of the process is no library's chatter
    _lead(log.pipe, log.pipe)
    try:
        with kept_apart(output, error):
            yield
    finally:
        _lead(output.fileno(), error.fileno())
        atexit.register(_lead, log.pipe, log.pipe)


def _lead(output: int, error: int) -> None:
    """What has been printed is written, and what comes goes to these descriptors."""
    for stream, descriptor, to in ((sys.stdout, 1, output), (sys.stderr, 2, error)):
        with contextlib.suppress(OSError, ValueError):
            if stream is not None:  # closed when the process started
                stream.flush()
        os.dup2(to, descriptor)
