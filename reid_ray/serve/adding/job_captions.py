"""Captions of an add job's pictures: the caption job in a process of its own, with the configuration that the service names.

The engine that captions needs memory and minutes of its own, so it is never in the service's process. Knows the job's command line and its
tables; not how captions are made.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from reid_ray.data.synthetic.people import DATASET
from reid_ray.errors import DataError
from reid_ray.model.tiny.drawn_people import REMARK, knows_drawn_people_only
from reid_ray.records import CAPTIONS, IMAGES
from reid_ray.redaction import without_secrets
from reid_ray.serve.adding.config import AddingConfig
from reid_ray.storage import read_table
from reid_ray.storage.files import replacing

# The child ends when its standard input does: with this process, however that ends.
_CHILD = """\
import os, signal, sys, threading
threading.Thread(target=lambda: (os.read(0, 1), os.kill(os.getpid(), signal.SIGTERM)), daemon=True).start()
from reid_ray.cli.main import main
sys.exit(main())"""
_COMMAND = (sys.executable, "-c", _CHILD, "caption")
_TRIES, _AGAIN_S = 5, 5.0  # while the child of a service that was killed still ends
_LOOK_EVERY_S = 0.5
_GRACE_S = 20.0
_SHOWN_CHARS, _LOG_BYTES = 500, 65_536


class PictureCaption(NamedTuple):
    """What a picture's caption is, and what must be known of it; None: nothing."""

    text: str
    remark: str | None


def captions_by_id(
    pictures: Iterator[pa.Table], folder: Path, config: AddingConfig, look: Callable[[], None], *, command: tuple[str, ...] = _COMMAND
) -> dict[str, PictureCaption]:
    """Caption pictures. What is there from an attempt that was killed is kept: the caption job goes on by itself.

    Args:
        pictures: small tables in the schema IMAGES.
        folder: the job's; images/ and captions/ in it go with the upload.
        config: names the caption job's configuration.
        look: called now and then; what it raises ends the caption job.
        command: what captions.

    Raises:
        DataError: the caption job failed; says its last words.
    """
    images, output = folder / "images", folder / "captions"
    if not images.is_dir():
        with replacing(images / "part.parquet", hidden=folder / ".images.parquet") as hidden:
            _write(pictures, hidden)
            images.mkdir()
    words = [
        *command,
        f"--config={config.captioner}",
        "images.source=parquet",
        f"images.path={images}",
        f"images.max_pixels={config.max_pixels}",
        f"output.path={output}",
        "output.if_exists=reuse",
    ]
    for tried in range(1, _TRIES + 1):
        code, said = _run(words, folder, look)
        if not code:
            break
        if "another run writes" not in said or tried == _TRIES:
            raise DataError(f"adding.captioner: the caption job ended with exit code {code}: {without_secrets(said)[:_SHOWN_CHARS]}")
        time.sleep(_AGAIN_S)
        look()
    table = read_table(str(output / "captions"), CAPTIONS, columns=["image_id", "kind", "text", "status", "model", "revision", "dataset"])
    found: dict[str, PictureCaption] = {}
    drawn_only = lru_cache(knows_drawn_people_only)
    for row in table.to_pylist():
        if row["status"] == "ok" and row["text"] and row["kind"] in ("static", "dynamic"):
            guess = row["dataset"] != DATASET and drawn_only(row["model"], row["revision"])
            found.setdefault(row["image_id"], PictureCaption(row["text"], REMARK if guess else None))
    return found


def _write(pictures: Iterator[pa.Table], path: Path) -> None:
    seen: set[str] = set()
    with pq.ParquetWriter(path, IMAGES) as writer:
        for table in pictures:
            ids = table["image_id"].to_pylist()
            new = [each is not None and each not in seen and not seen.add(each) for each in ids]  # type: ignore[func-returns-value]
            writer.write_table(table.filter(pa.array(new, pa.bool_())).cast(IMAGES))


def _run(words: list[str], folder: Path, look: Callable[[], None]) -> tuple[int, str]:
    """Exit code and last words."""
    secret = ("TOKEN", "SECRET", "PASSWORD")
    environment = {name: value for name, value in os.environ.items() if not (name.startswith("REID_RAY") and name.endswith(secret))}
    log = folder / "captions.log"
    with (
        log.open("wb") as stream,
        subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=stream, env=environment, start_new_session=True
        ) as child,
    ):
        try:
            while child.poll() is None:
                try:
                    child.wait(_LOOK_EVERY_S)
                except subprocess.TimeoutExpired:
                    look()
        finally:
            _end(child)
    lines = log.read_bytes()[-_LOG_BYTES:].decode("utf-8", "replace").splitlines()
    return child.returncode, next((line for line in reversed(lines) if line.strip()), "it did not say why")


def _end(child: subprocess.Popen[bytes]) -> None:
    """The child and what it started: asked first, so that it tidies up."""
    if child.poll() is not None:
        return
    for number, grace_s in ((signal.SIGTERM, _GRACE_S), (signal.SIGKILL, _GRACE_S)):
        try:
            os.killpg(child.pid, number)
            child.wait(grace_s)
            return
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
