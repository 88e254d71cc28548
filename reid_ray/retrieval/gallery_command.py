"""`reid-ray gallery VERB`: make, fill, search, erase and look after a gallery from the command line.

Knows words and tables; the store is reid_ray.gallery's. Only a search by text or picture loads a model.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, get_args

from reid_ray.config.called import keys_called
from reid_ray.config.filter_words import where_of_words
from reid_ray.errors import ConfigError, DataError
from reid_ray.exit_codes import exit_code_of
from reid_ray.gallery.config import GalleryConfig, NearestConfig
from reid_ray.gallery.erasure import read_receipt
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.gallery.gallery_writer import GalleryWriter
from reid_ray.gallery.manifest import RECEIPTS
from reid_ray.gallery.verification import faults_of
from reid_ray.progress import progress_bar
from reid_ray.retrieval.gallery_queries import Sought, query_vector, reranked
from reid_ray.retrieval.index.table_adding import add_tables, counts_in_words
from reid_ray.retrieval.index.table_reencoding import reencode_by_tables
from reid_ray.retrieval.searched_folder import about_gallery
from reid_ray.terminal.counted import counted
from reid_ray.terminal.item_words import ids_in_words, item_in_words, value_in_words
from reid_ray.terminal.own_lines import say
from reid_ray.terminal.quiet import quiet_terminal

_WAIT_S = 10.0  # a service that has the gallery open for writing gives it back in a moment
_BARS = partial(progress_bar, unit="item")
_CALLED = {"output.path": "GALLERY", "encoder": "--encoder"}  # what keys of jobs are called on this command line


def gallery_command(argv: Sequence[str]) -> int:
    """Do what the command line says. Returns the exit code."""
    asked = _parser().parse_args(argv)
    with quiet_terminal("gallery"), keys_called(lambda key: _CALLED.get(key, key)):
        return exit_code_of(lambda: asked.do(asked))


def _create(asked: argparse.Namespace) -> None:
    nearest = NearestConfig(kind=asked.kind)
    config = GalleryConfig(
        dtype=asked.dtype, nearest=nearest, erase_within_hours=asked.erase_within_hours, retention_days=asked.retention_days
    )
    counts = add_tables(
        asked.gallery,
        asked.tables,
        config,
        include_synthetic=asked.include_synthetic,
        by_tasks=asked.by_tasks,
        pieces=asked.pieces,
        wait_s=_WAIT_S,
    )
    view = GalleryView(asked.gallery)
    say(f"gallery: {counts_in_words(counts)}; {counted(len(view), 'item')}, generation {view.generation} -> {asked.gallery}")


def _reencode(asked: argparse.Namespace) -> None:
    done = reencode_by_tables(
        asked.gallery, asked.tables, by_tasks=asked.by_tasks, pieces=asked.pieces, drop_missing=asked.drop_missing, wait_s=_WAIT_S
    )
    manifest = about_gallery(asked.gallery).manifest
    living, unused = counted(done.living, "item"), counted(done.unused, "vector")
    say(
        f"gallery: {living} with a vector of encoder {manifest.encoder} (dimension {manifest.dim}), {done.dropped:,} without one dropped, "
        f"{unused} of no item, generation {manifest.number} -> {asked.gallery}"
    )


def _delete(asked: argparse.Namespace) -> None:
    with GalleryWriter(asked.gallery, wait_s=_WAIT_S, progress=_BARS) as writer:
        ids = _ids(asked, writer.view)
        lacking = _lacking(asked, writer.view)
        say(f"gallery: {writer.delete(ids):,} of {counted(len(ids), 'item')} deleted, {len(writer.view):,} left -> {asked.gallery}")
    if lacking:
        say(f"gallery: not among the items: {ids_in_words(lacking)}")


def _erase(asked: argparse.Namespace) -> None:
    with GalleryWriter(asked.gallery, wait_s=_WAIT_S, progress=_BARS) as writer:
        ids = _ids(asked, writer.view)
        if not ids:
            where = " ".join(asked.where)
            raise DataError(f"--where {where}: no item of {asked.gallery} passes, so nothing was erased; {_see_values(asked)}")
        lacking = _lacking(asked, writer.view)
        request = writer.erase(ids, request=asked.request)
        if asked.now:
            writer.carry_out_erasures()
        receipt = read_receipt(asked.gallery, request)
        done = (
            "gone from every file"
            if receipt
            else f"hidden; gone from every file by {_deadline(writer, request)} if a writer or service has the gallery then"
        )
        say(f"gallery: {counted(len(ids), 'item')} erased: {done}; request {request} -> {asked.gallery} ({RECEIPTS})")
    if lacking:
        say(f"gallery: not among the items, so erased only where a deleted or replaced one was left: {ids_in_words(lacking)}")


def _deadline(writer: GalleryWriter, request: str) -> str:
    deadline = next(each.deadline for each in writer.view.erasures if each.request == request)
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(deadline))


def _search(asked: argparse.Namespace) -> None:
    view = GalleryView(asked.gallery, device=asked.device)
    asked_for = ("text", "image", "like", "unlike", "unlike_weight", "encoder")
    query_D = query_vector(view, Sought(**{name: getattr(asked, name) for name in asked_for}))
    options = {
        "where": where_of_words(asked.where),
        "threshold": asked.threshold,
        "one_per": asked.one_per,
        "without": [*asked.like, *asked.unlike],
        "exact": asked.exact,
    }
    cursor = None
    if asked.rerank is None:
        page = view.page(query_D, asked.k, cursor=asked.cursor, **options)
        hits, cursor = page.hits, page.cursor
    else:
        if asked.cursor is not None:
            raise ConfigError("--cursor: what is re-ranked has no pages; drop --rerank, or ask for more with -k")
        hits = reranked(view, query_D, view.search(query_D[None], max(asked.k, asked.rerank), **options)[0])[: asked.k]
    for rank, hit in enumerate(hits, 1):
        say(f"{rank:>4}  {hit.score:.4f}  {hit.item_id}  {item_in_words(hit.item)}")
    if not hits:
        say(f"no item passes; {_see_values(asked)}" if asked.where else "no item passes")
    if cursor is not None:
        say(f"further hits: --cursor {cursor}")


def _facets(asked: argparse.Namespace) -> None:
    for column, counts in GalleryView(asked.gallery).facets(asked.columns, where_of_words(asked.where)).items():
        most = sorted(counts.items(), key=lambda each: -each[1])[:50]
        words = [f"{value_in_words(column, value)} {count:,}" for value, count in most if value is not None]
        say(f"{column}: " + ", ".join([*words, *([f"{counts[None]:,} items of very many values; ask by value"] if None in counts else [])]))


def _info(asked: argparse.Namespace) -> None:
    view = GalleryView(asked.gallery)
    manifest = view.manifest
    segments = counted(len(manifest.segments), "segment")
    say(f"items {len(view):,} in {segments} and the log; generation {manifest.number}; dimension {manifest.dim}")
    config = manifest.config
    say(f"encoder {manifest.encoder}; {config.dtype}, {config.nearest.kind}; columns {', '.join(view.schema.names)}")
    for erasure in view.erasures:
        say(f"erasure {erasure.request}: {counted(len(erasure.ids), 'item')}, not carried out yet")


def _verify(asked: argparse.Namespace) -> None:
    if faults := faults_of(asked.gallery, progress=_BARS):
        raise DataError(f"{faults[0]}" + (f" ({len(faults) - 1} more faults)" if len(faults) > 1 else ""))
    say(f"gallery: every file is as it was sealed, every vector of unit length -> {asked.gallery}")


def _keep(asked: argparse.Namespace) -> None:
    with GalleryWriter(asked.gallery, wait_s=_WAIT_S, progress=_BARS) as writer:
        {"snapshot": writer.snapshot, "restore": writer.restore, "drop": writer.drop_snapshot}[asked.verb](asked.name)
        items = counted(len(writer.view), "item")
        say(f"gallery: {asked.verb} {asked.name}, {items}, generation {writer.view.generation} -> {asked.gallery}")


def _compact(asked: argparse.Namespace) -> None:
    with GalleryWriter(asked.gallery, wait_s=_WAIT_S, progress=_BARS) as writer:
        writer.compact()
        writer.seal()
        items, segments = counted(len(writer.view), "item"), counted(len(writer.view.manifest.segments), "segment")
        say(f"gallery: {items} in {segments}, generation {writer.view.generation} -> {asked.gallery}")


def _see_values(asked: argparse.Namespace) -> str:
    """How to see which values the columns of a filter have."""
    return f"which values there are says: reid-ray gallery facets {asked.gallery} {' '.join(where_of_words(asked.where))}"


def _ids(asked: argparse.Namespace, view: GalleryView) -> list[str]:
    if asked.id:
        return list(asked.id)
    where = where_of_words(asked.where)
    if not where:
        raise ConfigError("--id or --where: say which items, such as --where person_id=42; a filter that passes everything is not taken")
    return view.ids(where)


def _lacking(asked: argparse.Namespace, view: GalleryView) -> list[str]:
    """Those of the ids that were typed that are no items."""
    ids = list(dict.fromkeys(asked.id or ()))
    there = {at for _, at, _ in view.located(ids)}
    return [each for at, each in enumerate(ids) if at not in there]


class _Verb(Protocol):
    """Interface (protocol) of what makes a verb's parser."""

    def __call__(self, name: str, do: Callable[[argparse.Namespace], None], purpose: str) -> argparse.ArgumentParser:
        """The parser of a verb of a gallery."""
        ...


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="reid-ray gallery", description="A gallery: a store of people's vectors, pictures and metadata.")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    def verb(name: str, do: Callable[[argparse.Namespace], None], purpose: str) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=purpose, description=purpose)
        made.add_argument("gallery", metavar="GALLERY", help="folder of the gallery, or its address (s3://, gs://, az://)")
        made.set_defaults(do=do)
        return made

    _filling(verb)
    _removing(verb)
    _searching(verb)
    _upkeep(verb)
    return parser


