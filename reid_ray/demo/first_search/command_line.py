"""The search job's command line: a folder of crops, and an encoder and a place where wanted."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from reid_ray.cli.run_job import REHEARSAL, run_job, run_prepared
from reid_ray.config.shipped import RULE
from reid_ray.demo.first_search.config import SearchJob
from reid_ray.jobs import JOBS
from reid_ray.terminal.quiet import HELP

CONFIG = "search.yaml"


def main(argv: Sequence[str] | None, called: str) -> int:
    """Run the job by a command line; `called` is what was typed before it. Returns the exit code."""
    job = JOBS["search"]
    description = job.usage(called)
    arguments = parsed(argv, description, called)
    folder, overrides = split_words(arguments.words)
    overrides = [*changes_of(folder, arguments.encoder, arguments.out), *overrides]
    return run_job(
        description,
        SearchJob,
        lambda config: run_prepared("search", job, config),
        ["--config", arguments.config, *overrides, *(["--rehearse"] if arguments.rehearse else [])],
        called=called,
    )


def parsed(argv: Sequence[str] | None, description: str, called: str) -> argparse.Namespace:
    """The parts of a command line, whose options and words come in any order."""
    parser = argparse.ArgumentParser(
        prog=called, description=description, epilog=HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", metavar="FOLDER", help="a folder of pictures, searched recursively; then section.key=value ...")
    parser.add_argument("--encoder", metavar="NAME", help="model/ folder of a training, a hub name, or builtin:tiny-encoder (the default)")
    parser.add_argument("--out", metavar="DIR", help="folder of the gallery; default: runs/search")
    parser.add_argument("--config", metavar="FILE", default=CONFIG, help=f"YAML: {RULE}; default: {CONFIG}")
    parser.add_argument("--rehearse", action="store_true", help=REHEARSAL)
    return parser.parse_intermixed_args(argv)


def split_words(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """(the folder, if one is named, overrides): the first word is a folder if it has no = in it, or is one all the same."""
    if words and ("=" not in words[0] or Path(words[0]).is_dir()):
        return words[0], list(words[1:])
    return None, list(words)


def changes_of(folder: str | None, encoder: str | None, out: str | None) -> list[str]:
    """Overrides that search `folder` with `encoder`, the gallery at `out`; None leaves what the configuration says."""
    changes = {
        "index.images": None if folder is None else {"source": "folder", "path": folder},
        "index.encoder": encoder,
        "index.output.path": out,
        "serve.index": out,
    }
    return [f"{key}={json.dumps(value)}" for key, value in changes.items() if value is not None]
