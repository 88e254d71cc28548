"""Writes with a condition, through a server that fails each request once: what was done is known to be done, and by whom."""

import pytest
from bucket import s3_server
from faulty_store import FAULTS, faulty
from refusals import refused

from reid_ray.errors import DataError
from reid_ray.storage.object_store import object_client
from reid_ray.storage.object_store.object_client import ObjectFolder

pytestmark = pytest.mark.slow  # a server of objects starts, and is asked over HTTP


@pytest.fixture(scope="module")
def s3():
    with s3_server() as bucket:
        yield bucket


@pytest.fixture
def hasty(monkeypatch):
    """A client that gives up waiting soon."""
    monkeypatch.setattr(object_client, "_TIMEOUT_S", 0.5)
    monkeypatch.setattr(object_client, "_WAITS_S", (0.05, 0.05, 0.05))


def through(endpoint, key):
    return ObjectFolder(f"s3://data/{key}?endpoint_override={endpoint}&scheme=http&region=us-east-1")


def test_of_two_writers_one_is_first(s3):
    folder = ObjectFolder(s3.address("first"))
    version = folder.put_new("x", b"one")
    assert version is not None
    assert folder.put_new("x", b"two") is None
    newer = folder.put_over("x", b"three", version)
    assert newer is not None
    assert folder.put_over("x", b"four", version) is None
    assert folder.read("x").data == b"three"
    assert folder.put_over("none", b"five", version) is None
    assert folder.read("none") is None


@pytest.mark.parametrize("fault", FAULTS)
def test_a_write_that_is_answered_badly_is_known_by_its_bytes(s3, hasty, fault):
    with faulty(s3.endpoint, fault) as endpoint:
        folder = through(endpoint, f"faults/{fault}")
        version = folder.put_new("x", b"one")
        assert version is not None
        assert folder.put_new("x", b"another's") is None
        newer = folder.put_over("x", b"two", version)
        assert newer is not None
        assert folder.put_over("x", b"late", version) is None
        folder.put("y", b"plain")
        assert [(each.name, each.size) for each in folder.listed()] == [("x", 3), ("y", 5)]
        assert folder.read("x").data == b"two"
        folder.remove(["x", "y", "never there"])
        assert list(folder.listed()) == []


def test_a_store_that_stays_busy_or_is_not_there_or_refuses_is_one_sentence(s3, hasty, monkeypatch):
    monkeypatch.setattr(object_client, "_RETRIES", 0)
    with refused(DataError, "127.0.0.1:9", "network"):
        through("127.0.0.1:9", "x").put_new("x", b"one")
    with refused(DataError, "s3://none/", "bucket"):
        ObjectFolder(s3.address("x").replace("s3://data/", "s3://none/")).put_new("x", b"one")
    with refused(DataError, "colour", "region"):
        ObjectFolder("s3://data/x?colour=red").read("x")


def test_many_objects_are_listed_and_removed_in_few_requests(s3):
    folder = ObjectFolder(s3.address("many"))
    folder.put_new("one", b"1")
    for number in range(20):
        folder.put(f"below/{number:02d}", b"2")
    s3.requests.clear()
    assert [each.name for each in folder.listed("below")] == [f"below/{number:02d}" for number in range(20)]
    assert folder.entries() == ["below/", "one"]
    folder.remove([each.name for each in folder.listed()])
    assert s3.requests.total() <= 4
