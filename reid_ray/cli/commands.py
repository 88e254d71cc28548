"""The commands of `reid-ray` that are no jobs: setup, configs, constraints."""

from __future__ import annotations

import argparse
import difflib
import itertools
import os
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

from reid_ray.cli.job_config import did_you_mean, near_configs
from reid_ray.config.shipped import configs_folder, shipped_configs
from reid_ray.errors import ConfigError
from reid_ray.exit_codes import exit_code_of
from reid_ray.jobs import named
from reid_ray.setup.pins import STACKS, constraints_file
from reid_ray.terminal.own_lines import say
from reid_ray.terminal.quiet import quiet_terminal

_WIDTH = 100  # characters of a configuration's purpose
_SENTENCE_END = re.compile(r"(?<!\bal)(?<!\be\.g)(?<!\bi\.e)\. ")  # not the stop of an abbreviation


def setup_command(argv: Sequence[str]) -> int:
    """Prepare this environment. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="reid-ray setup", description="Prepare this environment once, after pip has installed the engines."
    )
    parser.parse_args(argv)

    def work() -> None:
        from reid_ray.setup.preparation import set_up

        set_up()

    with quiet_terminal("setup"):
        return exit_code_of(work)


def constraints_command(argv: Sequence[str]) -> int:
    """Print the path of a file of pinned versions. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="reid-ray constraints",
        description='Print where the pinned versions lie: pip install "reid-ray[cpu]" -c "$(reid-ray constraints cpu)"',
    )
    parser.add_argument("stack", choices=STACKS, help="the extra that is installed with them")
    arguments = parser.parse_args(argv)
    return exit_code_of(lambda: say(str(constraints_file(arguments.stack))))


def rehearse_command(argv: Sequence[str]) -> int:
    """Rehearse shipped configurations, all of them unless some are named. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="reid-ray rehearse",
        description="Run shipped configurations small, each after those whose outputs it reads, with a table of verdicts. "
        "A configuration of yours: reid-ray JOB --config FILE --rehearse.",
    )
    parser.add_argument("names", metavar="NAME", nargs="*", help="such as train.yaml or train/train.yaml; all if none is given")
    parser.add_argument("--report", metavar="FILE", type=Path, help="write the table as JSON, too")
    arguments = parser.parse_args(argv)

    def work() -> None:
        names = [shipped_name(name) for name in arguments.names] or shipped_configs()
        commands = [named("reid_ray.rehearse.chain:command_of")(name) for name in names]
        named("reid_ray.rehearse.job:rehearse")(commands, report=arguments.report)

    with quiet_terminal("rehearse"):
        return exit_code_of(work)


def configs_command(argv: Sequence[str]) -> int:
    """List the shipped configurations, or copy one. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="reid-ray configs", description="The configurations that ship with reid_ray, by task.")
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    actions.add_parser("list", help="name each with what it is for (what happens without an action)")
    copying = actions.add_parser("copy", help="copy one, to change it; nothing is ever written over")
    copying.add_argument("name", metavar="NAME", help="such as caption.yaml or caption/caption.yaml")
    copying.add_argument(
        "place", metavar="PLACE", nargs="?", default=".", help="a folder, or a file to make; the working directory if left out"
    )
    arguments = parser.parse_args(argv)
    if arguments.action == "copy":
        return exit_code_of(lambda: say(str(copied(arguments.name, arguments.place))))
    return exit_code_of(lambda: say("\n".join(listing())))


def unknown_command(name: str, known: Sequence[str]) -> int:
    """Say that a name is none of `known`, and which is near. Returns the exit code."""

    def work() -> None:
        near = difflib.get_close_matches(name.lower(), known)
        raise ConfigError(f"{name} is neither a job nor a command of reid-ray; {did_you_mean(near)}`reid-ray --help` lists them")

    return exit_code_of(work)


def listing() -> list[str]:
    """A line for each shipped configuration: its name, and the first sentence of the comment it begins with."""
    lines = [f"in {configs_folder()}, where REFERENCE.md lists every key:"]
    task = None
    for name in shipped_configs():
        folder, _, file = name.rpartition("/")
        if folder != task:
            lines += ["", f"{folder or 'all tasks'}:"]
            task = folder
        lines.append(f"  {file:<34} {purpose(configs_folder() / name)}")
    return lines


def copied(name: str, place: str) -> Path:
    """Copy a shipped configuration to a folder, or to a file that is not there yet; returns the file. No folder is made.

    Raises:
        ConfigError: none of that name ships, the file is there already, or the folder is not.
    """
    found, target = shipped_name(name), Path(place)
    if target.is_dir() or place.endswith(os.sep):
        target /= found.rpartition("/")[2]
    try:
        with target.open("x", encoding="utf-8") as stream:
            stream.write((configs_folder() / found).read_text(encoding="utf-8"))
    except FileExistsError:
        if not target.exists():
            raise ConfigError(f"{target}: is a link that leads nowhere; remove it, or name another place") from None
        raise ConfigError(f"{target}: is there already and is not written over; name another place") from None
    except FileNotFoundError:
        if target.parent.is_dir():
            raise ConfigError(f"{target}: the system lets no file be made there; name another place") from None
        raise ConfigError(f"{target.parent}: there is no such folder; make it, or name another place") from None
    return target


def shipped_name(name: str) -> str:
    """TASK/FILE.yaml of a shipped configuration, with or without its task.

    Raises:
        ConfigError: none of that name ships.
    """
    found = [each for each in shipped_configs() if name in (each, each.rpartition("/")[2])]
    if not found:
        raise ConfigError(f"{name}: no configuration of this name ships with reid_ray; {near_configs(name)}")
    return found[0]


def purpose(path: Path) -> str:
    """The first sentence of the comment that a configuration begins with, cut at _WIDTH characters."""
    comment = itertools.takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
    sentence = _SENTENCE_END.split(" ".join(line.removeprefix("#").strip() for line in comment), maxsplit=1)[0]
    return textwrap.shorten(sentence.removesuffix("."), _WIDTH, placeholder=" ...")
