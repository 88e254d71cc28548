"""`reid-ray service VERB`: search, change and look after a gallery through its service, from the command line.

The token comes from the environment alone: a command line is seen by everybody. Knows the words; what they do is service_verbs.py's and
job_verbs.py's.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reid_ray.exit_codes import exit_code_of
from reid_ray.serve import job_verbs
from reid_ray.serve import service_verbs as verbs
from reid_ray.serve.client import SearchClient
from reid_ray.terminal.own_lines import standard_error
from reid_ray.terminal.quiet import quiet_terminal

TOKEN, URL = "REID_RAY_TOKEN", "REID_RAY_URL"
_LOCAL = "http://127.0.0.1:8000"


def service_command(argv: Sequence[str]) -> int:
    """Do what the command line says. Returns the exit code."""
    asked = _parser().parse_args(argv)

    def work() -> None:
        token = os.environ.get(TOKEN, "").strip() or None
        options = {name: getattr(asked, name) for name in ("ca", "purpose", "plain")}
        with SearchClient(asked.url, token=token, patience_s=asked.patience, told=_tell, **options) as client:
            asked.do(asked, client)

    with quiet_terminal("service"):
        return exit_code_of(work)


def _tell(sentence: str) -> None:
    """On standard error: what a verb answers, as JSON perhaps, is on standard output."""
    print(f"service: {sentence} (--patience)", file=standard_error(), flush=True)


class _Words:
    """The verbs' parsers."""

    def __init__(self) -> None:
        self.parser = argparse.ArgumentParser(
            prog="reid-ray service",
            description=f"A retrieval service, asked from here. A token is read from the environment variable {TOKEN}.",
        )
        self._verbs = self.parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    def verb(self, name: str, do: Any, purpose: str, *, json: bool = True) -> argparse.ArgumentParser:
        """A verb, with the words that all have."""
        made = self._verbs.add_parser(name, help=purpose, description=purpose)
        made.set_defaults(do=do)
        made.add_argument("--url", default=os.environ.get(URL, _LOCAL), help=f"of the service ({URL}, else {_LOCAL})")
        made.add_argument("--ca", metavar="FILE", type=Path, help="certificates to trust, of a service with one of its own")
        made.add_argument("--purpose", metavar="WORDS", help="what this is for; the service's audit log has it")
        made.add_argument(
            "--patience",
            metavar="SECONDS",
            type=float,
            default=60.0,
            help="try again for so long while it is busy or does not answer; 0 gives up at once (60)",
        )
        made.add_argument("--plain", action="store_true", help="send the token to another machine without encryption")
        if json:
            made.add_argument("--json", action="store_true", help="say the answer as JSON")
        return made


def _where(made: argparse.ArgumentParser) -> argparse.ArgumentParser:
    text = 'column=value, column=[values] or column={"from": low, "to": high}; may be repeated, all must hold'
    made.add_argument("--where", "--filter", action="append", default=[], metavar="FILTER", help=text)
    return made


def _clues(made: argparse.ArgumentParser) -> argparse.ArgumentParser:
    made.add_argument("--text", action="append", default=[], help="a description; may be repeated")
    made.add_argument("--image", action="append", default=[], metavar="FILE", type=Path, help="a picture; may be repeated")
    made.add_argument("--like", action="append", default=[], metavar="ITEM", help="an item; may be repeated")
    made.add_argument("--unlike", action="append", default=[], metavar="ITEM", help="an item that hits should not be like")
    made.add_argument("--unlike-weight", type=float, default=0.5, help="how strongly those push away (0.5)")
    return made


def _parser() -> argparse.ArgumentParser:
    words = _Words()
    _reading(words)
    _adding(words)
    _removing(words)
    _keeping(words)
    return words.parser


