"""The search service that tests of the page open in a browser: the real application over a gallery of synthetic people, on a free port.

Its encoder needs no weights: a picture is its colours in a grid, a text the colour that it names. One item has markup for a caption, an id
and a file name.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from small_galleries import make_gallery

from reid_ray.config.common import SyntheticConfig
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.retrieval.search import SearchEngine
from reid_ray.retrieval.searched_folder import SearchedGallery
from reid_ray.serve.access.config import AccessConfig, AuditConfig
from reid_ray.serve.access.roles import AccessRole
from reid_ray.serve.access.service_access import open_access
from reid_ray.serve.access.tokens.token_file import create_token
from reid_ray.serve.adding.config import AddingConfig
from reid_ray.serve.adding.write_operations import WriteOperations
from reid_ray.serve.api.application import make_api
from reid_ray.serve.api.upkeep.change_answers import ChangeDoer, job_recorder
from reid_ray.serve.api.upkeep.job_routes import job_routes, job_rules
from reid_ray.serve.api.upkeep.write_routes import WRITE_RULES, write_routes
from reid_ray.serve.config import SearcherConfig, ServeConfig
from reid_ray.serve.operations.config import WritingConfig
from reid_ray.serve.operations.search_operations import SearchOperations
from reid_ray.serve.process.http_thread import bound_socket, running_server

EVIL = "<img src=x onerror=\"document.title='taken'\"><script>window.taken=1</script> \"quoted\" & 'more'"
EVIL_ID = "=cmd|'<b>x</b>'\"&#/../é.jpg"
COLOURS = {"red": (200, 40, 40), "blue": (40, 60, 200), "green": (40, 150, 60), "hat": (230, 200, 90), "black": (20, 20, 20)}
_ROWS, _COLUMNS = 8, 3


class Colours:
    """An encoder of colours in a grid. Several pictures are a job's: these wait until `go` is set, as it is at first."""

    dim, context, reads_texts, fingerprint = _ROWS * _COLUMNS * 3, 20, True, "e"

    def __init__(self):
        self.go = threading.Event()
        self.go.set()

    def encode_texts(self, texts):
        return np.stack([_unit(np.tile(self._colour(text), (_ROWS * _COLUMNS, 1))) for text in texts])

    def encode_and_measure(self, texts):
        return self.encode_texts(texts), np.array([len(text.split()) for text in texts])

    def encode_images(self, pictures):
        if len(pictures) > 1:
            self.go.wait(60)
        return np.stack([_unit(np.asarray(picture.convert("RGB").resize((_COLUMNS, _ROWS), Image.Resampling.BOX))) for picture in pictures])

    def _colour(self, text: str) -> np.ndarray:
        return np.mean([rgb for name, rgb in COLOURS.items() if name in text] or [(128, 128, 128)], axis=0)


def _unit(colours: np.ndarray) -> np.ndarray:
    vector = np.asarray(colours, np.float32).ravel() - 100.0
    return vector / np.linalg.norm(vector)


@dataclass
class PageService:
    """A running service: its address, and its rows, newest first; jobs go on while `go` is set, and lie in a folder."""

    url: str
    newest: list[dict[str, Any]]
    evil: dict[str, Any]
    tokens: dict[str, str]
    go: threading.Event
    jobs: Path


def people_rows(identities: int = 24, pictures: int = 4) -> list[dict[str, Any]]:
    """Synthetic people as rows of a gallery, oldest first; the last but four is the evil one."""
    people = SyntheticPeople(SyntheticConfig(identities=identities, images_per_identity=pictures, height=192, width=96))
    start = datetime(2026, 11, 1, tzinfo=UTC)
    rows = []
    for n, (image, captions) in enumerate(zip(people.image_table().to_pylist(), people.captions(), strict=True)):
        known = {name: image[name] for name in ("image_id", "person_id", "camera_id", "split")}
        seen = start + timedelta(minutes=37 * n)
        rows.append({"item_id": f"i{n:03d}", **known, "caption": captions[0], "seen": seen, "thumbnail": image["image"]})
    rows[-5] |= {"item_id": EVIL_ID, "image_id": EVIL, "caption": EVIL, "split": "<i>split</i>"}
    return rows


@contextmanager
def page_service(folder: Path, *, with_tokens: bool = False) -> Iterator[PageService]:
    """The service, while the block lasts."""
    rows = people_rows()
    encoder = Colours()
    vectors = encoder.encode_images([Image.open(io.BytesIO(row["thumbnail"])) for row in rows])
    gallery, state, book = make_gallery(folder / "gallery", vectors, rows), folder / "gallery.service", folder / "tokens.json"
    tokens = {role.word: create_token(book, role.word, role, days=None) for role in AccessRole} if with_tokens else {}
    engine = SearchEngine(encoder, SearchedGallery(gallery))
    operations = SearchOperations(lambda: engine, ServeConfig(), SearcherConfig())
    operations.load()
    access = open_access(AccessConfig(tokens=str(book) if with_tokens else None), AuditConfig(sync_s=0), state=state, tls=False)
    writing = WriteOperations(str(gallery), state, WritingConfig(idle_s=0.05), AddingConfig(keep_jobs=2_000))
    writing.start(encoder, changed=engine.gallery.look, job_finished=job_recorder(access.audit))
    listening = bound_socket("127.0.0.1", 0)
    doer = ChangeDoer(writing.answers)
    further = [(write_routes(writing, doer), WRITE_RULES), (job_routes(writing, doer), job_rules(writing.board.config))]
    with running_server(make_api(operations, access=access, further=further), listening):
        yield PageService(f"http://127.0.0.1:{listening.getsockname()[1]}", rows[::-1], rows[-5], tokens, encoder.go, state / "jobs")
    encoder.go.set()
    for each in (writing, operations, access):
        each.close()
