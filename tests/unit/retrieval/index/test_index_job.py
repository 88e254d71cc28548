"""What becomes of the rows of embed tables in a gallery: every row an item or a counted reason, whichever piece it comes in."""

from __future__ import annotations

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from refusals import refused

from reid_ray.errors import DataError
from reid_ray.gallery.bulk.sealed_piece import PIECES
from reid_ray.gallery.config import GalleryConfig
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.gallery.gallery_writer import GalleryWriter, create_gallery
from reid_ray.records import EMBEDDINGS, table_of
from reid_ray.retrieval.embed_stream import ENCODER, THUMBNAIL
from reid_ray.retrieval.index.blocks_in_memory import BlockRows
from reid_ray.retrieval.index.config import IndexJob
from reid_ray.retrieval.index.piece_sealing import PieceTerms, left_out_file, seal_rows
from reid_ray.retrieval.index.table_adding import add_tables
from reid_ray.retrieval.index.table_pieces import cut_tables, files_of, made_by
from reid_ray.storage import JobOutput
from reid_ray.storage.lock import OutputLock

DIM = 8
IMAGES = {"source": "folder", "path": "c"}
NAN = np.full(DIM, np.nan, np.float32)


def vector_of(number):
    vector = np.random.default_rng(number).normal(size=DIM).astype(np.float32)
    return vector / np.linalg.norm(vector)


