"""The command line that every job shares: --config FILE and section.key=value, then the job's run function.

A job's engines are imported once its configuration is read, so that --help and a mistyped key answer at once. How it ends, and with
which exit code, is for reid_ray.exit_codes; what must be installed is for reid_ray.setup.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from reid_ray.cli.job_config import job_config
from reid_ray.config.base import Section
from reid_ray.config.paths import named_places
from reid_ray.config.shipped import RULE
from reid_ray.exit_codes import exit_code_of
from reid_ray.jobs import JOBS, Job, named
from reid_ray.setup.requirements import require_engines
from reid_ray.terminal.quiet import HELP, quiet_terminal

ConfigT = TypeVar("ConfigT", bound=Section)

REHEARSAL = "run it small, from the published layouts to a score: tiny models, few people, a few steps; nothing here is written to"


def run_named(name: str, argv: Sequence[str] | None = None, *, called: str | None = None) -> int:
    """Run the job of this name by a command line. Returns the exit code.

    Args:
        name: one of JOBS.
        argv: the command line after the job's name; null takes the process's own.
        called: what was typed to call the job, for its --help; null is its script in a checkout.
    """
    job, called = JOBS[name], called or f"python jobs/{name}.py"
    if job.command is not None:
        return int(named(job.command)(argv, called))
    return run_job(job.usage(called), named(job.config), lambda config: run_prepared(name, job, config), argv, called=called)


def run_prepared(name: str, job: Job, config: Section) -> Any:
    """Import what the job runs on and run it.

    Raises:
        ResourceError: its engines are not installed or not set up; it names the remedy.
    """
    require_engines(name, job.engines)
    return named(job.run)(config)


def run_job(
    description: str,
    model: type[ConfigT],
    run: Callable[[ConfigT], Any],
    argv: Sequence[str] | None = None,
    *,
    called: str | None = None,
) -> int:
    """Parse the command line, load the job's configuration and run it. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog=called, description=description, epilog=HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", metavar="FILE", help=f"YAML: {RULE}")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="section.key=value",
        help="replaces a value of the file; REFERENCE.md beside the shipped ones lists all keys",
    )
    parser.add_argument("--rehearse", action="store_true", help=REHEARSAL)
    arguments = parser.parse_intermixed_args(argv)
    loaded: list[ConfigT] = []

    def work() -> None:
        loaded.append(job_config(model, arguments.config, arguments.overrides))
        run(loaded[0])

    if arguments.rehearse:
        return rehearse_command(model, arguments.config, arguments.overrides)
    with quiet_terminal(model.__name__.removesuffix("Job").lower()):
        return exit_code_of(
            work, place=lambda: output_of(loaded[0]) if loaded else None, user_paths=lambda: files_of(loaded[0]) if loaded else ()
        )


def rehearse_command(model: type[Section], config: str | None, overrides: Sequence[str]) -> int:
    """Rehearse what a command line asks for, in a scratch folder. Returns the exit code."""

    def work() -> None:
        job_config(model, config, overrides)  # what is mistyped is told as without the rehearsal
        job = next(name for name in JOBS if JOBS[name].config == f"{model.__module__}:{model.__name__}")
        command = named("reid_ray.rehearse.chain:typed_command")(job, config, overrides)
        named("reid_ray.rehearse.job:rehearse")([command])

    with quiet_terminal("rehearse"):
        return exit_code_of(work)


def output_of(config: Section) -> str | None:
    """Where a job writes, as messages call it; None for one that writes nothing."""
    output = getattr(config, "output", None)
    return None if output is None else f"output.path {output.path}"


def files_of(config: Section) -> list[str]:
    """What the names of a job's files begin with: every place of its configuration, and what is hidden beside one."""
    places = [os.path.abspath(place) for place in named_places(config).values()]
    return [*places, *(os.path.join(os.path.dirname(place), f".{os.path.basename(place)}.") for place in places)]
