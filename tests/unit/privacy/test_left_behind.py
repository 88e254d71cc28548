"""Marked texts, pictures and tokens go in; whatever is written beside the outputs that are meant to hold them is searched for the marks."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import logging
import multiprocessing
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.managers import BaseManager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from answered_works import captioned
from opened_doors import own_machine
from PIL import Image
from small_services import Reading, red_jpeg, sent, small_gallery, small_operations

from reid_ray.caption.actors import engine_actor
from reid_ray.caption.actors.caption_actor import CaptionActor
from reid_ray.caption.actors.engine_actor import PassPlace
from reid_ray.caption.actors.rewrite_actor import RewriteActor
from reid_ray.caption.config import CaptionerConfig, CaptionJob, FaithfulnessConfig, RewriterConfig
from reid_ray.caption.engines.protocol import Reply
from reid_ray.caption.ledger.attempt_board import AttemptBoard
from reid_ray.caption.ledger.config import LedgerConfig
from reid_ray.caption.ledger.missing import ASK
from reid_ray.caption.ledger.row_keys import ASK_TYPE, CaptionRecipe, ImageAsk, RewriteRecipe
from reid_ray.caption.ledger.write_ahead_log import Ledger, ledger_table, open_ledger
from reid_ray.caption.report.page import Sample, render_report
from reid_ray.caption.report.statistics import RunStatistics
from reid_ray.caption.rows import staged_table
from reid_ray.config import load_config
from reid_ray.config.common import ImagesConfig
from reid_ray.data.containers.caption_store import CaptionStore
from reid_ray.data.images import decode_image, encode_jpeg, jpeg_thumbnail
from reid_ray.data.ingest.config import IngestJob
from reid_ray.data.ingest.job import run_ingest
from reid_ray.data.lint.config import LintJob
from reid_ray.data.lint.job import run_lint
from reid_ray.data.sources import iter_images
from reid_ray.records import IDENTITY_COLUMNS
from reid_ray.retrieval.query import text_query
from reid_ray.scratch import scratch_folder
from reid_ray.serve.api.application import make_api
from reid_ray.serve.operations.search_operations import QueryFailedError
from reid_ray.storage import JobOutput, read_manifest
from reid_ray.train.dual.config import TrainJob
from reid_ray.train.run import _run_folder

MARK = "canary"
CAPTION = "A man in a canary coat carries a green umbrella."
COMMENT = b"canary of the camera's owner"


def marked_jpeg(seed: int = 0) -> bytes:
    """A picture whose file says more than its pixels: EXIF and a comment."""
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x010E] = "canary of a place"
    pixels = np.random.default_rng(seed).integers(0, 256, (64, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG", exif=exif, comment=COMMENT)
    assert buffer.getvalue().count(MARK.encode()) == 2
    return buffer.getvalue()


def pictures_of(page: bytes) -> bytes:
    """The pictures that a page holds as data: URLs, one after the other."""
    return b"".join(base64.b64decode(picture) for picture in re.findall(rb"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", page))


def marked_files(folder: Path, *, but: tuple[str, ...] = ()) -> list[str]:
    """Files below a folder that hold the mark, tables read as tables and a page's pictures as files; `but` is meant to hold it."""
    found = []
    for file in folder.rglob("*"):
        if not file.is_file() or any(part in but for part in file.relative_to(folder).parts):
            continue
        content = repr(pq.read_table(file).to_pylist()).encode() if file.suffix == ".parquet" else file.read_bytes()
        if MARK.encode() in content + pictures_of(content if file.suffix == ".html" else b""):
            found.append(str(file.relative_to(folder)))
    return found


# --- an engine that quotes what it was asked when it fails


class Quoting:
    """Raises with the question in its message, in one of the ways of a library."""

    def __init__(self, quote: Callable[[str], str]) -> None:
        self.quote = quote

    def chat(self, conversations, keys):
        content = conversations[0][0]["content"]
        raise RuntimeError(f"the engine is in trouble over {self.quote(content if isinstance(content, str) else repr(content))}")


class Hanging:
    """Hangs with the question in its hands."""

    def chat(self, conversations, keys):
        held = [f"{message} {CAPTION}" for message in conversations]
        time.sleep(60)
        return held


QUOTES = {"repr": repr, "words": str, "list": lambda text: str([{"text": text}]), "half": lambda text: text[10:40]}


class BoardElsewhere(BaseManager):
    """A process that holds an attempt board, as a Ray actor does for a run."""