def batch(numbers, *, encoder="e", version=0, **changes):
    """Every fifth image failed. `changes` are {column: {number: value}}."""
    rows = []
    for n in numbers:
        failed = n % 5 == 0
        row = {"item_id": f"{n}", "kind": "image", "image_id": f"{n}", "person_id": n // 3, "status": "failed" if failed else "ok"}
        row |= {"reason": f"{'truncated' if n % 2 else 'missing'}: why"} if failed else {"embedding": vector_of(n + 1000 * version)}
        rows.append(row | {name: values[n] for name, values in changes.items() if n in values})
    pictures = [None if row["status"] == "failed" else b"jpeg %d of %d" % (version, n) for n, row in zip(numbers, rows, strict=True)]
    table = table_of(EMBEDDINGS, rows).append_column(THUMBNAIL, pa.array(pictures, pa.binary()))
    return table.append_column(ENCODER, pa.array([encoder] * len(rows), pa.string()))


def terms(folder, **changes):
    return PieceTerms(
        **{"pieces": str(folder), "dim": DIM, "encoder": "e", "config": GalleryConfig(), "include_synthetic": False, **changes}
    )


def build(folder, *pieces):
    """A gallery of pieces, each a list of blocks."""
    create_gallery(folder, dim=DIM, encoder="e")
    sealed = [seal_rows(f"{at}", BlockRows(tuple(blocks), "t"), terms(folder / "pieces")) for at, blocks in enumerate(pieces)]
    with GalleryWriter(folder) as writer:
        writer.adopt(folder / "pieces", sealed, encoder="e")
    return sealed


def test_every_row_is_an_item_with_its_own_vector_and_picture_or_a_reason_that_is_counted_and_kept(tmp_path):
    odd = batch(
        [11, 12, 13, 14, 16, 17],
        embedding={11: NAN, 12: vector_of(12) * 2, 13: [1.0]},
        synthetic={14: True},
        kind={16: "text"},
        item_id={17: ""},
    )
    sealed = seal_rows("one", BlockRows((batch([1, 2, 5, 3]), batch([10]), batch([]), odd, batch([4])), "t"), terms(tmp_path / "pieces"))
    expected = {"read": 12, "taken": 4, "truncated": 1, "missing": 1, "not_unit": 3, "synthetic": 1, "is_a_text": 1, "no_id": 1}
    assert sealed.counts == expected
    left_out = pq.read_table(left_out_file(tmp_path / "pieces", "one"))
    assert left_out["item_id"].to_pylist() == ["5", "10", "11", "12", "13", "14", "16", ""]
    assert set(left_out["status"].to_pylist()) == {"failed"}
    create_gallery(tmp_path / "gallery", dim=DIM, encoder="e")
    with GalleryWriter(tmp_path / "gallery") as writer:
        writer.adopt(tmp_path / "pieces", [sealed], encoder="e")
        assert writer.view.ids() == ["1", "2", "3", "4"]
        for n in (1, 2, 3, 4):
            (hit,) = writer.view.search(vector_of(n)[None], 1)[0]
            assert (hit.item_id, hit.item["person_id"], writer.view.thumbnail(hit.item_id)) == (f"{n}", n // 3, b"jpeg 0 of %d" % n)


def test_of_rows_with_one_id_the_last_is_taken_in_a_piece_and_over_pieces(tmp_path):
    first, second = build(tmp_path / "g", [batch([1, 2]), batch([1], version=1)], [batch([2, 3], version=2)])
    assert (first.counts["replaced"], first.counts["taken"], second.counts["taken"]) == (1, 2, 2)
    view = GalleryView(tmp_path / "g")
    assert view.ids() == ["1", "2", "3"]
    assert [view.thumbnail(item) for item in "123"] == [b"jpeg 1 of 1", b"jpeg 2 of 2", b"jpeg 2 of 3"]
    np.testing.assert_array_equal(view.vectors(["1", "2", "3"]), [vector_of(1001), vector_of(2002), vector_of(2003)])


@pytest.mark.slow
def test_after_an_update_in_another_order_every_hit_shows_its_own_person(tmp_path):
    """What is shown goes by the id: once 50 of 50 pictures were other people's after items had come in another order."""
    numbers = [n for n in range(63) if n % 5]
    build(tmp_path / "g", [batch(numbers)])
    reader = GalleryView(tmp_path / "g")
    hits = [reader.search(vector_of(n)[None], 1)[0][0] for n in numbers]
    shuffled = np.random.default_rng(0).permutation(numbers).tolist()
    update = tmp_path / "g" / "pieces"
    sealed = [seal_rows("new", BlockRows((batch(shuffled),), "t"), terms(update))]
    with GalleryWriter(tmp_path / "g") as writer:
        writer.adopt(update, sealed, encoder="e")
    reader.refresh()
    assert reader.ids() == [f"{n}" for n in shuffled]
    for n, before in zip(numbers, hits, strict=True):
        (now,) = reader.search(vector_of(n)[None], 1)[0]
        assert (now.item_id, now.item["person_id"]) == (before.item_id, before.item["person_id"]) == (f"{n}", n // 3)
        assert reader.thumbnail(before.item_id) == b"jpeg 0 of %d" % n
        assert now.generation > before.generation


def test_vectors_of_another_encoder_or_tables_of_another_program_are_refused(tmp_path):
    with refused(DataError, "t", "another", "e"):
        seal_rows("one", BlockRows((batch([1]), batch([3], encoder="another")), "t"), terms(tmp_path / "pieces"))
    with refused(DataError, "kind", "embed"):
        seal_rows("one", BlockRows((batch([1]).drop_columns(["kind"]),), "t"), terms(tmp_path / "pieces"))
    assert not list(tmp_path.rglob("*.json"))


def tables(folder):
    """Three files: of 40, 25 and 5 rows, in row groups of 10."""
    folder.mkdir()
    for name, numbers in (("a", range(40)), ("b", range(40, 65)), ("c", range(65, 70))):
        pq.write_table(batch(list(numbers)), folder / f"{name}.parquet", row_group_size=10)
    return files_of([str(folder)])


def test_pieces_are_cut_by_the_tables_alone_and_hold_every_row_once_in_order(tmp_path):
    files = tables(tmp_path / "t")
    pieces = cut_tables(files, GalleryConfig(segment_rows=15, merge_rows=1000))
    assert [piece.rows for piece in pieces] == [20, 20, 20, 10]
    assert [row for piece in pieces for _, table in piece.read(["item_id"]) for row in table["item_id"].to_pylist()] == [
        f"{n}" for n in range(70)
    ]
    assert [piece.rows for piece in cut_tables(files, GalleryConfig())] == [70]
    assert made_by(files) == (DIM, "e")


def test_a_piece_that_is_there_is_not_made_again_and_one_of_a_changed_file_or_of_other_terms_is_another(tmp_path, monkeypatch):
    (piece,) = cut_tables(tables(tmp_path / "t"), GalleryConfig())
    first = seal_rows(piece.name(terms(tmp_path)), piece, terms(tmp_path / "pieces"))
    monkeypatch.setattr("reid_ray.retrieval.index.piece_sealing.seal_piece", None)
    assert seal_rows(piece.name(terms(tmp_path)), piece, terms(tmp_path / "pieces")) == first
    names = {
        piece.name(terms(tmp_path)),
        piece.name(terms(tmp_path, config=GalleryConfig(dtype="float16"))),
        piece.name(terms(tmp_path, include_synthetic=True)),
    }
    shutil.copy(tmp_path / "t" / "a.parquet", tmp_path / "t" / "c.parquet")
    names.add(cut_tables(files_of([str(tmp_path / "t")]), GalleryConfig())[0].name(terms(tmp_path)))
    assert len(names) == 4


def test_two_cannot_add_to_one_gallery_and_the_second_is_told_who_does(tmp_path):
    tables(tmp_path / "t")
    create_gallery(tmp_path / "g", dim=DIM, encoder="e")
    with GalleryWriter(tmp_path / "g"), refused(DataError, str(tmp_path / "g"), "another run"):
        add_tables(tmp_path / "g", [str(tmp_path / "t")], GalleryConfig())
    other = OutputLock(tmp_path / "g" / PIECES, "gallery add --by-tasks")
    other.acquire()
    with refused(DataError, str(tmp_path / "g"), "another run"):
        add_tables(tmp_path / "g", [str(tmp_path / "t")], GalleryConfig(), by_tasks=True)
    other.release()
    create_gallery(tmp_path / "other", dim=DIM, encoder="another")
    with refused(DataError, "another", "encoder e"):
        add_tables(tmp_path / "other", [str(tmp_path / "t")], GalleryConfig())


def test_the_lock_of_a_gallery_in_a_folder_that_never_appeared_goes_with_it(tmp_path):
    left = [tmp_path / "..out.0123abcd.partial.lock", tmp_path / ".out.0123abcd.partial"]
    left[0].touch()
    left[1].mkdir()
    others = tmp_path / "..out.x.0123abcd.partial.lock"
    others.touch()
    with JobOutput("index", tmp_path / "out", GalleryConfig()):
        assert not left[0].exists()
        assert not left[1].exists()
    assert others.exists()


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({}, "exactly one"),
        ({"images": IMAGES, "embeddings": ["e"], "encoder": "m"}, "exactly one"),
        ({"images": IMAGES}, "encoder"),
        ({"embeddings": ["e"], "thumbnail_height": 64}, "thumbnail_height"),
    ],
)
def test_what_does_not_go_together_is_refused(config, word, tmp_path):
    with pytest.raises(ValidationError) as caught:
        IndexJob.model_validate({**config, "output": {"path": str(tmp_path)}})
    assert word in str(caught.value)
