"""Tables that tasks seal while others write to the gallery: writes go on, and who is erased meanwhile does not come back."""

import threading
from contextlib import nullcontext

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from refusals import refused

from reid_ray.errors import DataError
from reid_ray.gallery.bulk.sealed_piece import PIECES, PiecesGoneError
from reid_ray.gallery.config import GalleryConfig
from reid_ray.gallery.erasure import receipt_names
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.gallery.gallery_writer import GalleryWriter, create_gallery
from reid_ray.gallery.verification import faults_of
from reid_ray.records import EMBEDDINGS, table_of
from reid_ray.retrieval.index import table_adding
from reid_ray.retrieval.index.piece_sealing import seal_rows
from reid_ray.retrieval.index.table_adding import add_tables

DIM = 8
CONFIG = GalleryConfig(segment_rows=10)


def vector_of(number):
    vector = np.random.default_rng(number).normal(size=DIM).astype(np.float32)
    return vector / np.linalg.norm(vector)


def items(*numbers):
    vectors = pa.array(np.concatenate([vector_of(number) for number in numbers]))
    return pa.table({"item_id": [f"p{n:02}" for n in numbers], "embedding": pa.FixedSizeListArray.from_arrays(vectors, DIM)})


@pytest.fixture
def gallery(tmp_path):
    """A gallery of a few items, and beside it a table of thirty."""
    rows = [
        {"item_id": f"p{n:02}", "image_id": f"{n}", "kind": "image", "status": "ok", "embedding": vector_of(n).tolist()} for n in range(30)
    ]
    table = table_of(EMBEDDINGS, rows).append_column("encoder_fingerprint", pa.array(["e"] * 30))
    table = table.append_column("thumbnail", pa.array([b"picture of p%02d" % n for n in range(30)], pa.binary()))
    (tmp_path / "t").mkdir()
    pq.write_table(table, tmp_path / "t" / "a.parquet", row_group_size=10)
    create_gallery(tmp_path / "g", dim=DIM, encoder="e", config=CONFIG)
    with GalleryWriter(tmp_path / "g") as writer:
        writer.add(items(3, 40, 41), encoder="e")
    return tmp_path / "g"


def add(gallery, monkeypatch, *meanwhile):
    """Add the table by tasks, which here are calls; `meanwhile` is done once the first two pieces are there, in each try one."""
    waiting = list(meanwhile)

    def sealed(pieces, terms):
        found = [seal_rows(piece.name(terms), piece, terms) for piece in pieces[:2]]
        if waiting:
            waiting.pop(0)()
        return [*found, *(seal_rows(piece.name(terms), piece, terms) for piece in pieces[2:])]

    monkeypatch.setattr(table_adding, "ray_session", lambda _: nullcontext())
    monkeypatch.setattr(table_adding, "sealed_by_tasks", sealed)
    counts = add_tables(gallery, [str(gallery.parent / "t")], CONFIG, by_tasks=True)
    assert not waiting
    assert not [path.name for path in gallery.iterdir() if path.name.startswith(".") or path.name == PIECES]
    assert faults_of(gallery) == []
    return counts


def left_of(gallery, number):
    signs = (b"p%02d" % number, vector_of(number).tobytes())
    return [path for path in gallery.rglob("*") if path.is_file() and any(sign in path.read_bytes() for sign in signs)]


@pytest.mark.slow
def test_others_add_and_delete_while_tasks_seal_and_the_table_counts_as_added_last(gallery, monkeypatch):
    def write():
        with GalleryWriter(gallery) as writer:
            writer.add(items(5, 50), encoder="e")
            writer.delete(["p40"])
            writer.compact()

    assert add(gallery, monkeypatch, write) == {"added": 30}
    assert sorted(GalleryView(gallery).ids()) == sorted([*(f"p{n:02}" for n in range(30)), "p41", "p50"])
    assert GalleryView(gallery).thumbnail("p05") == b"picture of p05"


@pytest.mark.slow
@pytest.mark.parametrize("now", [False, True], ids=["hidden", "carried out"])
def test_who_is_erased_while_tasks_seal_does_not_come_back_and_is_gone_from_every_file(gallery, monkeypatch, now):
    def erase():
        with GalleryWriter(gallery) as writer:
            writer.erase(["p03", "p07", "p41"], request="one")  # the seventh is in a piece alone
            if now:
                writer.carry_out_erasures()

    tries = (erase, lambda: None) if now else (erase,)  # what is carried out takes the pieces along, and they are made again
    assert add(gallery, monkeypatch, *tries) == {"added": 28, "erased meanwhile": 2}
    assert not {"p03", "p07", "p41"} & set(GalleryView(gallery).ids())
    assert len(GalleryView(gallery)) == 29
    with GalleryWriter(gallery) as writer:
        writer.carry_out_erasures()
    assert [left_of(gallery, number) for number in (3, 7, 41)] == [[], [], []]
    assert "one" in receipt_names(gallery)
    assert add(gallery, monkeypatch) == {"added": 30}  # who adds after it adds


@pytest.mark.slow
def test_where_erasures_remove_the_pieces_again_and_again_it_is_given_up_and_nothing_is_added(gallery, monkeypatch):
    def erase():
        with GalleryWriter(gallery) as writer:
            writer.erase(["p41"])
            writer.carry_out_erasures()

    with refused(PiecesGoneError, "run again"):
        add(gallery, monkeypatch, *[erase] * 9)
    assert GalleryView(gallery).ids() == ["p03", "p40"]


@pytest.mark.slow
def test_a_task_whose_folder_an_erasure_removes_while_it_writes_says_so(gallery, monkeypatch):
    def erase_in_the_middle(pieces, terms):
        piece = pieces[0]

        class Erasing(type(piece)):
            def read(self, columns):
                yield from super().read(columns)
                if columns is None:
                    with GalleryWriter(gallery) as writer:
                        writer.erase(["p41"])
                        writer.carry_out_erasures()

        return [seal_rows("one", Erasing(piece.groups, piece.rows), terms)]

    monkeypatch.setattr(table_adding, "ray_session", lambda _: nullcontext())
    monkeypatch.setattr(table_adding, "sealed_by_tasks", erase_in_the_middle)
    with refused(PiecesGoneError, "run again"):
        add_tables(gallery, [str(gallery.parent / "t")], CONFIG, by_tasks=True)
    assert not [path for path in (gallery / "segments").iterdir() if left_of(path, 5)]


def test_pieces_of_another_encoder_than_the_gallery_has_by_now_are_not_taken(gallery):
    with GalleryWriter(gallery) as writer, refused(DataError, "encoder another", "is of e"):
        writer.adopt(gallery / PIECES, [], encoder="another")


@pytest.mark.slow
def test_two_who_add_by_tasks_are_kept_apart_and_the_second_is_told(gallery, monkeypatch):
    said = []

    def another():
        def run():
            try:
                add_tables(gallery, [str(gallery.parent / "t")], CONFIG, by_tasks=True)
            except DataError as error:
                said.append(str(error))

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()

    assert add(gallery, monkeypatch, another) == {"added": 30}
    assert "add --by-tasks" in said[0]
