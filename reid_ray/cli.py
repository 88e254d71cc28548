"""The command line that every job shares: --config FILE and section.key=value, then the job's run function.

How it ends, and with which exit code, is for reid_ray.exit_codes.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from reid_ray.config.base import Section, load_config
from reid_ray.config.paths import named_places
from reid_ray.exit_codes import ended
from reid_ray.terminal.quiet import quiet_terminal

ConfigT = TypeVar("ConfigT", bound=Section)


def run_job(description: str, model: type[ConfigT], run: Callable[[ConfigT], Any], argv: Sequence[str] | None = None) -> int:
    """Parse the command line, load the job's configuration and run it. Returns the exit code."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", metavar="FILE", help="YAML file; jobs/configs/ holds one for each setting")
    parser.add_argument(
        "overrides", nargs="*", metavar="section.key=value", help="replaces a value of the file; see jobs/configs/REFERENCE.md"
    )
    arguments = parser.parse_args(argv)
    loaded: list[ConfigT] = []

    def work() -> None:
        loaded.append(load_config(model, arguments.config, arguments.overrides))
        run(loaded[0])

    with quiet_terminal(model.__name__.removesuffix("Job").lower()):
        return ended(work, place=lambda: output_of(loaded[0]) if loaded else None, theirs=lambda: files_of(loaded[0]) if loaded else ())


def output_of(config: Section) -> str | None:
    """Where a job writes, as messages call it; None for one that writes nothing."""
    output = getattr(config, "output", None)
    return None if output is None else f"output.path {output.path}"


def files_of(config: Section) -> list[str]:
    """What the names of a job's files begin with: every place of its configuration, and what is hidden beside one."""
    places = [os.path.abspath(place) for place in named_places(config).values()]
    return [*places, *(os.path.join(os.path.dirname(place), f".{os.path.basename(place)}.") for place in places)]
