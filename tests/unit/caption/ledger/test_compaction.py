"""Merging the ledger's files: what somebody may be reading or looking for by name stays, and a dead driver's actors write nothing."""

from __future__ import annotations

import os
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reid_ray.caption.ledger.missing import place_key
from reid_ray.caption.ledger.row_keys import key_of
from reid_ray.caption.ledger.write_ahead_log import DIGEST_CACHE, LEDGER, Ledger, ledger_table, open_ledger, read_index
from reid_ray.caption.rows import staged_table
from reid_ray.errors import DataError


def commit(ledger: Ledger, number: int, *, tries: int = 1, status: str = "ok") -> None:
    row = {"caption_id": f"{number}", "image_id": "i", "kind": "static", "status": status, "tries": tries}
    ledger.commit(f"{number}", ledger_table(staged_table([row]), [key_of(number)], ledger.run))


def ids(ledger: Ledger) -> list[str]:
    return sorted(name for file in ledger.row_files() for name in pq.read_table(file, schema=LEDGER)["caption_id"].to_pylist())


def test_files_that_somebody_reads_stay_and_the_others_are_merged_with_every_row(tmp_path):
    with open_ledger(tmp_path / "out") as ledger:
        for number in range(6):
            commit(ledger, number)
        kept = frozenset(ledger.row_files()[:2])
        ledger.compact(keep=kept)
        assert kept < set(ledger.row_files())
        assert len(ledger.row_files()) == 3
        assert ids(ledger) == [f"{number}" for number in range(6)]


def test_young_files_stay_for_an_actor_that_looks_for_its_block_by_name(tmp_path):
    with open_ledger(tmp_path / "out") as ledger:
        for number in range(5):
            commit(ledger, number)
        for file in ledger.row_files()[:3]:
            os.utime(file, (time.time() - 400,) * 2)
        young = set(ledger.row_files()[3:])
        ledger.compact(older_than_s=300)
        assert young < set(ledger.row_files())
        assert len(ledger.row_files()) == 3
        assert ids(ledger) == [f"{number}" for number in range(5)]


def test_an_actor_of_a_dead_driver_writes_down_neither_rows_nor_places(tmp_path):
    with open_ledger(tmp_path / "out") as dead:
        commit(dead, 1)
    with open_ledger(tmp_path / "out") as ledger:
        place = pa.Table.from_pylist([{"place": place_key("a"), "image_id": "a", "image_sha256": "s"}], schema=DIGEST_CACHE)
        for late in (lambda: commit(dead, 2), lambda: dead.commit_digests(place)):
            with pytest.raises(DataError, match="another run writes here now"):
                late()
        assert ids(ledger) == ["1"]
        assert ledger.digest_files() == []


def test_a_failure_that_no_engine_saw_is_told_from_one_that_an_engine_gave(tmp_path):
    with open_ledger(tmp_path / "out") as ledger:
        commit(ledger, 1, tries=0, status="failed")
        commit(ledger, 2, tries=3, status="failed")
        index = read_index(ledger, retry_failed=True)
        assert index.unasked.tolist() == [key_of(1)]
        assert len(index.failed) == 2
