"""`reid-ray tokens VERB`: make, list, rotate and revoke the tokens of a search service from the command line.

A service that runs sees a change within a second. A token is printed when it is made, and never again: no file holds it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reid_ray.exit_codes import exit_code_of
from reid_ray.serve.access.roles import AccessRole
from reid_ray.serve.access.tokens.token_file import create_token, read_tokens, revoke_token, rotate_token
from reid_ray.terminal.own_lines import say, standard_error


def tokens_command(argv: Sequence[str]) -> int:
    """Do what the command line says. Returns the exit code."""
    asked = _parser().parse_args(argv)
    return exit_code_of(lambda: asked.do(asked))


def _create(asked: argparse.Namespace) -> None:
    _show(create_token(asked.file, asked.name, AccessRole.named(asked.role), days=asked.days))


def _rotate(asked: argparse.Namespace) -> None:
    _show(rotate_token(asked.file, asked.name, days=asked.days, keep_hours=asked.keep_hours))


def _revoke(asked: argparse.Namespace) -> None:
    revoke_token(asked.file, asked.name)
    say(f"tokens: {asked.name} revoked; services refuse it within a second -> {asked.file}")


def _list(asked: argparse.Namespace) -> None:
    now, entries = time.time(), read_tokens(asked.file)
    for entry in entries:
        end = "never expires" if entry.expires is None else f"{'expires' if entry.valid_at(now) else 'EXPIRED'} {_date(entry.expires)}"
        say(f"{entry.name:<24} {entry.role.word:<7} made {_date(entry.created)}  {end}  id {entry.id}")
    if not entries:
        say(f"no token in {asked.file}")


def _show(token: str) -> None:
    print("This token is shown once and kept nowhere; give it to whom it is for:", file=standard_error(), flush=True)
    say(token)


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="reid-ray tokens", description="Tokens of a search service: who may ask it, as what, until when.")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    def verb(name: str, do: Any, purpose: str, *, names: bool = True) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=purpose, description=purpose)
        if names:
            made.add_argument("name", metavar="NAME", help="whose token: a person or a program; the audit log says it")
        made.add_argument("file", metavar="FILE", type=Path, help="the tokens file, which a service's configuration names (access.tokens)")
        made.set_defaults(do=do)
        return made

    create = verb("create", _create, "Make a token and print it once; the file is made if it is not there")
    create.add_argument(
        "--role",
        choices=[role.word for role in AccessRole],
        required=True,
        help="search; write: also add and delete; admin: also erase and audit",
    )
    rotate = verb("rotate", _rotate, "Replace a token by a new one of the same name and role, and print that once")
    rotate.add_argument("--keep-hours", type=float, default=0.0, metavar="HOURS", help="how long the old one stays valid (0)")
    for made in (create, rotate):
        made.add_argument("--days", type=float, metavar="DAYS", help="how long the new one is valid; without end if left out")
    verb("revoke", _revoke, "Refuse a token, and the sessions that it began, from now on")
    verb("list", _list, "Names, roles and expiry; there are no tokens to show", names=False)
    return parser
