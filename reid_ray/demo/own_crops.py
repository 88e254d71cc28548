"""The demo's command line: its own configuration unless another is named, and a folder of the user's crops in one option."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from reid_ray.cli.run_job import REHEARSAL, run_job, run_prepared
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
    parser.add_argument("--images", metavar="DIR", help="search your own crops: any folder of pictures")
    parser.add_argument("--keep-serving", action="store_true", help="leave the service up until Ctrl-C")
    parser.add_argument("--config", metavar="FILE", default=CONFIG, help=f"YAML: {RULE}; default: {CONFIG}")
    parser.add_argument("--rehearse", action="store_true", help=REHEARSAL)
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="replaces a value of the file")
    arguments = parser.parse_args(argv)
    overrides = list(arguments.overrides)
    if arguments.keep_serving:
        overrides.append("keep_serving=true")
    if arguments.images:
        overrides += search_own_crops(arguments.images)
    return run_job(
        description,
        DemoJob,
        lambda config: run_prepared("demo", job, config),
        ["--config", arguments.config, *overrides, *(["--rehearse"] if arguments.rehearse else [])],
        called=called,
    )


def search_own_crops(folder: str) -> list[str]:
    """Overrides that caption, index and serve `folder` in place of the synthetic test set."""
    images = {"source": "folder", "path": folder}
    changes: dict[str, Any] = {
        "own_caption": {"images": images, "output": {"path": "demo/own_captions", "if_exists": "replace"}},
        "index.images": images,
        "index.output": {"path": "demo/own_index", "if_exists": "replace"},
        "serve.index": "demo/own_index",
    }
    return [f"{key}={json.dumps(value)}" for key, value in changes.items()]
