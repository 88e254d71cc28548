"""`reid-ray audit verify|show FOLDER`: is a service's audit log as it was written, and what does it hold?

`show --text` and `--image` find searches for a given text or picture by their keyed digests; for that the log's key must lie beside it.
"""

from __future__ import annotations

import argparse
import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from reid_ray.errors import ConfigError, DataError
from reid_ray.exit_codes import exit_code_of
from reid_ray.serve.access.audit.audit_log import KEY_FILE, Digests
from reid_ray.serve.access.audit.chain_check import records_of, verified
from reid_ray.serve.access.secret_key import secret_key
from reid_ray.storage.regular_files import read_regular
from reid_ray.terminal.own_lines import say

_SHOWN = ("n", "at", "who", "role", "verb", "outcome")


def audit_command(argv: Sequence[str]) -> int:
    """Do what the command line says. Returns the exit code."""
    asked = _parser().parse_args(argv)
    return exit_code_of(lambda: asked.do(asked))


def _verify(asked: argparse.Namespace) -> None:
    chain = verified(asked.folder, expect=asked.expect, first_file=asked.first_file)
    mended = f", {chain.mended} lines that a crash cut off" if chain.mended else ""
    torn = f"; the last {chain.torn} bytes are a line that a crash cut off, which the next record will say" if chain.torn else ""
    say(f"audit: records {chain.first:,} to {chain.head.number:,} are as they were written{mended}{torn} -> {asked.folder}")
    say(f"head: {chain.head.number}:{chain.head.hash}")
    if asked.expect is None:
        say("an end that was cut off, or a whole chain made anew, shows only by --expect with a head that was noted before")


def _show(asked: argparse.Namespace) -> None:
    fits = _filter(asked)
    kept: deque[dict[str, Any]] = deque((record for record in records_of(asked.folder) if fits(record)), maxlen=asked.last)
    for record in kept:
        if asked.json:
            say(json.dumps(record, ensure_ascii=False))
            continue
        first = " ".join(str(record.get(name, "-")) for name in _SHOWN)
        rest = {name: value for name, value in record.items() if name not in (*_SHOWN, "previous", "hash", "token")}
        say(f"{first} {json.dumps(rest, ensure_ascii=False)}")
    if not kept:
        say("no record fits")


def _filter(asked: argparse.Namespace) -> Callable[[Mapping[str, Any]], bool]:
    wanted = {name: getattr(asked, name) for name in ("who", "verb", "request") if getattr(asked, name) is not None}
    sought = _digest(asked)

    def fits(record: Mapping[str, Any]) -> bool:
        if any(record.get(name) != value for name, value in wanted.items()):
            return False
        if not (asked.since or "") <= str(record.get("at", "")) < (asked.until or "~"):
            return False
        return sought is None or sought in record.get("sought", ()) or sought in record.get("ids", ())

    return fits


def _digest(asked: argparse.Namespace) -> str | None:
    if asked.text is None and asked.image is None and asked.item is None:
        return None
    key = asked.folder / KEY_FILE
    if not key.is_file():
        raise DataError(f"{key}: without the log's key nobody can tell what was searched for; put it beside the log")
    digests = Digests(secret_key(key))
    if asked.text is not None:
        return digests.sought(asked.text)
    if asked.item is not None:
        return digests.item(asked.item)
    try:
        return digests.sought(read_regular(asked.image))
    except OSError as error:
        raise ConfigError(f"--image {asked.image}: cannot be read ({error.strerror}); name the file that was searched with") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="reid-ray audit", description="The audit log of a search service: its folder is STATE/audit.")
    verbs = parser.add_subparsers(dest="verb_of_audit", metavar="VERB", required=True)

    def verb(name: str, do: Any, purpose: str) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=purpose, description=purpose)
        made.add_argument("folder", metavar="FOLDER", type=Path, help="of the log, with audit-000001.jsonl")
        made.set_defaults(do=do)
        return made

    verify = verb("verify", _verify, "Read the whole log: is every record as it was written, and none missing? Says its head")
    verify.add_argument("--expect", metavar="HEAD", help="a head that was noted earlier, NUMBER:HASH: it must be in the log")
    verify.add_argument("--first-file", type=int, default=1, metavar="N", help="the oldest file, where older ones were archived (1)")
    show = verb("show", _show, "Show records, oldest first")
    for name in ("who", "verb", "request"):
        show.add_argument(f"--{name}", metavar=name.upper(), help=f"only records with this {name}")
    show.add_argument("--since", metavar="TIME", help="only from this time on, such as 2026-01-31 or 2026-01-31T12:00 (UTC)")
    show.add_argument("--until", metavar="TIME", help="only before this time")
    sought = show.add_mutually_exclusive_group()
    sought.add_argument("--text", metavar="TEXT", help="only searches for this text, word for word")
    sought.add_argument("--image", metavar="FILE", help="only searches with this picture, byte for byte")
    sought.add_argument("--item", metavar="ITEM", help="only records that name this item of the gallery")
    show.add_argument("--last", type=int, default=50, metavar="N", help="the last N that fit (50)")
    show.add_argument("--json", action="store_true", help="whole records, a line of JSON each")
    return parser
