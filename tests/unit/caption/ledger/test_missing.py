"""What is written down of images while they are read: only what did not change under the reader's hands."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import ray
from pyarrow import fs

from reid_ray.caption.config import CaptionerConfig
from reid_ray.caption.ledger.content_keys import digest
from reid_ray.caption.ledger.missing import MissingFilter, look_up_listing, place_key, renewed
from reid_ray.caption.ledger.row_keys import CaptionRecipe, key_of
from reid_ray.caption.ledger.write_ahead_log import Ledger, open_ledger, read_index
from reid_ray.config.common import ImagesConfig
from reid_ray.data.pieces import FilePiece, pack_names, packed_states
from reid_ray.data.sources import ImageListing, image_listing
from reid_ray.storage.file_systems import Store, store_at

RECIPE = CaptionRecipe(CaptionerConfig(), revision="r", templates=None, max_pixels=10_000)


class TouchedPiece(FilePiece):
    """A piece of which a file is written again while it is read."""

    def tables(self):
        for table in super().tables():
            Path(self.store.root, self.names[0]).write_bytes(b"other content of another length")
            yield table


def written_down(ledger: Ledger, piece: FilePiece, monkeypatch) -> set[bytes]:
    index = read_index(ledger, retry_failed=True)
    monkeypatch.setattr(ray, "get", lambda given: given)  # in this process there is no object store to get it from
    through: list[str] = []
    claim = MissingFilter(ledger, RECIPE, index, record=True, through=through.append)
    assert sum(table.num_rows for table in claim(piece)) == len(piece.names)
    assert len(through) == 1
    return {place for file in ledger.digest_files() for place in pq.read_table(file)["place"].to_pylist()}


def test_a_file_that_changes_while_it_is_read_is_not_written_down_and_its_neighbour_is(tmp_path, monkeypatch):
    _settled_files(tmp_path / "crops", "a.jpg", "b.jpg")
    with open_ledger(tmp_path / "out") as ledger:
        piece = TouchedPiece(store_at(str(tmp_path / "crops")), pack_names(["a.jpg", "b.jpg"]), 10_000)
        before = piece.places(ledger.run)
        assert written_down(ledger, piece, monkeypatch) == {place_key(before[1])}
        assert piece.places(ledger.run)[0] != before[0]


@pytest.mark.parametrize("at_store", [False, True])
def test_a_file_that_changes_after_it_was_listed_is_not_written_down_until_it_is_looked_at_again(tmp_path, monkeypatch, at_store):
    _settled_files(tmp_path / "crops", "a.jpg", "b.jpg")
    # all that is known of it is what pyarrow's filesystems tell, as of a store
    away = Store(fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem()), "crops", uri="mock://crops")
    names, states = zip(*away.walk_states(), strict=True)
    with open_ledger(tmp_path / "out") as ledger:
        piece = FilePiece(away if at_store else store_at(str(tmp_path / "crops")), pack_names(names), 10_000, packed_states(states))
        listing = ImageListing(2, "crops", (piece,), at_store=at_store)
        before = piece.places(ledger.run)
        (tmp_path / "crops" / "a.jpg").write_bytes(b"other content of another length")
        os.utime(tmp_path / "crops" / "a.jpg", (1e9 + 1, 1e9 + 1))
        assert written_down(ledger, piece, monkeypatch) == {place_key(before[1])}
        (again,) = renewed(listing, ledger).pieces
        assert again.places(ledger.run)[0] != before[0]
        assert written_down(ledger, again, monkeypatch) == {place_key(place) for place in (before[1], *again.places(ledger.run))}


def test_a_files_state_is_asked_for_when_it_is_listed_by_several_threads_and_once_more_after_it_was_read(tmp_path, monkeypatch):
    _settled_files(tmp_path / "crops", *(f"{number:03d}.jpg" for number in range(100)))
    asked: dict[str, list[int]] = defaultdict(list)
    real = os.stat

    def counted(path, *options, **more):
        if str(path).endswith(".jpg"):
            asked[str(path)].append(threading.get_ident())
            time.sleep(1e-4)  # as over a network
        return real(path, *options, **more)

    monkeypatch.setattr(os, "stat", counted)
    config = ImagesConfig(source="folder", path=str(tmp_path / "crops"))
    image_listing(config)
    assert not asked  # a job that wants no states pays for none
    listing = image_listing(config, states=True)
    by = Counter(thread for threads in asked.values() for thread in threads)
    assert len(by) > 2
    assert by[threading.get_ident()] == listing.pieces[0].rows  # to see whether threads are worth it
    with open_ledger(tmp_path / "out") as ledger:
        assert look_up_listing(listing, ledger).unknown == 100
        assert listing.digest() == digest(list(listing.places("any session")))
        assert {len(threads) for threads in asked.values()} == {1}
        for piece in listing.pieces:
            written_down(ledger, piece, monkeypatch)
        assert {len(threads) for threads in asked.values()} == {2}
        assert renewed(listing, ledger).pieces == listing.pieces
        assert look_up_listing(listing, ledger).unknown == 0
    assert {len(threads) for threads in asked.values()} == {2}


def _settled_files(folder: Path, *names: str) -> None:
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(b"some content")
        os.utime(folder / name, (1e9, 1e9))


@pytest.mark.parametrize("place", ["file /crops/a.jpg 12 1000000000000000000", 'x "quoted" \\ \n \x01 ü \U0001f6b6', ""])
def test_a_place_has_the_key_that_any_parts_have(place):
    assert place_key(place) == key_of("place", place)
