"""The search job: crops become a gallery, and the gallery a page at an address. It tells by what to search, and asks nothing itself.

Knows order and words; what an index or a service is, their jobs know.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from reid_ray.config.called import keys_called
from reid_ray.config.common import ImagesConfig
from reid_ray.demo.first_search.config import SearchJob
from reid_ray.errors import DataError
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.redaction import redacted
from reid_ray.retrieval.encoder_identity import encoder_identity, knows_drawn_people_only
from reid_ray.retrieval.index.config import IndexJob
from reid_ray.retrieval.index.job import run_index
from reid_ray.serve.config import ServeJob
from reid_ray.serve.job import run_until_stopped, start_service
from reid_ray.serve.opened_access import check_access
from reid_ray.serve.process.http_thread import bound_socket
from reid_ray.serve.service_state import state_folder
from reid_ray.storage import MANIFEST, read_manifest
from reid_ray.terminal.counted import counted
from reid_ray.terminal.own_lines import say

_WORDS = {"images.path": "FOLDER", "encoder": "--encoder", "output.path": "--out"}  # of the command line, in the place of keys

def run_search(config: SearchJob) -> dict[str, Any]:
    """Run the job until Ctrl-C; returns the manifest of the gallery.

    Raises:
        ConfigError: the port is taken, which is told before anything is embedded; and as the serve job.
        DataError: as the index job.
    """
    started = time.perf_counter()
    with keys_called(_of_serve):
        check_access(config.serve)
        bound_socket(config.serve.serve.host, config.serve.serve.port).close()
    with keys_called(_of_index):
        changed = changed_since(config.index)
        manifest = run_index(config.index, before=partial(refuse_searched, config.index, config.serve)) if changed is None else changed
    with keys_called(_of_serve):
        service = start_service(config.serve)
    with service, searched(config.serve):
        with closing(GalleryView(config.index.output.path)) as view:
            encoder, seconds = str(config.index.encoder), time.perf_counter() - started
            say(how_to_search(len(view), seconds, encoder, drawn_people_only=knows_drawn_people_only(encoder)))
        if config.keep_serving:
            run_until_stopped(service)
        else:
            say(f"serve: answered at {service.url}/, and is stopped")
    return manifest


def _of_serve(key: str) -> str:
    """What a key of the serve job is called here."""
    return f"serve.{key}"


def _of_index(key: str) -> str:
    """What a key of the index job is called here: those of a folder's columns, which several jobs have, are said without their section."""
    name = f"images.{key}" if key in ImagesConfig.model_fields else key
    return f"index.{name}" + (f" ({_WORDS[name]})" if name in _WORDS else "")


@contextmanager
def searched(config: ServeJob) -> Iterator[None]:
    """Tell other search jobs, until the block ends or the process dies, that this one searches its gallery."""
    _mark(config).parent.mkdir(mode=0o700, exist_ok=True)
    with _mark(config).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def refuse_searched(index: IndexJob, config: ServeJob) -> None:
    """Before a gallery is made anew of other pictures or columns: nobody's search may change under him. More of the same is welcome.

    Raises:
        DataError: another search job searches it.
    """
    manifest = Path(index.output.path) / MANIFEST
    if not _mark(config).exists() or not manifest.is_file():
        return
    images = read_manifest(manifest.parent).get("config", {}).get("images")
    if images == redacted(index.model_dump(mode="json"))["images"]:
        return
    with _mark(config).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(
                f"{config.index}: another search of it runs, and would answer from what is made anew with other pictures or columns; stop that "
                "one, ask as it was asked, or choose another --out"
            ) from None


def _mark(config: ServeJob) -> Path:
    return state_folder(config.index, config.state) / "searched"


def changed_since(config: IndexJob) -> dict[str, Any] | None:
    """The manifest of a gallery that the index job made with this encoder, and that a service or its owner changed since; else None.

    Such a gallery is searched as it is: made anew, it would lack what was added and hold again what was erased.
    """
    folder = Path(config.output.path)
    if config.output.if_exists != "reuse" or not (folder / MANIFEST).is_file():
        return None
    manifest = read_manifest(folder)
    facts = manifest.get("facts", {})
    if manifest.get("job") != "index" or facts.get("encoder_fingerprint") != encoder_identity(str(config.encoder))[1]:
        return None
    with closing(GalleryView(folder)) as view:
        now = (view.generation, len(view))
    if now == (facts.get("generation"), facts.get("items")):
        return None
    say(
        f"search: {folder} was added to, or something was deleted or erased, since it was made, so it is searched as it is; "
        "new pictures: reid-ray service add FOLDER"
    )
    return manifest


def how_to_search(found: int, seconds: float, encoder: str, *, drawn_people_only: bool) -> str:
    """What a user is told of her gallery: by pictures first, and what words are good for."""
    words = (
        f"by words: the box is there, too, but {encoder} has read nothing but captions of drawn people: expect colours at best.\n"
        "          An encoder that knows photographs: --encoder openai/clip-vit-base-patch16, or the model/ folder of a training"
        if drawn_people_only
        else f"by words: as well as {encoder} reads them"
    )
    return (
        f"search: {counted(found, 'picture')} can be searched, after {seconds:.0f} s\n"
        "by picture: drop one on the page, or press More like this on one that is there\n" + words
    )
