"""A gallery at gs:// and az://: as at s3://, by those stores' own conditional writes; servers of this machine speak their protocols."""

import pytest
from cloud_server import cloud_server
from gallery_pair import Pair
from gallery_to_kill import contents, faults_after, fill, ids, remnants, work
from refusals import refused

from reid_ray.errors import DataError
from reid_ray.gallery.depot import store_depot
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.gallery.gallery_writer import GalleryWriter
from reid_ray.gallery.verification import faults_of
from reid_ray.storage.lock import HeldByAnotherError
from reid_ray.storage.object_store.object_client import ObjectFolder

pytestmark = pytest.mark.slow  # a server of objects is asked over HTTP


@pytest.fixture(scope="module", params=["gs", "az"])
def cloud(request):
    with cloud_server(request.param) as cloud:
        yield cloud


def test_it_finds_what_brute_force_finds_after_any_writes_and_so_does_a_reader_beside_it(cloud, monkeypatch):
    monkeypatch.setattr(store_depot.StoreDepot, "longest_log", 6)  # group commits
    pair = Pair(cloud.address("property"), 0, segment_rows=25, merge_rows=60)
    reader = GalleryView(pair.folder)
    for _ in range(25):
        pair.step()
        reader.refresh()
        pair.check(reader)
    pair.writer.close()
    pair.check(GalleryView(pair.folder))
    assert faults_of(pair.folder) == []


def test_who_is_erased_is_in_no_object_and_nothing_acknowledged_is_lost(cloud):
    address, said = cloud.address("erased"), set()
    fill(address)
    work(address, said.add)
    assert remnants(address, {101, 105, 109}) == []
    found = faults_after(address, said)
    assert {name: value for name, value in found.items() if value} == {}
    assert not any(b"person-101" in data for _, data in contents(address))


def test_one_writes_and_whoever_was_taken_over_writes_nothing_more(cloud, monkeypatch):
    address = cloud.address("fenced")
    fill(address)
    with GalleryWriter(address) as first:
        with refused(HeldByAnotherError, "another run"):
            GalleryWriter(address)
        pointer = ObjectFolder(address).read("current.json")
        refusals = cloud.refused
        cloud.put("fenced/current.json", pointer.data.replace(b'"gallery"', b'"gallery" ', 1), lambda _: True)  # somebody else exchanged it
        with refused(DataError, "another"):
            first.seal()
        assert cloud.refused > refusals
    assert set(GalleryView(address).ids()) == set(ids(101, 102, 103, 104, 105, 106))
