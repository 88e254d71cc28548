"""An output at an object store: it appears whole under one pointer, one run writes at a time, and nothing of others is touched."""

import json
import os
import time

import pytest
from bucket import s3_server
from faulty_store import FAULTS, faulty
from refusals import refused
from store_kills import Killer

from reid_ray.config import Section
from reid_ray.errors import DataError
from reid_ray.storage import JobOutput, read_manifest
from reid_ray.storage.object_store import lease as leases
from reid_ray.storage.object_store import object_client
from reid_ray.storage.object_store.object_client import ObjectFolder

pytestmark = pytest.mark.slow  # a server of objects starts, and is asked over HTTP

FILES = ("a", "b/c d")


class Config(Section):
    number: int = 0


@pytest.fixture(scope="module")
def s3():
    with s3_server() as bucket:
        yield bucket


def output(address, *, number=1, if_exists="replace", job="test"):
    return JobOutput(job, address, Config(number=number), if_exists=if_exists)


def write(address, *, number=1, **options):
    with output(address, number=number, **options) as out:
        for name in FILES:
            (out.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (out.folder / name).write_text(f"{name} of {number}")


def state(address):
    """Number of the run whose whole result is there; None if nothing is; 'torn' otherwise."""
    objects = ObjectFolder(address)
    found = objects.read("current.json")
    folder = None if found is None else json.loads(found.data)["folder"]
    if folder is None:
        return None
    texts = [objects.read(f"{folder}/{name}") for name in FILES]
    numbers = {None if text is None else text.data.decode().rpartition(" ")[2] for text in texts}
    whole = len(numbers) == 1 and None not in numbers and str(read_manifest(address)["config"]["number"]) in numbers
    return int(numbers.pop()) if whole else "torn"


def names(address):
    return sorted(each.name for each in ObjectFolder(address).listed())


def test_a_result_appears_is_kept_replaced_and_refused_as_at_a_folder(s3, capsys):
    address = s3.address("life/out")
    write(address, if_exists="refuse")
    assert state(address) == 1
    assert read_manifest(address)["job"] == "test"
    with refused(DataError, "life/out", "output.if_exists"):
        output(address, if_exists="refuse")
    assert output(address, if_exists="reuse").finished() == read_manifest(address)
    assert output(address, number=2, if_exists="reuse").finished() is None
    first = names(address)
    write(address, number=2)
    assert state(address) == 2
    assert len(names(address)) == len(first)
    assert not set(first) & set(names(address)) - {"current.json"}
    with refused(DataError, "job test", "other", "output.path"):
        output(address, job="other")
    with pytest.raises(KeyboardInterrupt), output(address, number=3):
        raise KeyboardInterrupt
    assert state(address) == 2


def test_objects_of_others_are_never_replaced_or_removed(s3):
    s3.write("others/out/photo.jpg", b"mine")
    with refused(DataError, "others/out", "photo.jpg"):
        output(s3.address("others/out"))
    s3.write("named/out/run-2024/photo.jpg", b"mine")  # a folder that is called as those of runs are, almost
    with refused(DataError, "named/out", "run-2024"):
        output(s3.address("named/out"))
    address = s3.address("foreign/out")
    write(address)
    run = json.loads(ObjectFolder(address).read("current.json").data)["folder"]
    s3.write(f"foreign/out/{run}/photo.jpg", b"mine")
    with refused(DataError, "foreign/out", "photo.jpg"):
        write(address, number=2)
    assert state(address) == 1


# --- one run at a time


def test_a_second_run_is_refused_and_says_who_writes(s3):
    address = s3.address("two/out")
    with output(address).hold(), refused(DataError, "two/out", f"process {os.getpid()}"):
        write(address)
    write(address)
    assert state(address) == 1


def owned_by(address, **owner):
    """Leave a pointer as a run of another process left it that died."""
    lease = leases.OutputLease(ObjectFolder(address), "test")
    lease.acquire()
    lease.change(owner={**lease.read()[1].owner, **owner})
    lease._over.set()  # no sign of life from here on
    return lease


def test_the_lock_of_a_process_that_is_gone_from_this_host_is_taken_over_at_once(s3):
    address = s3.address("gone/out")
    owned_by(address, started="1")
    write(address)
    assert state(address) == 1


def test_the_lock_of_another_host_is_taken_over_when_it_was_not_renewed_for_long(s3, monkeypatch):
    address = s3.address("elsewhere/out")
    owned_by(address, host="elsewhere")
    with refused(DataError, "elsewhere/out", "on elsewhere"):
        write(address)
    monkeypatch.setattr(leases, "LEASE_S", 0.5)
    time.sleep(2)  # the store tells times in seconds
    write(address)
    assert state(address) == 1
    assert not [name for name in names(address) if name.startswith(".clock")]


def test_an_owner_renews_its_lock(s3, monkeypatch):
    monkeypatch.setattr(leases, "_RENEW_S", 0.05)
    objects = ObjectFolder(s3.address("renewed/out"))
    with output(str(objects)).hold():
        first = objects.read("current.json").version
        time.sleep(0.5)
        assert objects.read("current.json").version != first


def test_a_run_that_was_taken_over_changes_nothing_any_more_however_late_it_wakes(s3):
    address = s3.address("late/out")
    write(address, number=1)
    late = output(address, number=2)
    with refused(DataError, "late/out", "another run"), late:
        for name in FILES:
            (late.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (late.folder / name).write_text(f"{name} of 2")
        late._place._lease.change(owner={**late._place._lease.read()[1].owner, "started": "1"})  # as if its process were gone
        write(address, number=3)
    assert state(address) == 3
    assert len({name.partition("/")[0] for name in names(address)}) == 2  # the pointer and one run


# --- kills


@pytest.fixture(scope="module")
def killer():
    return Killer()


@pytest.mark.parametrize("first", [True, False], ids=["the first result", "a replacement"])
def test_a_kill_before_any_request_leaves_the_older_or_the_newer_result_and_nothing_else_in_the_end(s3, killer, monkeypatch, first):
    monkeypatch.setattr(leases, "is_gone_from_here", lambda owner: True)  # the killed one; here it has this process's number
    address, point, died, seen = s3.address(f"kills/{first}/out"), 0, True, set()
    if not first:
        write(address, number=1)
    while died:
        older, newer = (None, 2) if first else (state(address), point + 2)
        died = killer.kill_at(point, lambda address=address, newer=newer: write(address, number=newer))
        left = state(address)
        assert left in (older, newer)
        seen.add(left == newer)
        with output(address).hold():  # as the next run begins
            assert state(address) == left
        assert len({name.partition("/")[0] for name in names(address)}) == (1 if left is None else 2), point
        if first:
            address = s3.address(f"kills/{first}/{point}/out")
        point += 1
    assert point > 12
    assert seen == {True, False}


# --- faults


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "late"])  # which takes seconds, and is the client's
def test_a_run_whose_every_request_fails_once_comes_to_its_end(s3, monkeypatch, fault):
    monkeypatch.setattr(object_client, "_TIMEOUT_S", 0.5)
    monkeypatch.setattr(object_client, "_WAITS_S", (0.05, 0.05, 0.05))
    write(s3.address(f"faults/{fault}/out"), number=1)
    with faulty(s3.endpoint, fault) as endpoint:
        write(s3.address(f"faults/{fault}/out").replace(s3.endpoint, endpoint), number=2)
    assert state(s3.address(f"faults/{fault}/out")) == 2
    assert len({name.partition("/")[0] for name in names(s3.address(f"faults/{fault}/out"))}) == 2
