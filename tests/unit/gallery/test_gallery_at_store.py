"""A gallery at an object store: it answers as one in a folder does, one writer at a time, whole after any kill or fault, and forgets."""

import pytest
from bucket import s3_server
from faulty_store import faulty
from gallery_pair import Pair
from gallery_to_kill import DIM, contents, faults_after, fill, ids, living, remnants, table, vector_of, work
from refusals import refused
from store_kills import Killer

from reid_ray.errors import ConfigError, DataError
from reid_ray.gallery.config import GalleryConfig
from reid_ray.gallery.depot import store_depot
from reid_ray.gallery.depot.added_items import record_of_items
from reid_ray.gallery.depot.interface import depot_of
from reid_ray.gallery.erasure import read_receipt
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.gallery.gallery_writer import GalleryWriter, create_gallery
from reid_ray.gallery.items import checked_items
from reid_ray.gallery.shards.share import NOTHING, Position
from reid_ray.gallery.verification import faults_of
from reid_ray.storage.object_store import lease as leases
from reid_ray.storage.object_store import object_client
from reid_ray.storage.object_store.object_client import ObjectFolder

pytestmark = pytest.mark.slow  # a server of objects starts, and is asked over HTTP


@pytest.fixture(scope="module")
def s3():
    with s3_server() as bucket:
        yield bucket


@pytest.fixture(scope="module")
def killer():
    return Killer()


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.soak("gallery_kills")) for seed in range(1, 6))])
def test_it_finds_what_brute_force_finds_after_any_writes_and_so_does_a_reader_beside_it(s3, seed, monkeypatch):
    monkeypatch.setattr(store_depot.StoreDepot, "longest_log", 6)  # group commits
    pair = Pair(s3.address(f"property/{seed}"), seed, segment_rows=25, merge_rows=60)
    reader = GalleryView(pair.folder)
    for _ in range(25):
        pair.step()
        reader.refresh()
        pair.check(reader)
    pair.check(pair.writer.view)
    pair.writer.close()
    pair.check(GalleryView(pair.folder))
    assert faults_of(pair.folder) == []


@pytest.mark.parametrize(
    "every", [97, pytest.param(1, marks=pytest.mark.soak("gallery_kills"))], ids=["one request in 97", "every request"]
)
def test_a_kill_before_a_request_loses_no_acknowledged_write_and_brings_nobody_back(s3, killer, monkeypatch, every):
    monkeypatch.setattr(leases, "is_gone_from_here", lambda owner: True)  # the killed one; here it has this process's number
    found, point, died = [], 1, True
    while died:
        address, said = s3.address(f"kills/{every}/{point}"), set()
        fill(address)
        died = killer.kill_at(point, lambda address=address, said=said: work(address, said.add))
        found.append({"point": point, **{kind: fault for kind, fault in faults_after(address, said).items() if fault}})
        point += every
    assert len(found) > 120 / every
    assert [each for each in found if len(each) > 1] == []


@pytest.mark.parametrize(
    "fault", ["conflict", "lost", *(pytest.param(fault, marks=pytest.mark.soak("gallery_kills")) for fault in ("busy", "broken"))]
)
def test_whose_every_request_fails_once_loses_nothing(s3, monkeypatch, fault):
    monkeypatch.setattr(object_client, "_TIMEOUT_S", 0.5)
    monkeypatch.setattr(object_client, "_WAITS_S", (0.05, 0.05, 0.05))
    address = s3.address(f"faults/{fault}")
    create_gallery(address, dim=DIM, encoder="e")
    with faulty(s3.endpoint, fault) as endpoint, GalleryWriter(address.replace(s3.endpoint, endpoint)) as writer:
        writer.add(table(1, 2), encoder="e")
        writer.seal()
        writer.erase(ids(2))
        writer.add(table(3), encoder="e")
        writer.compact()
        assert living(GalleryView(address.replace(s3.endpoint, endpoint))) == {1, 3}
    assert living(GalleryView(address)) == {1, 3}
    assert remnants(address, {2}) == []


def test_a_second_writer_is_refused_and_one_that_was_taken_over_acknowledges_and_removes_nothing_any_more(s3):
    address = s3.address("two")
    fill(address)
    with GalleryWriter(address) as late:
        with refused(DataError, "two", "another run"):
            GalleryWriter(address)
        late.add(table(1), encoder="e")
        late._at.depot._lease.change(owner={**late._at.depot._lease.read()[1].owner, "started": "1"})  # as if its process were gone
        with GalleryWriter(address) as writer:
            assert 1 in living(writer.view)
            with pytest.raises(DataError):
                late.add(table(2), encoder="e")
            writer.add(table(3, 4, 5, 6), encoder="e")  # seals
            before = {name for name, _ in contents(address)}
            for change in (late.compact, late.seal, lambda: late.drop_snapshot("early")):
                with pytest.raises(DataError):
                    change()
            assert before - {name for name, _ in contents(address)} == set()
            assert living(writer.view) == living(GalleryView(address)) == {1, 3, 4, 5, 6, *range(101, 107)}
    assert faults_of(address) == []


