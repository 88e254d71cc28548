"""`reid-ray label VERB`: ask people in a page which pictures show one person, and write tables with the answers.

`ask` serves the page on this machine alone until Ctrl-C; every answer is in the file of decisions before the next question, so it goes on
where it was. `write` makes a table of images with the identities in place.
"""

from __future__ import annotations

import argparse
import threading
from collections.abc import Sequence
from contextlib import closing

from reid_ray.config.called import keys_called
from reid_ray.errors import ConfigError
from reid_ray.exit_codes import exit_code_of
from reid_ray.terminal.counted import counted
from reid_ray.terminal.own_lines import say
from reid_ray.terminal.quiet import quiet_terminal

# What the keys of a table's configuration are called on this command line.
_CALLED = {"images": "IMAGES", "decisions": "DECISIONS", "output.path": "OUTPUT", "output.if_exists": "--if-exists", "tracks": "--tracks"}


def label_command(argv: Sequence[str]) -> int:
    """Do what the command line says. Returns the exit code."""
    asked = _parser().parse_args(argv)
    with quiet_terminal("label"):
        return exit_code_of(lambda: asked.do(asked))


def _ask(asked: argparse.Namespace) -> None:
    from reid_ray.serve.process.http_thread import bound_socket, running_server
    from reid_ray.serve.same_person.decision_log import DecisionLog
    from reid_ray.serve.same_person.label_desk import LabelDesk
    from reid_ray.serve.same_person.label_routes import label_application
    from reid_ray.serve.same_person.look_alikes import known_images, look_alikes, passed_over_in_words
    from reid_ray.serve.same_person.other_table import lacking_pictures, named_pictures

    if asked.neighbours < 1 or asked.most < 1 or not -1 <= asked.least <= 1:
        raise ConfigError("--neighbours and --most must be at least 1, --least a cosine from -1 to 1")
    with closing(DecisionLog(asked.decisions)) as log, bound_socket("127.0.0.1", asked.port, key="--port") as listening:
        named, lacking = named_pictures(log.decisions), None
        if named:  # of an earlier sitting
            there = [image.image_id for image in known_images(asked.images, tracks=False, only=named)]
            lacking = lacking_pictures(named, there, decisions=asked.decisions, table=asked.images)
        alike = look_alikes(
            asked.images, embeddings=asked.embeddings, neighbours=asked.neighbours, least=asked.least, most=asked.most, tracks=asked.tracks
        )
        desk = LabelDesk(alike, log)
        found = desk.question("start")
        with running_server(label_application(desk), listening):
            asked_about = f"{counted(len(alike.images), 'picture')} in {counted(len(alike.pair_P2), 'pair')}"
            say(f"label: {asked_about}, {found['open']:,} of them open -> {asked.decisions}")
            if lacking is not None:
                say(f"label: {lacking}")
            if alike.passed_over:
                say(f"label: {passed_over_in_words(alike.passed_over)}")
            say(f"label: open http://127.0.0.1:{listening.getsockname()[1]}/ in a browser; Ctrl-C stops it, and it goes on where it was")
            try:
                threading.Event().wait()
            except KeyboardInterrupt:
                log.refresh()  # what others said meanwhile
                say(f"label: {counted(log.answered, 'decision')} in {asked.decisions}; reid-ray label write makes a table of them")


def _write(asked: argparse.Namespace) -> None:
    from reid_ray.config.base import load_config
    from reid_ray.serve.same_person.config import LabelledTable
    from reid_ray.serve.same_person.labelled_table import write_labelled

    given = {"images": asked.images, "decisions": asked.decisions, "output.path": asked.output, "output.if_exists": asked.if_exists}
    overrides = [*(f"{name}={value}" for name, value in given.items()), f"tracks={str(asked.tracks).lower()}"]
    with keys_called(lambda key: _CALLED.get(key, key)):
        write_labelled(load_config(LabelledTable, None, overrides))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="reid-ray label", description="Label pictures that look alike into identities.")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("images", metavar="IMAGES", help="table of images, such as runs/ingest/folder/images")
    common.add_argument("decisions", metavar="DECISIONS", help="file of decisions (JSON lines); ask makes it, and goes on with it")
    common.add_argument("--tracks", action="store_true", help="pictures of one track (column track) are one person")
    ask = verbs.add_parser("ask", parents=[common], help="ask in a page on this machine which pictures show one person")
    ask.add_argument(
        "--embeddings", metavar="TABLE", help="vectors of the images, by the embed job; without, near duplicates by their pixels"
    )
    ask.add_argument("--neighbours", type=int, default=5, help="with --embeddings: how many of each picture are asked about (5)")
    ask.add_argument("--least", type=float, default=0.5, help="with --embeddings: smallest cosine that is asked about (0.5)")
    ask.add_argument("--most", type=int, default=20_000, help="pairs at most; the most alike are taken (20,000)")
    ask.add_argument("--port", type=int, default=8010, help="of 127.0.0.1; 0 takes a free one (8010)")
    ask.set_defaults(do=_ask)
    write = verbs.add_parser("write", parents=[common], help="write a table of images with the identities in place")
    write.add_argument("output", metavar="OUTPUT", help="folder to make; its images/ is the table")
    write.add_argument("--if-exists", choices=("refuse", "replace", "reuse"), default="refuse", help="what to do if it is there (refuse)")
    write.set_defaults(do=_write)
    return parser
