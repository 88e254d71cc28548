"""A ledger at an object store: blocks, parts and fences as objects, with the same meaning as in a folder."""

from __future__ import annotations

import pytest
from bucket import s3_server
from faulty_store import faulty
from refusals import refused
from store_kills import Killer

from reid_ray.caption.ledger.ledger_files import read_ledger_file
from reid_ray.caption.ledger.row_keys import key_of
from reid_ray.caption.ledger.write_ahead_log import DIGEST_CACHE, LEDGER, Ledger, delete_ledger, ledger_table, open_ledger, read_index
from reid_ray.caption.rows import staged_table
from reid_ray.errors import DataError
from reid_ray.storage.object_store import object_client
from reid_ray.storage.object_store.object_client import ObjectFolder

pytestmark = pytest.mark.slow  # a server of objects starts, and is asked over HTTP


@pytest.fixture(scope="module")
def s3():
    with s3_server() as bucket:
        yield bucket


def commit(ledger: Ledger, number: int) -> None:
    row = {"caption_id": f"{number}", "image_id": "i", "kind": "static", "status": "ok", "tries": 1}
    ledger.commit(f"{number}", ledger_table(staged_table([row]), [key_of(number)], ledger.run))


def ids(ledger: Ledger) -> list[str]:
    return sorted(name for file in ledger.row_files() for name in read_ledger_file(file, schema=LEDGER)["caption_id"].to_pylist())


def objects(address: str) -> list[str]:
    return [each.name for each in ObjectFolder(address).listed(".ledger")]


def test_rows_are_there_for_the_next_run_and_small_files_are_merged(s3):
    address = s3.address("ledgers/kept")
    with open_ledger(address) as ledger:
        for number in range(6):
            commit(ledger, number)
        ledger.commit_digests(DIGEST_CACHE.empty_table())
    with open_ledger(address) as later:
        assert sorted(read_index(later, retry_failed=True).ok.tolist()) == sorted(key_of(number) for number in range(6))
        kept = frozenset(later.row_files()[:2])
        later.compact(keep=kept)
        assert kept < set(later.row_files())
        assert len(later.row_files()) == 3
        assert ids(later) == [f"{number}" for number in range(6)]
        delete_ledger(later)
        assert objects(address) == []


def test_an_actor_of_a_dead_driver_writes_nothing(s3):
    address = s3.address("ledgers/fenced")
    with open_ledger(address) as dead:
        commit(dead, 1)
    with open_ledger(address) as ledger:
        with refused(DataError, "ledgers/fenced", "another run"):
            commit(dead, 2)
        assert ids(ledger) == ["1"]


def test_a_run_that_did_nothing_leaves_nothing(s3):
    with open_ledger(s3.address("ledgers/nothing")):
        pass
    assert objects(s3.address("ledgers/nothing")) == []


def test_a_commit_that_is_done_again_is_there_once(s3):
    with open_ledger(s3.address("ledgers/again")) as ledger:
        commit(ledger, 1)
        commit(ledger, 1)
        assert ids(ledger) == ["1"]


def test_a_kill_before_any_request_loses_no_row_that_was_committed_and_doubles_none(s3):
    killer, point, died = Killer(), 0, True
    while died:
        address = s3.address(f"ledgers/kills/{point}")
        with open_ledger(address) as ledger:
            commit(ledger, 1)
            commit(ledger, 2)
        said = {"1", "2"}

        def work(address=address, said=said) -> None:
            with open_ledger(address) as ledger:
                commit(ledger, 3)
                said.add("3")
                ledger.compact()
                commit(ledger, 4)
                said.add("4")
                ledger.compact()

        died = killer.kill_at(point, work)
        with open_ledger(address) as ledger:
            assert said <= set(ids(ledger)), point
            keys = read_index(ledger, retry_failed=True).ok.tolist()
            assert len(set(keys)) == len(keys)
            held = set(ids(ledger))
            ledger.compact()
            assert set(ids(ledger)) == held
        point += 1
    assert point > 12
    assert said == {"1", "2", "3", "4"}


@pytest.mark.parametrize("fault", ["busy", "lost"])
def test_rows_are_committed_and_merged_through_a_store_that_fails_every_request_once(s3, monkeypatch, fault):
    monkeypatch.setattr(object_client, "_TIMEOUT_S", 0.5)
    monkeypatch.setattr(object_client, "_WAITS_S", (0.05, 0.05, 0.05))
    address = s3.address(f"ledgers/faults/{fault}")
    with faulty(s3.endpoint, fault) as endpoint, open_ledger(address.replace(s3.endpoint, endpoint)) as ledger:
        commit(ledger, 1)
        commit(ledger, 2)
        ledger.compact()
        assert len(ledger.row_files()) == 1
    with open_ledger(address) as ledger:
        assert ids(ledger) == ["1", "2"]
