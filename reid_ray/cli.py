"""The command line that every job shares: --config FILE and section.key=value, then the job's run function.

Errors that a user can mend are printed in one sentence and end with exit code 2; anything else keeps its traceback and ends with 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from reid_ray.config.base import Section, load_config
from reid_ray.errors import ReidRayError

ConfigT = TypeVar("ConfigT", bound=Section)


def run_job(description: str, model: type[ConfigT], run: Callable[[ConfigT], Any], argv: Sequence[str] | None = None) -> int:
    """Parse the command line, load the job's configuration and run it. Returns the exit code."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", metavar="FILE", help="YAML file; jobs/configs/ holds one for each setting")
    parser.add_argument(
        "overrides", nargs="*", metavar="section.key=value", help="replaces a value of the file; see jobs/configs/REFERENCE.md"
    )
    arguments = parser.parse_args(argv)
    try:
        run(load_config(model, arguments.config, arguments.overrides))
    except ReidRayError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