def _filtered(made: argparse.ArgumentParser) -> argparse.ArgumentParser:
    text = 'column=value, column=[values] or column={"from": low, "to": high}; may be repeated, all must hold'
    made.add_argument("--where", "--filter", action="append", default=[], metavar="FILTER", help=text)
    return made


def _filling(verb: _Verb) -> None:
    add = verb("add", _create, "Add or replace items from the embed job's tables; the gallery is made if it is not there")
    add.add_argument("tables", metavar="TABLE", nargs="+", help="embeddings/ of an embed run")
    reencode = verb("reencode", _reencode, "Go over to another encoder: every item keeps its id, columns and picture, and has a new vector")
    reencode.add_argument("tables", metavar="TABLE", nargs="+", help="embeddings/ of an embed run with it, of the gallery's items")
    reencode.add_argument("--drop-missing", action="store_true", help="delete items of which the tables have no vector")
    for made in (add, reencode):
        made.add_argument(
            "--by-tasks",
            action="store_true",
            help="by Ray tasks on all nodes of the cluster (RAY_ADDRESS, else here); for millions",
        )
        made.add_argument(
            "--pieces",
            metavar="FOLDER",
            help="with --by-tasks, of a gallery at an address: a folder that all nodes see, for segments on their way",
        )
    add.add_argument("--include-synthetic", action="store_true", help="also pictures that an editor made")
    default = GalleryConfig()
    add.add_argument("--dtype", choices=["float32", "float16"], default=default.dtype, help="of a new gallery's vectors")
    add.add_argument(
        "--kind",
        choices=get_args(NearestConfig.model_fields["kind"].annotation),
        default=default.nearest.kind,
        help="of a new gallery: how its larger segments are searched",
    )
    add.add_argument(
        "--erase-within-hours", type=float, default=default.erase_within_hours, help="of a new gallery: deadline of an erasure"
    )
    add.add_argument("--retention-days", type=float, default=None, help="of a new gallery: how long an item may stay")


