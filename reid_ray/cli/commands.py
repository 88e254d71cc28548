"""The commands of `reid-ray` that are no jobs: setup, configs, constraints."""

from __future__ import annotations

import argparse
import difflib
import itertools
import textwrap
from collections.abc import Sequence
from pathlib import Path

from reid_ray.config.shipped import configs_folder, shipped_configs
from reid_ray.errors import ConfigError
from reid_ray.exit_codes import exit_code_of
from reid_ray.setup.pins import STACKS, constraints_file
from reid_ray.terminal.own_lines import say
from reid_ray.terminal.quiet import quiet_terminal

_WIDTH = 100  # characters of a configuration's purpose


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
        return exit_code_of(lambda: say(str(copied(arguments.name, Path(arguments.place)))))
    return exit_code_of(lambda: say("\n".join(listing())))


def unknown_command(name: str, known: Sequence[str]) -> int:
    """Say that a name is none of `known`, and which is near. Returns the exit code."""

    def work() -> None:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(f"{name} is neither a job nor a command of reid-ray; {hint}`reid-ray --help` lists them")

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
        lines.append(f"  {file:<34} {_purpose(configs_folder() / name)}")
    return lines


def copied(name: str, place: Path) -> Path:
    """Copy a shipped configuration to a folder, or to a file that is not there yet; returns the file.

    Raises:
        ConfigError: none of that name ships, or the file is there already.
    """
    found = [each for each in shipped_configs() if name in (each, each.rpartition("/")[2])]
    if not found:
        raise ConfigError(f"{name}: no configuration of this name ships with reid_ray; `reid-ray configs` lists them")
    target = place / found[0].rpartition("/")[2] if place.is_dir() else place
    try:
        with target.open("x", encoding="utf-8") as stream:
            stream.write((configs_folder() / found[0]).read_text(encoding="utf-8"))
    except FileExistsError:
        raise ConfigError(f"{target}: is there already and is not written over; name another place") from None
    return target


def _purpose(path: Path) -> str:
    comment = itertools.takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
    sentence = " ".join(line.removeprefix("#").strip() for line in comment).partition(". ")[0]
    return textwrap.shorten(sentence.removesuffix("."), _WIDTH, placeholder=" ...")