BoardElsewhere.register("AttemptBoard", AttemptBoard)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Where actors of one name, in processes that follow one another, put their rows."""
    monkeypatch.setattr(engine_actor, "_actor_id", lambda: "actor")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    (tmp_path / "tmp").mkdir()
    with open_ledger(tmp_path / "out") as ledger, BoardElsewhere(address=("127.0.0.1", 0)) as manager:
        yield PassPlace(ledger, manager.AttemptBoard(), LedgerConfig(batch_timeout_s=0.5, group_seconds=0.1))


def until_given_up(make: Callable[[], Callable[[pa.Table], pa.Table]], rows: pa.Table) -> pa.Table:
    """Run an actor in processes of their own while it dies, as Ray does, and the last time here."""
    for _ in range(2):
        process = multiprocessing.get_context("fork").Process(target=lambda: make()(rows))
        process.start()
        process.join()
        assert process.exitcode != 0
    return make()(rows)


def parent(ledger: Ledger, recipe: CaptionRecipe) -> pa.Table:
    (ask,) = recipe.requests("0.png", "s")
    row = {"caption_id": ask.caption_id, "image_id": "0.png", "image_sha256": "s", "kind": "static", "text": CAPTION, "status": "ok"}
    return ledger_table(staged_table([row]), [ask.keys[0]], ledger.run)


class Never:
    def score(self, originals, rewrites):
        raise AssertionError


@pytest.mark.slow
@pytest.mark.parametrize("engine", [*(Quoting(quote) for quote in QUOTES.values()), Hanging()], ids=[*QUOTES, "hangs"])
def test_a_caption_that_an_engine_quotes_when_it_fails_is_in_no_record_reason_or_output(tmp_path, capfd, place, engine):
    config, faithful = RewriterConfig(share=1), FaithfulnessConfig()
    recipe = RewriteRecipe(config, faithful, revision="r", scorer_revision="s")
    rows = parent(place.ledger, CaptionRecipe(CaptionerConfig(), revision="r", templates=None, max_pixels=9))
    arguments = {"recipe": recipe, "revision": "r", "place": place, "engine": engine, "scorer": Never()}
    done = until_given_up(lambda: RewriteActor(config, faithful, **arguments), rows)
    (reason,) = [row["reason"] for row in done.to_pylist() if row["kind"] == "rewrite"]
    assert reason.startswith("quarantined: ")
    assert ("timed out" if isinstance(engine, Hanging) else "RuntimeError: the engine is in trouble") in reason
    assert MARK not in reason
    assert marked_files(tmp_path) == []
    assert MARK not in "".join(capfd.readouterr())


@pytest.mark.slow
def test_the_pixels_that_an_engine_prints_when_it_fails_are_in_no_reason(tmp_path, capfd, place):
    class Printing:
        def chat(self, conversations, keys):
            raise ValueError(f"cannot take pixels {np.asarray(conversations[0][0]['content'][0]['image_pil']).tolist()} of this shape")

    config = CaptionerConfig()
    recipe = CaptionRecipe(config, revision="r", templates=None, max_pixels=10_000)
    (tmp_path / "crops").mkdir()
    (tmp_path / "crops" / "0.jpg").write_bytes(marked_jpeg())
    (images,) = iter_images(ImagesConfig(source="folder", path=str(tmp_path / "crops")))
    ask = ImageAsk(tuple(recipe.requests(images["image_id"][0].as_py(), images["image_sha256"][0].as_py())), None)
    images = images.append_column(ASK, pa.array([ask.column_value()], ASK_TYPE))
    captioner = {"name": "main", "revision": "r", "max_pixels": 10_000}
    (row,) = until_given_up(lambda: CaptionActor(dict(captioner), config, place=place, engine=Printing()), images).to_pylist()
    assert row["reason"].startswith("quarantined: ValueError: cannot take pixels ...")
    assert not any(character.isdigit() for character in row["reason"])
    assert marked_files(tmp_path, but=("crops",)) == []
    assert MARK not in "".join(capfd.readouterr())


def test_a_captioner_keeps_nothing_of_a_file_but_its_caption():
    class Silent:
        def chat(self, conversations, keys):
            return [Reply("A man in a grey coat and black shoes.") for _ in conversations]

    who = {name: pa.nulls(2) for name in IDENTITY_COLUMNS}
    files = {"image_id": ["0", "1"], "image": [marked_jpeg(), marked_jpeg()[:500]], "image_sha256": ["s", "t"], "path": ["p", "q"]}
    rows = captioned(pa.table(files | who), Silent(), CaptionerConfig())
    assert [row["status"] for row in rows] == ["ok", "failed"]
    assert MARK not in repr(rows)


# --- the service


class Broken(Reading):
    """An encoder that quotes the query when it fails."""

    def encode_and_measure(self, texts):
        raise ValueError(f"cannot encode {texts}")

    def encode_images(self, pictures):
        raise ValueError(CAPTION)


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """Everything that any logger says, from INFO on: who asks Pillow for DEBUG is told what it reads, tag by tag."""
    said, root = io.StringIO(), logging.getLogger()
    handler, level = logging.StreamHandler(said), root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield said
    root.removeHandler(handler)
    root.setLevel(level)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "options", "status"),
    [
        ("/v1/search", {"json": {"text": CAPTION}}, 500),
        ("/v1/search", {"json": {"text": CAPTION, "k": CAPTION}}, 422),
        ("/v1/search", {"json": {"clues": [{"item": CAPTION}]}}, 422),
        ("/v1/search", {"content": CAPTION}, 422),
        ("/v1/search/upload", {"files": {"image": CAPTION.encode()}}, 422),
        ("/v1/search/upload", {"files": {"image": red_jpeg(1)}}, 500),
        ("/v1/search", {"json": {"clues": [{"image": CAPTION}]}}, 422),
    ],
)
def test_a_query_that_fails_is_in_no_log_and_in_no_answer(tmp_path, capfd, logged, path, options, status):
    api = make_api(small_operations(small_gallery(tmp_path / "gallery"), encoder=Broken()), access=own_machine(tmp_path))
    reply = sent(api, "POST", path, **options)
    assert reply.status_code == status
    assert MARK not in reply.text
    assert MARK not in logged.getvalue() + "".join(capfd.readouterr())
    assert ("a question failed: ValueError in " in logged.getvalue()) == (status == 500)


def test_what_a_search_raises_says_where_and_not_what(tmp_path):
    operations = small_operations(small_gallery(tmp_path / "gallery"), encoder=Broken())
    with pytest.raises(QueryFailedError, match=r"^ValueError in test_left_behind.py, line \d+$") as raised:
        asyncio.run(operations.search(text_query(CAPTION, k=1)))
    assert raised.value.__cause__ is None  # or its message would be printed, too
    assert raised.value.__suppress_context__


# --- what a picture's file says besides its pixels, and temporary files


def test_thumbnails_and_encoded_pictures_hold_pixels_alone():
    picture = decode_image(marked_jpeg())
    for made in (encode_jpeg(picture), jpeg_thumbnail(picture, width=16, height=16)):
        assert MARK.encode() not in made


def test_the_report_of_a_run_shows_pixels_alone(tmp_path):
    row = {"status": "ok", "faithfulness": None, "instruction_id": "static", "kind": "static", "text": "A man.", "reason": None}
    manifest = {
        "job": "caption",
        "started": "now",
        "fingerprint": "f",
        "counts": {"read": 1, "written": 1, "failed": {}},
        "timings": {"total_seconds": 1.0},
        "facts": {},
        "inputs": {},
        "environment": {"processor": "p", "cpu_count": 1, "memory_bytes": 1, "versions": {}, "commit": "c", "command": "report"},
    }
    samples = [Sample("0.jpg", marked_jpeg(), (row,))]
    page = render_report(title="run", statistics=RunStatistics(rows=1), manifest=manifest, samples=samples, alpha=None)
    (tmp_path / "report.html").write_text(page)
    assert Image.open(io.BytesIO(pictures_of(page.encode()))).size == (32, 64)
    assert marked_files(tmp_path) == []


def test_ingest_and_lint_leave_a_pictures_words_in_the_pictures_alone(tmp_path, monkeypatch, capfd, logged):
    import tempfile

    crops, scratch = tmp_path / "crops", tmp_path / "scratch"
    for folder in (crops, scratch):
        folder.mkdir()
    for number in range(4):
        (crops / f"{number}.jpg").write_bytes(marked_jpeg(number % 3))  # two of them alike, so that lint shows them
    (crops / "cut.jpg").write_bytes(marked_jpeg(5)[:500])
    (crops / "text.jpg").write_bytes(COMMENT)
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr(tempfile, "tempdir", None)
    source = [f"source.path={crops}", "source.format=folder", "load.processes=1"]
    run_ingest(load_config(IngestJob, None, [*source, f"output.path={tmp_path / 'tables'}"]))
    run_lint(load_config(LintJob, None, [*source, f"output.path={tmp_path / 'lint'}"]))
    assert marked_files(tmp_path / "tables") == ["images/part-00000.parquet"]
    assert marked_files(tmp_path, but=("crops", "tables")) == []
    assert list(scratch.iterdir()) == []
    assert MARK not in logged.getvalue() + "".join(capfd.readouterr())


@pytest.mark.slow
def test_captions_that_wait_for_their_images_lie_in_no_file_that_has_a_name():
    with CaptionStore() as store:
        store.add_all((f"{number}", {"text": CAPTION * 20}) for number in range(20_000))
        # SQLite's name for such files is its own, read backwards.
        (mine,) = [file.stat() for file in Path("/proc/self/fd").iterdir() if "etilqs_" in os.path.realpath(file)]
        assert (mine.st_nlink, oct(mine.st_mode & 0o777)) == (0, "0o600")
        assert mine.st_size > 10 << 20  # it is on the disk, not in memory


def _hold(folder: Path, ready) -> None:
    os.environ["TMPDIR"] = str(folder)
    import tempfile

    tempfile.tempdir = None
    with scratch_folder() as scratch:
        (scratch / "weights").write_text(CAPTION)
        ready.set()
        time.sleep(60)


def test_a_scratch_folder_is_private_and_one_that_a_killed_process_left_is_removed_by_the_next(tmp_path, monkeypatch):
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=_hold, args=(tmp_path, ready))
    process.start()
    assert ready.wait(30)
    with scratch_folder() as mine:
        assert oct(mine.parent.stat().st_mode & 0o777) == "0o700"
        assert len(marked_files(tmp_path)) == 1  # of one that is alive
        process.kill()
        process.join()
    assert len(marked_files(tmp_path)) == 1
    with scratch_folder():
        assert marked_files(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_scratch_folder_is_held_from_the_moment_at_which_others_see_it(tmp_path, monkeypatch):
    import fcntl
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    flock, other = fcntl.flock, contextlib.ExitStack()

    def flock_while_another_begins(file, operation):
        monkeypatch.setattr(fcntl, "flock", flock)
        other.enter_context(scratch_folder())
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock_while_another_begins)
    with other, scratch_folder() as mine:
        assert mine.is_dir()


# --- manifests, and who may enter the folders that outlive a job


def test_a_manifest_holds_no_secret_of_the_command_or_the_configuration(tmp_path, monkeypatch):
    extra = "captioners.main.engine.extra={hf_token: canary-token, quantization: fp8}"
    config = load_config(CaptionJob, None, [extra, f"output.path={tmp_path / 'out'}"])
    monkeypatch.setattr(sys, "argv", ["jobs/caption.py", extra, "https://user:canary@host/models"])
    with JobOutput("caption", config.output.path, config):
        pass
    manifest = read_manifest(tmp_path / "out")
    assert marked_files(tmp_path) == []
    assert manifest["config"]["captioners"]["main"]["engine"]["extra"] == {"hf_token": "***", "quantization": "fp8"}
    assert manifest["environment"]["command"].startswith("jobs/caption.py captioners.main.engine.extra={hf_token: ***")

    def kept(extra: str) -> bool:
        again = load_config(CaptionJob, None, [extra, f"output.path={tmp_path / 'out'}", "output.if_exists=reuse"])
        return JobOutput("caption", again.output.path, again, if_exists="reuse").finished() is not None

    assert kept(extra.replace("canary", "another"))  # another key opens the same model
    assert not kept(extra.replace("fp8", "awq"))


def test_folders_that_outlive_a_job_are_closed_to_others_and_the_output_follows_the_users_umask(tmp_path, monkeypatch):
    old = os.umask(0o022)
    try:
        with open_ledger(tmp_path / "captions") as ledger:
            assert oct(ledger.folder.stat().st_mode & 0o777) == "0o700"
        values = ["images.path=x", "captions.paths=[x]", f"output.path={tmp_path / 'model'}", "workers.count=1"]
        recipe = SimpleNamespace(job="train", config=load_config(TrainJob, None, values))
        with _run_folder(recipe, JobOutput("train", tmp_path / "model", recipe.config)) as (folder, _):
            assert oct(folder.stat().st_mode & 0o777) == "0o700"
        with JobOutput("caption", tmp_path / "out", recipe.config) as out:
            (out.folder / "rows").write_text("x")
        assert [oct(path.stat().st_mode & 0o777) for path in (tmp_path / "out", tmp_path / "out" / "rows")] == ["0o755", "0o644"]
    finally:
        os.umask(old)
