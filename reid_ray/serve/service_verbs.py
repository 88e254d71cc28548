"""The verbs of `reid-ray service`, each from words to a client's call and to lines or JSON.

Knows words and files; the calls are client.py's, the command line service_command.py's, those of jobs job_verbs.py's.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from reid_ray.config.filter_words import where_of_words
from reid_ray.errors import ConfigError, DataError
from reid_ray.serve.client import SearchClient
from reid_ray.serve.patient_http import ServiceRefusedError
from reid_ray.terminal.counted import counted
from reid_ray.terminal.item_words import ids_in_words, item_in_words, value_in_words
from reid_ray.terminal.own_lines import say, say_json

_SHOWN = 20
_MOST_LOOKED_FOR = 100  # ids of one command
_OF_IDS = (404, 409, 422)  # what an id that is none may be answered with


def info_verb(asked: argparse.Namespace, client: SearchClient) -> None:
    """`info`."""
    facts = client.info()
    if asked.json:
        return say_json(facts)
    say(f"items {facts['items']:,}; generation {facts['generation']}; dimension {facts['dim']}, {facts['index_kind']}")
    say(f"encoder {facts['encoder_fingerprint']}; columns {', '.join(each['name'] for each in facts['columns'])}")
    _say_missing(facts)


def search_verb(asked: argparse.Namespace, client: SearchClient) -> None:
    """`search`."""
    with _items_named(client, *asked.like, *asked.unlike):
        found = client.search(_question(asked))
    if asked.json:
        return say_json(found)
    for hit in found["hits"]:
        say(f"{hit['rank']:>4}  {hit['score']:.4f}  {hit['item_id']}  {item_in_words(hit['item'])}")
    if not found["hits"]:
        _say_none(asked)
    if found["truncated"]:
        say("the text is longer than the model reads: what is beyond was not looked for")
    _say_missing(found)
    if found["cursor"] is not None:
        say(f"further hits: --cursor {found['cursor']}")


def explain_verb(asked: argparse.Namespace, client: SearchClient) -> None:
    """`explain`."""
    question = _question(asked)
    with _items_named(client, asked.item, *asked.like, *asked.unlike):
        found = client.explain(asked.item, {name: question[name] for name in ("text", "clues") if name in question})
    if asked.json:
        return say_json(found)
    say(f"score {found['score']:.4f}; what it loses without")
    for word in sorted(found["words"], key=lambda each: -each["effect"])[:_SHOWN]:
        say(f"  {word['effect']:+.4f}  {word['word']}")
    for row in found["patches"]["effects"] if found["patches"] is not None else ():
        say("  " + " ".join(f"{effect:+.3f}" for effect in row))


def browse_verb(asked: argparse.Namespace, client: SearchClient) -> None:
    """`browse`."""
    found = client.browse(k=asked.k, where=where_of_words(asked.where) or None, cursor=asked.cursor)
    if asked.json:
        return say_json(found)
    for item in found["items"]:
        say(f"{item['item_id']}  {item_in_words(item['item'])}")
    if not found["items"]:
        _say_none(asked)
    _say_missing(found)
    if found["cursor"] is not None:
        say(f"further items: --cursor {found['cursor']}")


def facets_verb(asked: argparse.Namespace, client: SearchClient) -> None:
    """`facets`."""
    found = client.facets(asked.columns, where=where_of_words(asked.where) or None)
    if asked.json:
        return say_json(found)
    for column, counts in found["columns"].items():
        others = f", others {counts['others']:,}" if counts["others"] else ""
        values = ", ".join(f"{value_in_words(column, each['value'])} {each['count']:,}" for each in counts["values"])
        say(f"{column}: {values or 'no value'}{others}")
    _say_missing(found)


def _say_missing(answer: Mapping[str, Any]) -> None:
    """That a part of the gallery is lost, where it is; services before the seventh format say it of searches alone."""
    if shares := answer.get("missing_shares"):
        say(f"shares {', '.join(map(str, shares))} of the gallery are lost for now: their items are not in this answer")


def _say_none(asked: argparse.Namespace) -> None:
    """That nothing passes, and how to see what would."""
    columns = " ".join(where_of_words(asked.where))
    say(f"no item passes; which values there are says: reid-ray service facets {columns}" if columns else "no item passes")


@contextmanager
def _items_named(client: SearchClient, *ids: str) -> Iterator[None]:
    """Name the items that the gallery lacks where a question is refused: the service repeats no id, and its user has typed them."""
    try:
        yield
    except ServiceRefusedError as error:
        if error.status not in _OF_IDS or not (lacking := _lacking(client, ids)):
            raise
        raise ServiceRefusedError(f"{error}: {ids_in_words(lacking)}", status=error.status) from None


def _lacking(client: SearchClient, ids: Sequence[str]) -> list[str]:
    """Those of the ids that are no items; of more than a person types none is looked for, as each page of them would be a request."""
    if len(ids) > _MOST_LOOKED_FOR:
        return []
    there = {each["item_id"] for each in client.items(where={"item_id": list(ids)})} if ids else set()
    return [each for each in dict.fromkeys(ids) if each not in there]


def item_verb(asked: argparse.Namespace, client: SearchClient) -> None:
    """`item`."""
    with _items_named(client, asked.item):
        found = client.item(asked.item)
    say_json(found) if asked.json else say(f"{found['item_id']}  {item_in_words(found['item'])}")
    if asked.save is not None:
        try:
            with asked.save.open("xb") as file:
                file.write(client.thumbnail_bytes(asked.item))
        except FileExistsError:
            raise ConfigError(f"--save {asked.save}: is there already and is not written over; name another place") from None
        say(f"picture -> {asked.save}")


def delete_verb(asked: argparse.Namespace, client: SearchClient) -> None:
    """`delete`."""
    lacking = _lacking(client, asked.id or ())
    with _items_named(client, *(asked.id or ())):
        done = client.delete(asked.id, where=where_of_words(asked.where) or None, expect=asked.expect)
    say(f"service: {counted(done['deleted'], 'item')} deleted, {done['items']:,} left; generation {done['generation']} -> {asked.url}")
    if lacking:
        say(f"service: not among the items: {ids_in_words(lacking)}")


def erase_verb(asked: argparse.Namespace, client: SearchClient) -> None:
    """`erase`."""
    where, lacking = where_of_words(asked.where) or None, _lacking(client, asked.id or ())
    with _items_named(client, *(asked.id or ())):
        done = client.erase(asked.id, where=where, request=asked.request, now=asked.now, expect=asked.expect)
    state = "gone from every file" if done["done"] else f"hidden; gone from every file by {done['deadline']}"
    say(f"service: {counted(done['items'], 'item')} erased: {state}; request {done['request']} -> {asked.url}")
    if lacking:
        say(f"service: not among the items, so erased only where a deleted or replaced one was left: {ids_in_words(lacking)}")


def erasures_verb(asked: argparse.Namespace, client: SearchClient) -> None:
    """`erasures`."""
    found = client.erasures() if asked.request is None else [client.erasure(asked.request)]
    if asked.json:
        return say_json(found if asked.request is None else found[0])
    for each in found:
        state = f"done {each['receipt']['carried_out']}" if each["receipt"] else f"by {each['deadline']}"
        say(f"{each['request']}  {counted(each['items'], 'item')}, asked {each['asked']}, {state}")
    if not found:
        say("no erasures")


def generations_verb(asked: argparse.Namespace, client: SearchClient) -> None:
    """`generations`."""
    found = client.generations()
    if asked.json:
        return say_json(found)
    items = sum(each["items"] for each in found["segments"])
    log = found["log"]
    segments = f"{counted(items, 'item')} in {counted(len(found['segments']), 'segment')}"
    say(f"generation {found['generation']}: {segments}, {log['items']:,} in a log of {counted(log['writes'], 'write')}")
    for each in found["snapshots"]:
        say(f"snapshot {each['name']}: generation {each['generation']}, {counted(each['rows'], 'row')}")


def keep_verb(asked: argparse.Namespace, client: SearchClient) -> None:
    """`keep`."""
    done = {"snapshot": client.snapshot, "restore": client.restore, "drop": client.drop}[asked.verb](asked.name)
    say(f"service: {asked.verb} {asked.name}, {counted(done['items'], 'item')}, generation {done['generation']} -> {asked.url}")


def audit_verb(asked: argparse.Namespace, client: SearchClient) -> None:
    """`audit`."""
    if asked.verify:
        return say_json(client.verify_audit())
    for record in client.audit(before=asked.before, limit=asked.limit)["records"]:
        say(json.dumps(record, ensure_ascii=False))
    return None


def ready_verb(asked: argparse.Namespace, client: SearchClient) -> None:
    """`ready`."""
    if not client.is_ready():
        raise DataError(f"{asked.url}: does not answer searches; wait, or see the service's log")
    say(f"service: answers searches -> {asked.url}")


def _question(asked: argparse.Namespace) -> dict[str, Any]:
    clues: list[dict[str, Any]] = [{"text": each} for each in asked.text]
    for path in asked.image:
        if not path.is_file():
            raise DataError(f"--image {path}: {'is no file' if path.exists() else 'is not there'}; name a picture")
        clues.append({"image": path})
    clues += [{"item": each} for each in asked.like] + [{"item": each, "weight": -asked.unlike_weight} for each in asked.unlike]
    if not clues:
        raise ConfigError("--text, --image or --like: say what to look for")
    options = {name: getattr(asked, name, None) for name in ("k", "threshold", "one_per", "cursor", "rerank")}
    question = {"clues": clues, "without": [*asked.like, *asked.unlike], **options}
    where = where_of_words(asked.where)
    return question | ({"where": where} if where else {}) | ({"exact": True} if getattr(asked, "exact", False) else {})
