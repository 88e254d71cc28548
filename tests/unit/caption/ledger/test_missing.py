"""What is written down of images while they are read: only what did not change under the reader's hands."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow.parquet as pq
import ray
from pyarrow import fs

from reid_ray.caption.config import CaptionerConfig
from reid_ray.caption.ledger.missing import MissingFilter, place_key, renewed
from reid_ray.caption.ledger.row_keys import CaptionRecipe
from reid_ray.caption.ledger.write_ahead_log import Ledger, open_ledger, read_index
from reid_ray.data.pieces import FilePiece, packed_states
from reid_ray.data.sources import ImageListing
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
    assert sum(table.num_rows for table in MissingFilter(ledger, RECIPE, index, record=True)(piece)) == len(piece.names)
    return {place for file in ledger.digest_files() for place in pq.read_table(file)["place"].to_pylist()}


def test_a_file_that_changes_while_it_is_read_is_not_written_down_and_its_neighbour_is(tmp_path, monkeypatch):
    (tmp_path / "crops").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "crops" / name).write_bytes(b"some content")
    with open_ledger(tmp_path / "out") as ledger:
        piece = TouchedPiece(store_at(str(tmp_path / "crops")), ("a.jpg", "b.jpg"), 10_000)
        before = piece.places(ledger.run)
        assert written_down(ledger, piece, monkeypatch) == {place_key(before[1])}
        assert piece.places(ledger.run)[0] != before[0]


def test_an_object_that_changes_after_it_was_listed_is_not_written_down_until_it_is_looked_at_again(tmp_path, monkeypatch):
    (tmp_path / "crops").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "crops" / name).write_bytes(b"some content")
        os.utime(tmp_path / "crops" / name, (1e9, 1e9))
    # all that is known of it is what pyarrow's filesystems tell, as of a store
    away = Store(fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem()), "crops", uri="mock://crops")
    names, states = zip(*away.walk_states(), strict=True)
    with open_ledger(tmp_path / "out") as ledger:
        piece = FilePiece(away, names, 10_000, packed_states(states))
        listing = ImageListing(2, "mock://crops", (piece,), at_store=True)
        before = piece.places(ledger.run)
        (tmp_path / "crops" / "a.jpg").write_bytes(b"other content of another length")
        os.utime(tmp_path / "crops" / "a.jpg", (1e9 + 1, 1e9 + 1))
        assert written_down(ledger, piece, monkeypatch) == {place_key(before[1])}
        (again,) = renewed(listing, ledger).pieces
        assert again.places(ledger.run)[0] != before[0]
        assert written_down(ledger, again, monkeypatch) == {place_key(place) for place in (before[1], *again.places(ledger.run))}
