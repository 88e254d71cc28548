"""Each node has one whole copy of what was prepared, however many of its workers want it at once and wherever it comes from."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import time

import pytest
from bucket import s3_server
from kills import wait_for
from refusals import refused

from reid_ray.errors import DataError
from reid_ray.train import shipment as shipments
from reid_ray.train.config import StagingConfig
from reid_ray.train.shipment import put_at, remove_from, ship, staged

FILES = {"data/samples.arrow": 70_000, "data/pictures.arrow/00000.arrow": 300_000, "start/model.safetensors": 10, "transfer/b/x.arrow": 0}


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(shipments, "_PIECE", 65_536)  # of which the largest file is several
    folder = tmp_path / "driver" / ".out.0123.run"
    for number, (name, size) in enumerate(FILES.items()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bytes([number]) * (size - 1) + b"." if size else b"")
    (folder / "metrics.jsonl").write_text("what workers write")
    return folder


def contents(folder):
    return {name: (folder / name).read_bytes() for name in FILES}


def in_children(count, act):
    """Run `act(number)` in forked processes at once; their exit codes."""
    children = []
    for number in range(count):
        if not (child := os.fork()):
            code = 1
            try:
                act(number)
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def test_a_node_that_sees_the_runs_folder_reads_it_unless_a_place_for_copies_is_named(run, tmp_path, monkeypatch):
    shipment = ship(run)
    assert {name for name, _, _ in shipment.files} == set(FILES)
    assert staged(shipment, StagingConfig()) == run
    (run / "start" / "model.safetensors").write_bytes(b"of another")  # another run's folder of that name: not what was shipped
    fetched = []
    monkeypatch.setattr(shipments, "_pieces_from_driver", lambda _, name, size: fetched.append(name) or [bytes(size)])
    monkeypatch.setattr(shipments.tempfile, "gettempdir", lambda: str(tmp_path))
    copy = staged(shipment, StagingConfig())
    assert copy.is_relative_to(tmp_path / f"reid-ray-staging-{os.getuid()}")
    assert (oct(copy.stat().st_mode)[-3:], sorted(fetched)) == ("700", sorted(FILES))


@pytest.mark.slow
def test_workers_of_two_nodes_apart_share_one_copy_a_node_from_a_bucket_while_the_runs_folder_is_out_of_sight(run, tmp_path):
    expected, shipment = contents(run), ship(run)
    with s3_server() as bucket:
        address = bucket.address("staging")
        put_at(shipment, address)
        puts = bucket.requests["PUT"]
        put_at(shipment, address)  # an attempt after one that failed
        assert bucket.requests["PUT"] == puts
        shutil.rmtree(run)
        config = [StagingConfig(path=str(tmp_path / node), through=address) for node in ("one", "two")]
        gets = bucket.requests["GET"]

        def worker(number):
            copy = staged(shipment, config[number % 2])
            assert contents(copy) == expected
            (tmp_path / f"worker {number}").write_text(f"{copy} {copy.stat().st_ino}")
            assert wait_for(lambda: len(list(tmp_path.glob("worker *"))) == 6, seconds=60)  # each maps its copy until all have one

        assert in_children(6, worker) == [0] * 6
        assert len({(tmp_path / f"worker {number}").read_text() for number in range(6)}) == 2
        assert gets + 2 * 3 <= bucket.requests["GET"] <= gets + 2 * 8  # three files of some pieces, once for each node
        remove_from(shipment, address)
        with refused(DataError, "staging.through", "holds no"):
            staged(shipment, StagingConfig(path=str(tmp_path / "three"), through=address))


@pytest.mark.slow
def test_workers_that_all_found_no_copy_end_with_one_and_none_waits_for_another_that_uses_it(run, tmp_path, monkeypatch):
    shipment, config = ship(run), StagingConfig(path=str(tmp_path / "node"), through=str(tmp_path / "store"))
    put_at(shipment, config.through)
    lock, made = shipments._lock, shipments._fetch

    def slow(*given):
        time.sleep(0.2)  # the others come to their next lock meanwhile
        made(*given)

    def worker(number):
        def lock_when_all_have_looked(root, key, kind):
            descriptor = lock(root, key, kind)
            if kind == fcntl.LOCK_SH:
                (tmp_path / f"looked {number}").touch()
                wait_for(lambda: len(list(tmp_path.glob("looked *"))) == 3, seconds=0.5)  # unless they are kept from it
            return descriptor

        monkeypatch.setattr(shipments, "_lock", lock_when_all_have_looked)
        signal.alarm(20)
        staged(shipment, config)
        (tmp_path / f"has {number}").touch()
        assert wait_for(lambda: len(list(tmp_path.glob("has *"))) == 3, seconds=15)  # each holds its copy while it lives

    monkeypatch.setattr(shipments, "_fetch", slow)
    assert in_children(3, worker) == [0] * 3


def test_a_worker_killed_half_way_leaves_nothing_that_passes_for_a_copy(run, tmp_path, monkeypatch):
    shipment, config = ship(run), StagingConfig(path=str(tmp_path / "node"), through=str(tmp_path / "store"))
    put_at(shipment, config.through)
    whole = shipments._copy_from

    def dies(source, folder, name):
        if name.startswith("start"):
            os.kill(os.getpid(), 9)
        whole(source, folder, name)

    monkeypatch.setattr(shipments, "_copy_from", dies)
    assert in_children(1, lambda _: staged(shipment, config)) == [-9]
    assert not (tmp_path / "node" / shipment.key).exists()
    monkeypatch.setattr(shipments, "_copy_from", whole)
    assert contents(staged(shipment, config)) == contents(run)
    assert [path.name for path in (tmp_path / "node").iterdir() if not path.name.startswith(".")] == [shipment.key]


@pytest.mark.slow
def test_the_oldest_copies_that_nobody_uses_make_room(run, tmp_path):
    def config(gib):
        return StagingConfig(path=str(tmp_path / "node"), through=str(tmp_path / "store"), gib=gib)

    def shipped(number):
        (run / "start" / "model.safetensors").write_bytes(bytes([number]) * 10)
        shipment = ship(run)
        put_at(shipment, str(tmp_path / "store"))
        return shipment

    two_and_a_half = 2.5 * sum(FILES.values()) / 2**30
    used = shipped(0)
    staged(used, config(two_and_a_half))  # by this process, until it ends
    idle, newest = shipped(1), shipped(2)
    for shipment in (idle, newest):
        assert in_children(1, lambda _, each=shipment: staged(each, config(two_and_a_half))) == [0]
    assert {path.name for path in (tmp_path / "node").iterdir() if path.name[0] != "."} == {used.key, newest.key}
    with refused(DataError, "staging.gib"):
        staged(shipped(3), config(two_and_a_half / 3))
