"""Several threads write a gallery while others search it: nobody finds what was erased, and nothing acknowledged is missing."""

import threading

import numpy as np
import pyarrow as pa
import pytest
from gallery_to_kill import DIM, ids, remnants, table, vector_of

from reid_ray.errors import DataError
from reid_ray.gallery.buffer import Buffer
from reid_ray.gallery.config import GalleryConfig
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.gallery.gallery_writer import GalleryWriter, create_gallery
from reid_ray.gallery.items import checked_items

pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")


@pytest.mark.slow
def test_writers_and_searches_beside_each_other_see_whole_writes_and_nobody_erased(tmp_path):
    folder = tmp_path / "gallery"
    create_gallery(folder, dim=DIM, encoder="e", config=GalleryConfig(segment_rows=40, merge_rows=120))
    acknowledged, erasing, erased, faults, over = set(), set(), set(), [], threading.Event()

    def add(first):
        for number in range(first, first + 60):
            writer.add(table(number), encoder="e")
            acknowledged.add(number)
            if number % 10 == 9:
                erasing.add(number)  # it may be hidden from here on, and is so once `erase` has returned
                writer.erase(ids(number))
                erased.add(number)

    def search():
        reader = GalleryView(folder)
        while not over.is_set():
            must, gone = set(acknowledged), set(erased)  # before looking
            reader.refresh()
            for number in list(must)[-3:]:
                hit = reader.search(vector_of(number)[None], 1)[0][0]
                if number in gone and hit.item_id == ids(number)[0]:
                    faults.append(f"{number} was erased and is found")
                if number not in erasing and hit.item_id != ids(number)[0]:
                    faults.append(f"{number} was acknowledged and is not found")

    def maintain():
        while not over.is_set():
            writer.compact()

    with GalleryWriter(folder) as writer:
        adders = [threading.Thread(target=add, args=(1000 * each,)) for each in range(1, 4)]
        others = [threading.Thread(target=each) for each in (search, search, maintain)]
        for thread in [*adders, *others]:
            thread.start()
        for thread in adders:
            thread.join()
        over.set()
        for thread in others:
            thread.join()
        writer.carry_out_erasures()
    assert faults == []
    assert set(GalleryView(folder).ids()) == set(ids(*(acknowledged - erased)))
    assert remnants(folder, erased) == []


def test_a_column_that_two_threads_bring_in_two_types_at_once_is_taken_from_one_alone(tmp_path):
    folder = tmp_path / "gallery"
    create_gallery(folder, dim=DIM, encoder="e")
    start, outcomes = threading.Barrier(2), []

    def add(number, value):
        start.wait()
        try:
            writer.add(table(number).append_column("zone", [[value]]), encoder="e")
            outcomes.append("added")
        except DataError as error:
            outcomes.append("zone" if "zone" in str(error) else str(error))

    with GalleryWriter(folder) as writer:
        threads = [threading.Thread(target=add, args=pair) for pair in ((1, "gate"), (2, 5))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(outcomes) == ["added", "zone"]
    assert len(GalleryView(folder)) == 1


def test_a_reader_sees_a_write_of_another_process_at_its_next_look_and_keeps_what_it_opened(tmp_path):
    folder = tmp_path / "gallery"
    create_gallery(folder, dim=DIM, encoder="e")
    reader = GalleryView(folder)
    with GalleryWriter(folder) as writer:
        writer.add(table(1, 2, 3), encoder="e")
        assert len(reader) == 0
        reader.refresh()
        assert len(reader) == 3
        writer.seal()
        writer.delete(ids(1))
        writer.compact()
        writer.seal()
        assert reader.search(np.stack([vector_of(1)]), 1)[0][0].item_id == ids(1)[0]  # its own generation, whole
        reader.refresh()
        assert set(reader.ids()) == set(ids(2, 3))


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_torn_end_of_the_log_was_never_acknowledged_and_is_cut_off(tmp_path, cut):
    folder = tmp_path / "gallery"
    create_gallery(folder, dim=DIM, encoder="e")
    with GalleryWriter(folder) as writer:
        writer.add(table(1), encoder="e")
        writer.add(table(2), encoder="e")
    log = next((folder / "log").iterdir())
    log.write_bytes(log.read_bytes()[:-cut])
    assert GalleryView(folder).ids() == ids(1)
    with GalleryWriter(folder) as writer:
        writer.add(table(3), encoder="e")
    assert set(GalleryView(folder).ids()) == set(ids(1, 3))


def test_what_is_added_while_a_search_reads_its_hits_is_not_lost(monkeypatch):
    """A search puts the tables of the buffer together outside of the gallery's lock; an add in that moment must be in the next reading."""
    pieces = [checked_items(table(number), origin="the items") for number in range(3)]
    searched = Buffer(DIM)
    searched.add(pieces[0])
    searched.add(pieces[1])
    adding = threading.Thread(target=searched.add, args=(pieces[2],))
    concatenated = pa.concat_tables

    def slowly(tables):
        joined = concatenated(tables)
        adding.start()
        adding.join(timeout=0.3)
        return joined

    with monkeypatch.context() as patched:
        patched.setattr(pa, "concat_tables", slowly)
        searched.rows()
    adding.join()
    assert searched.rows()["item_id"].to_pylist() == ids(0, 1, 2)
    assert [searched.id_at(row) for row in range(len(searched))] == ids(0, 1, 2)