def _reading(words: _Words) -> None:
    search = _where(_clues(words.verb("search", verbs.search_verb, "The best items for texts, pictures and items together")))
    search.add_argument("-k", type=int, help="how many")
    search.add_argument("--threshold", type=float, help="the least score")
    search.add_argument("--one-per", metavar="COLUMN", help="only the best item of each value, such as person_id")
    search.add_argument("--cursor", help="the next page: what the last line of the page before says")
    search.add_argument("--rerank", type=int, metavar="HEAD", help="rank the first HEAD hits anew by k-reciprocal neighbours")
    search.add_argument("--exact", action="store_true", help="compare every item that passes, whatever the gallery's kind")
    explain = _where(_clues(words.verb("explain", verbs.explain_verb, "Which words and patches the score of an item comes from")))
    explain.add_argument("item", metavar="ITEM")
    browse = _where(words.verb("browse", verbs.browse_verb, "The gallery page by page, the newest items first"))
    browse.add_argument("-k", type=int, help="how many")
    browse.add_argument("--cursor", help="the next page: what the last line of the page before says")
    facets = _where(words.verb("facets", verbs.facets_verb, "How many items have each value of some columns"))
    facets.add_argument("columns", nargs="+", metavar="COLUMN")
    item = words.verb("item", verbs.item_verb, "What is known of an item")
    item.add_argument("item", metavar="ITEM")
    item.add_argument("--save", metavar="FILE", type=Path, help="write its small picture there")
    words.verb("info", verbs.info_verb, "What the service searches")
    words.verb("ready", verbs.ready_verb, "Whether it answers searches", json=False)


def _adding(words: _Words) -> None:
    add = words.verb(
        "add", job_verbs.add_verb, "Add pictures, folders of them, or a Parquet table; waits for the end unless told otherwise"
    )
    add.add_argument("paths", nargs="+", metavar="PATH", type=Path)
    add.add_argument(
        "--items", metavar="FILE", type=Path, help='what is known of each: {"file": name, "item_id": .., column: ..} on each line'
    )
    add.add_argument("--caption", action="store_true", help="have the pictures captioned, where the service can")
    add.add_argument("--no-wait", action="store_true", help="do not wait for the end")
    jobs = words.verb("jobs", job_verbs.jobs_verb, "Jobs of the service, the latest first")
    jobs.add_argument("--limit", type=int, default=100, metavar="N", help="how many, 100 unless given")
    job = words.verb("job", job_verbs.job_verb, "How far a job is")
    job.add_argument("job", metavar="JOB")
    job.add_argument("--wait", action="store_true", help="wait for its end")
    words.verb("cancel", job_verbs.cancel_verb, "Have a job end; what it added stays", json=False).add_argument("job", metavar="JOB")


def _removing(words: _Words) -> None:
    for name, do, purpose in (
        ("delete", verbs.delete_verb, "Hide items for good"),
        ("erase", verbs.erase_verb, "Hide items at once; by a deadline they are gone from every file, with a receipt"),
    ):
        made = _where(words.verb(name, do, purpose, json=False))
        made.add_argument("--id", action="append", metavar="ITEM", help="an item; may be repeated")
        made.add_argument("--expect", type=int, metavar="N", help="how many that must be; another number is refused")
        if name == "erase":
            made.add_argument("--request", metavar="NAME", required=True, help="name of the request, which its receipt bears")
            made.add_argument("--now", action="store_true", help="have them gone from every file before this ends")
    erasures = words.verb("erasures", verbs.erasures_verb, "Erasures: those to be carried out, and those that are done")
    erasures.add_argument("request", metavar="REQUEST", nargs="?", help="only this one; its receipt by --json")


def _keeping(words: _Words) -> None:
    words.verb("generations", verbs.generations_verb, "The generation that counts, and the snapshots")
    for name, purpose in (
        ("snapshot", "Keep the gallery as it is now under a name"),
        ("restore", "Go back to a snapshot; what was erased stays erased"),
        ("drop", "Forget a snapshot"),
    ):
        words.verb(name, verbs.keep_verb, purpose, json=False).add_argument("name", metavar="NAME")
    words.verb("compact", job_verbs.compact_verb, "Carry out erasures, drop deleted items, merge small segments", json=False)
    audit = words.verb("audit", verbs.audit_verb, "The audit log, the latest first", json=False)
    audit.add_argument("--verify", action="store_true", help="whether it is as it was written")
    audit.add_argument("--before", type=int, metavar="N", help="records before this number")
    audit.add_argument("--limit", type=int, metavar="N", help="how many records")