def test_a_log_that_a_dead_writer_was_just_adding_to_is_read_to_its_end(s3):
    address = s3.address("claimed")
    fill(address)
    first = GalleryView(address)
    with GalleryWriter(address) as writer:
        writer.add(table(1), encoder="e")
        next_one = depot_of(address)
        assert not next_one.claim(first.manifest.log, first.log_position), "something lies where this one thought the end"
        first.refresh()
        assert 1 in living(first)
        assert next_one.claim(first.manifest.log, first.log_position)
        with pytest.raises(DataError):
            writer.add(table(2), encoder="e")


def test_segments_are_fetched_once_verified_and_leave_with_whom_they_hold(s3, tmp_path, monkeypatch):
    address = s3.address("copies/gallery")
    fill(address)
    monkeypatch.setenv("REID_RAY_GALLERY_COPIES", str(tmp_path / "copies"))
    one = GalleryView(address)
    s3.requests_of.clear()
    fetched = len(list((tmp_path / "copies").rglob("vectors.npy")))
    two = GalleryView(address)
    assert living(one) == living(two) == set(range(101, 107))
    assert fetched == len(list((tmp_path / "copies").rglob("vectors.npy"))) == len(one.manifest.segments)
    assert remnants(tmp_path / "copies", {101})
    with GalleryWriter(address) as writer:
        writer.erase(ids(101, 104))
        writer.carry_out_erasures()
    for reader in (one, two):
        reader.refresh()
        assert living(reader) == {102, 103, 105, 106}
    assert remnants(tmp_path / "copies", {101, 104}) == []
    monkeypatch.delenv("REID_RAY_GALLERY_COPIES")
    name = next(name for name, _ in contents(address) if name.endswith("vectors.npy"))
    data = bytearray(ObjectFolder(address).read(name).data)
    data[-1] ^= 1
    ObjectFolder(address).put(name, bytes(data))
    assert [fault for fault in faults_of(address) if name in fault]
    one.close()
    two.close()
    with refused(DataError, name):
        GalleryView(address)


def test_snapshots_receipts_and_refusals_are_as_in_a_folder(s3):
    address = s3.address("kept/gallery")
    fill(address)
    with GalleryWriter(address) as writer:
        writer.erase(ids(101), request="letter")
        with refused(ConfigError, "early"):
            writer.snapshot("early")
        writer.restore("early")
        assert living(writer.view) == {102, 103, 104, 105, 106, 107}
        writer.drop_snapshot("early")
        with refused(ConfigError, "early"):
            writer.restore("early")
    assert read_receipt(address, "letter")["items"] == 1
    assert remnants(address, {101}) == []
    with refused(DataError, "kept/gallery", "gallery already"):
        create_gallery(address, dim=DIM, encoder="e")
    s3.write("others/photo.jpg", b"mine")
    with refused(DataError, "photo.jpg"):
        create_gallery(s3.address("others"), dim=DIM, encoder="e")
    with refused(DataError, "nothing/here"):
        GalleryView(s3.address("nothing/here"))


def test_a_write_is_one_request_and_a_look_two(s3):
    address = s3.address("cost/gallery")
    create_gallery(address, dim=DIM, encoder="e", config=GalleryConfig())
    with GalleryWriter(address) as writer:
        reader = GalleryView(address)
        s3.requests.clear()
        writer.add(table(1), encoder="e")
        assert dict(s3.requests) == {"PUT": 1}
        reader.refresh()
        reader.refresh()
        assert s3.requests["GET"] == 5  # CURRENT and the log's next object; once the write itself
        assert reader.search(vector_of(1)[None], 1)[0][0].item_id == ids(1)[0]


def test_what_one_group_commit_wrote_is_read_frame_by_frame_where_a_reader_is_to_stop_within_it(s3):
    address = s3.address("frames/gallery")
    create_gallery(address, dim=DIM, encoder="e")
    whole, stopping = GalleryView(address), GalleryView(address)
    frames = [record_of_items(checked_items(table(number), origin="", dim=DIM)).packed(number) for number in range(5)]
    depot = depot_of(address)
    depot.acquire()
    depot.log_end(whole.manifest.log, 0).append(frames[:4])
    depot.log_end(whole.manifest.log, 1).append(frames[4:])
    depot.release()
    whole.refresh()
    assert living(whole) == set(range(5))
    for count in (1, 1, 3, 4, 5):
        stopping.refresh(Position(1, count))
        assert living(stopping) == set(range(count))


def test_who_wants_to_know_of_a_gallery_alone_fetches_no_segment(s3):
    address = s3.address("about/gallery")
    fill(address)
    about = GalleryView(address, share=NOTHING)
    with GalleryWriter(address) as writer:
        writer.erase(ids(101), request="letter")
        s3.requests.clear()
        about.refresh()
        assert ([each.request for each in about.erasures], about.columns()) == (["letter"], writer.view.columns())
    assert (len(about), about.ids(), "folder" in vars(about.depot)) == (0, [], False)
