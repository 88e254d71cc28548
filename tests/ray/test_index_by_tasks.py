"""A gallery that Ray tasks build of embed tables: the one that adding makes, after kills, too, and for whoever searches meanwhile."""

import os
import signal
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reid_ray.gallery.config import GalleryConfig
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.gallery.gallery_writer import GalleryWriter
from reid_ray.gallery.verification import faults_of
from reid_ray.records import EMBEDDINGS, table_of
from reid_ray.retrieval.index.config import IndexJob
from reid_ray.retrieval.index.job import run_index
from reid_ray.retrieval.index.piece_sealing import PieceTerms
from reid_ray.retrieval.index.table_adding import add_tables
from reid_ray.retrieval.index.table_pieces import RowGroups, cut_tables, files_of, sealed_by_tasks
from reid_ray.retrieval.query import Query
from reid_ray.retrieval.searched_folder import SearchedGallery

pytestmark = pytest.mark.slow
DIM = 8


def write_table(file, numbers, *, version=0):
    """Items of those numbers; every tenth failed."""
    rng = np.random.default_rng([version, numbers[0]])
    vectors = rng.normal(size=(len(numbers), DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = [
        {"item_id": f"i{n}", "image_id": f"i{n}", "kind": "image", "camera_id": n % 3}
        | ({"status": "failed", "reason": "empty: why"} if n % 10 == 0 else {"status": "ok", "embedding": vector.tolist()})
        for n, vector in zip(numbers, vectors, strict=True)
    ]
    table = table_of(EMBEDDINGS, rows).append_column("encoder_fingerprint", pa.array(["e"] * len(rows)))
    table = table.append_column("thumbnail", pa.array([b"%d of %d" % (n, version) for n in numbers], pa.binary()))
    file.parent.mkdir(exist_ok=True)
    pq.write_table(table, file, row_group_size=20)


def job(folder, name="index", **output):
    config = {"embeddings": [str(folder / "t")], "gallery": {"segment_rows": 50}, "output": {"path": str(folder / name), **output}}
    return IndexJob.model_validate(config)


def found(folder, queries):
    view = GalleryView(folder)
    hits = view.search(queries, 500, where={"camera_id": [0, 2]})
    return [[(hit.item_id, hit.score, view.thumbnail(hit.item_id)) for hit in each] for each in hits]


QUERIES = np.eye(DIM, dtype=np.float32)[:3]


@pytest.fixture
def tables(tmp_path):
    write_table(tmp_path / "t" / "a.parquet", list(range(120)))
    write_table(tmp_path / "t" / "b.parquet", list(range(100, 200)), version=1)
    return tmp_path


def test_tasks_build_the_gallery_that_adding_makes_and_a_killed_build_goes_on(local_ray, tables, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(GalleryWriter, "adopt", killed)
        with pytest.raises(KeyboardInterrupt):
            run_index(job(tables))
    pieces = {path.name for path in (tables / ".index.pieces").iterdir()}
    assert not (tables / "index").exists()
    with monkeypatch.context() as patched:
        patched.setattr(GalleryWriter, "adopt", killed)
        with pytest.raises(KeyboardInterrupt):
            run_index(job(tables))
    assert {path.name for path in (tables / ".index.pieces").iterdir()} == pieces  # none was made again
    manifest = run_index(job(tables))
    assert manifest["counts"] == {"read": 220, "written": 180, "failed": {"empty": 22}, "left_out": {"replaced": 18}}
    assert manifest["facts"]["segments"] == 4
    assert [path.name for path in tables.iterdir() if path.name.startswith(".")] == []
    add_tables(tables / "added", [str(tables / "t")], job(tables).gallery)
    assert found(tables / "index", QUERIES) == found(tables / "added", QUERIES)
    assert faults_of(tables / "index") == []
    counts = add_tables(tables / "again", [str(tables / "t")], job(tables).gallery, by_tasks=True)
    assert counts == {"added": 180, "empty": 22, "replaced": 18}
    assert found(tables / "again", QUERIES) == found(tables / "added", QUERIES)


def test_a_task_that_is_killed_is_run_again_and_makes_the_same_piece(local_ray, tables):
    (piece,) = cut_tables(files_of([str(tables / "t")]), job(tables).gallery.model_copy(update={"segment_rows": 500}))
    mark = tables / "killed once"

    @dataclass(frozen=True)
    class Killed(RowGroups):
        def read(self, columns):
            for number, (origin, table) in enumerate(super().read(columns)):
                if columns is None and number == 1 and not mark.exists():  # some of the segment is written
                    mark.touch()
                    os.kill(os.getpid(), signal.SIGKILL)
                yield origin, table

    terms = PieceTerms(str(tables / "pieces"), DIM, "e", GalleryConfig(), False)
    (sealed,) = sealed_by_tasks([Killed(piece.groups, piece.rows)], terms)
    assert mark.exists()
    again = PieceTerms(str(tables / "again"), DIM, "e", GalleryConfig(), False)
    (expected,) = sealed_by_tasks([piece], again)
    assert sealed.counts == expected.counts
    assert sealed.facts.files.keys() == expected.facts.files.keys()
    assert sealed.facts.files["vectors.npy"] == expected.facts.files["vectors.npy"]


def test_who_searches_while_a_gallery_is_built_anew_sees_the_older_one_or_the_newer(local_ray, tables):
    run_index(job(tables))
    open_meanwhile = SearchedGallery(tables / "index")
    before = [hit.item_id for hit in open_meanwhile.pages(QUERIES[:1], Query((), 500))[0].hits]
    write_table(tables / "t" / "c.parquet", list(range(300, 320)), version=2)
    view = GalleryView(tables / "index")
    run_index(job(tables, if_exists="replace"))
    assert [hit.item_id for hit in view.search(QUERIES[:1], 500)[0]] == before
    assert view.thumbnail("i199") == b"199 of 1"
    view.refresh()
    assert len(view) == len(before) + 18
    assert view.thumbnail("i301") == b"301 of 2"
    assert faults_of(tables / "index") == []
