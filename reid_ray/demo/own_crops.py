"""The demo's command line: its own configuration unless another is named; with a folder of the user's crops it is the search job.

Nothing that is said of drawn people stands beside her pictures: they are searched, and she asks.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from reid_ray.cli.run_job import REHEARSAL, run_job, run_named, run_prepared
from reid_ray.config.shipped import RULE
from reid_ray.demo.config import DemoJob
from reid_ray.jobs import JOBS
from reid_ray.terminal.quiet import HELP

CONFIG = "demo.yaml"


def main(argv: Sequence[str] | None, called: str) -> int:
    """Run the demo by a command line; `called` is what was typed before it. Returns the exit code."""
    job = JOBS["demo"]
    description = job.usage(called)
    parser = argparse.ArgumentParser(
        prog=called, description=description, epilog=HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", metavar="DIR", help="search your own crops instead, as `reid-ray search DIR` does")
    parser.add_argument("--keep-serving", action="store_true", help="leave the service up until Ctrl-C, as it is with --images")
    parser.add_argument("--config", metavar="FILE", help=f"YAML: {RULE}; default: {CONFIG}")
    parser.add_argument("--rehearse", action="store_true", help=REHEARSAL)
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="replaces a value of the file")
    arguments = parser.parse_intermixed_args(argv)
    rehearsal = ["--rehearse"] if arguments.rehearse else []
    if arguments.images:
        config = ["--config", arguments.config] if arguments.config else []
        return run_named("search", [arguments.images, *arguments.overrides, *config, *rehearsal], called=called)
    overrides = [*arguments.overrides, *(["keep_serving=true"] if arguments.keep_serving else [])]
    return run_job(
        description,
        DemoJob,
        lambda config: run_prepared("demo", job, config),
        ["--config", arguments.config or CONFIG, *overrides, *rehearsal],
        called=called,
    )
