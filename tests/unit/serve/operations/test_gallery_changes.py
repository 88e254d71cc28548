"""What a service changes: what is counted, refused, named and said of it."""

import pytest
from gallery_to_kill import DIM, ids, living, remnants, table
from refusals import refused

from reid_ray.errors import ConfigError
from reid_ray.gallery.erasure import receipt_names
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.gallery.gallery_writer import GalleryWriter, create_gallery
from reid_ray.serve.operations.config import WritingConfig
from reid_ray.serve.operations.gallery_changes import ConflictError, GalleryChanges, NotThereError, Which
from reid_ray.serve.operations.writer_turns import WriterTurns


@pytest.fixture
def folder(tmp_path):
    create_gallery(tmp_path / "gallery", dim=DIM, encoder="e")
    with GalleryWriter(tmp_path / "gallery") as writer:
        writer.add(table(1, 2, 3, 4), encoder="e")
    return tmp_path / "gallery"


@pytest.fixture
def view(folder):
    return GalleryView(folder)


@pytest.fixture
def changes(folder, view):
    with WriterTurns(folder, WritingConfig(idle_s=0.1), changed=view.refresh) as turns:
        yield GalleryChanges(turns)


def some(*numbers, **options):
    return Which(item_ids=tuple(ids(*numbers)), **options)


def test_deleting_counts_who_was_there_and_says_where_the_gallery_stands(changes, view):
    deleted, standing = changes.delete(some(1, 9)).result()
    assert (deleted, standing.generation, standing.items) == (ids(1), view.generation, 3)
    assert standing.position == view.position.frames
    assert living(view) == {2, 3, 4}


def test_another_number_than_expected_is_a_conflict_and_changes_nothing(changes, view):
    for which in (some(1, 9, expect=2), Which(where={"item_id": ids(1)}, expect=0)):
        with refused(ConflictError, "1 would go"):
            changes.delete(which).result()
    assert living(view) == {1, 2, 3, 4}
    assert changes.delete(Which(where={"item_id": ids(1)}, expect=1)).result()[0] == ids(1)


@pytest.mark.parametrize("which", [Which(), Which(where={}), Which(item_ids=("a",), where={"item_id": "a"}), Which(where={"nothing": 1})])
def test_what_names_no_items_is_refused(changes, view, which):
    with pytest.raises(ConfigError):
        changes.delete(which).result()
    assert len(view) == 4


def test_an_erasure_is_pending_until_it_is_carried_out_and_then_has_a_receipt(changes, view, folder):
    pending, erased = changes.erase(some(2), request="letter-7").result()
    assert erased == ids(2)
    assert (pending.items, pending.done, pending.receipt) == (1, False, None)
    assert living(view) == {1, 3, 4}
    assert changes.erasure(view, "letter-7") == pending
    done, _ = changes.erase(some(3), request="letter-8", now=True).result()
    assert done.done
    assert done.receipt["items"] == 1
    assert not remnants(folder, {2, 3})
    assert [state.request for state in changes.erasures(view)] in (["letter-7", "letter-8"], ["letter-8", "letter-7"])
    assert all(state.done for state in changes.erasures(view))


@pytest.mark.parametrize("is_sealed", [False, True])
def test_an_erasure_of_nobody_is_refused_and_leaves_its_name_free(changes, view, folder, is_sealed):
    if is_sealed:
        changes.compact(wait_s=5)
    with refused(ConflictError, "no item passes"):
        changes.erase(Which(where={"item_id": ["nobody", "somebody"]}), request="letter-7", now=True).result()
    assert receipt_names(folder) == []
    assert changes.erasures(view) == []
    _, erased = changes.erase(Which(where={"item_id": ids(2)}), request="letter-7", now=True).result()
    assert erased == ids(2)
    assert not remnants(folder, {2})


@pytest.mark.parametrize("now", [False, True])
def test_a_request_that_is_made_again_is_answered_and_not_made_twice(changes, view, now):
    first = changes.erase(some(2), request="letter-7", now=now).result()
    assert changes.erase(some(2), request="letter-7", now=now).result() == first
    with pytest.raises(ConflictError):
        changes.erase(some(3), request="letter-7").result()
    assert living(view) == {1, 3, 4}


def test_what_else_holds_erased_items_hears_of_them_before_it_is_said_to_be_done(folder, view):
    heard = []
    with WriterTurns(folder, WritingConfig()) as turns:
        GalleryChanges(turns, erased=heard.append).erase(some(1, 9), request="one").result()
    assert heard == [ids(1, 9)]


@pytest.mark.parametrize("name", ["../../secret", "a/b", "", ".key", "x" * 101])
def test_a_name_that_is_no_name_is_refused_and_reads_no_file(changes, view, folder, name):
    (folder / "secret.json").write_text("{}")
    with pytest.raises(ConfigError):
        changes.erase(some(1), request=name)
    with pytest.raises(NotThereError):
        changes.erasure(view, name)
    with pytest.raises(ConfigError):
        changes.snapshot(name)
    with pytest.raises(NotThereError):
        changes.restore(name).result()
    assert living(view) == {1, 2, 3, 4}


def test_a_snapshot_is_made_once_and_restored_until_it_is_dropped(changes, view):
    changes.snapshot("before").result()
    with pytest.raises(ConflictError):
        changes.snapshot("before").result()
    changes.delete(some(1, 2)).result()
    assert changes.restore("before").result().items == 4
    assert living(view) == {1, 2, 3, 4}
    assert [each["name"] for each in changes.generations(view)["snapshots"]] == ["before"]
    changes.drop("before").result()
    with pytest.raises(NotThereError):
        changes.restore("before").result()


def test_compacting_leaves_one_segment_of_those_who_live(changes, view):
    changes.delete(some(4)).result()
    changes.compact(wait_s=5.0)
    said = changes.generations(view)
    assert [(each["rows"], each["items"]) for each in said["segments"]] == [(3, 3)]
    assert (said["generation"], said["log"]) == (view.generation, {"writes": 0, "items": 0})