def _removing(verb: _Verb) -> None:
    delete = verb("delete", _delete, "Hide items for good; their bytes go when the gallery is compacted")
    erase = verb("erase", _erase, "Hide items at once; by a deadline they are gone from every file, with a receipt")
    for made in (delete, erase):
        _filtered(made).add_argument("--id", action="append", metavar="ITEM", help="an item; may be repeated")
    erase.add_argument("--now", action="store_true", help="have them gone from every file before this ends")
    erase.add_argument("--request", metavar="NAME", help="name of the request, which its receipt bears; a random one if left out")


def _searching(verb: _Verb) -> None:
    search = _filtered(verb("search", _search, "The best items for a text, a picture, or items of the gallery"))
    query = search.add_mutually_exclusive_group()
    query.add_argument("--text", help="a description")
    query.add_argument("--image", metavar="FILE", help="a picture")
    search.add_argument("--like", action="append", default=[], metavar="ITEM", help="an item; of several, and of text or picture: the mean")
    search.add_argument("--unlike", action="append", default=[], metavar="ITEM", help="an item that hits should not be like")
    search.add_argument("--unlike-weight", type=float, default=0.5, help="how strongly those push away (0.5)")
    search.add_argument("--encoder", metavar="FOLDER", help="what made the vectors; for texts and pictures")
    search.add_argument("-k", type=int, default=10, help="how many (10)")
    search.add_argument("--threshold", type=float, help="the least score")
    search.add_argument("--one-per", metavar="COLUMN", help="only the best item of each value, such as person_id")
    search.add_argument("--cursor", help="the next page: what the last line of the page before says")
    search.add_argument("--rerank", type=int, metavar="HEAD", help="rank the first HEAD hits anew by k-reciprocal neighbours")
    search.add_argument("--device", metavar="DEVICE", help="cuda:0: that GPU holds the vectors and compares all of them, exactly")
    search.add_argument("--exact", action="store_true", help="compare every item that passes, whatever the gallery's kind")


def _upkeep(verb: _Verb) -> None:
    facets = _filtered(verb("facets", _facets, "How many items have each value of some columns"))
    facets.add_argument("columns", nargs="+", metavar="COLUMN")
    verb("info", _info, "What a gallery holds")
    verb("verify", _verify, "Read every byte and compare it with what was sealed")
    verb("compact", _compact, "Carry out erasures and retention, drop deleted items, merge small segments")
    for name, purpose in (
        ("snapshot", "Keep the gallery as it is now under a name"),
        ("restore", "Go back to a snapshot; what was erased stays erased"),
        ("drop", "Forget a snapshot"),
    ):
        verb(name, _keep, purpose).add_argument("name", metavar="NAME")
