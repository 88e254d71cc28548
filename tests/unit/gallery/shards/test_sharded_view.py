"""Shares of a gallery answer as one reader of all of it does, while others write, and say or refuse what a lost share leaves out."""

import threading

import numpy as np
import pytest
from gallery_pair import DIM, Pair, table, unit
from lost_shares import Losable
from refusals import refused

from reid_ray.errors import ConfigError, ResourceError
from reid_ray.gallery.config import GalleryConfig
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.gallery.gallery_writer import GalleryWriter, create_gallery
from reid_ray.gallery.shards.one_share import Shard
from reid_ray.gallery.shards.sharded_view import ShardedView
from reid_ray.gallery.shards.share import Share


def shares(folder, count, kind=Shard):
    return [kind(folder, Share(number, count)) for number in range(count)]


@pytest.mark.parametrize("rows", [[], [0], [5], [1, 1, 1], [100, 1, 1, 1], [3, 90, 4, 10, 1, 70], [7] * 20])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_each_segment_is_in_one_share_and_shares_keep_the_order(rows, count):
    held = np.array([Share(number, count).holds(rows) for number in range(count)]).reshape(count, len(rows))
    assert (held.sum(axis=0) == 1).all()
    assert (np.diff(held.argmax(axis=0)) >= 0).all()
    if len(rows) == 20:
        assert held.sum(axis=1).max() <= -(-20 // count)


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "count"), [(0, 2), (1, 3), (2, 5)])
def test_shares_answer_as_one_after_any_writes(tmp_path, seed, count):
    pair = Pair(tmp_path / "gallery", seed, segment_rows=7, merge_rows=20)
    pair.add()
    view = ShardedView(shares(tmp_path / "gallery", count))
    for step in range(60):
        pair.step()
        view.refresh()
        whole, queries = pair.writer.view, np.concatenate([unit(pair.rng, 1), unit(np.random.default_rng(1), 1)])  # the second one ties
        for options in (
            {"k": 5},
            {"k": 200},
            {"k": 6, "where": {"camera_id": [0, 2]}},
            {"k": 3, "one_per": "zone"},
            {"k": 9, "threshold": 0.0, "without": list(pair.model)[:2]},
        ):
            assert view.search(queries, **options) == (whole.search(queries, **options), ()), (step, options)
        assert view.facets(["zone", "camera_id"], {"zone": ["gate", "hall"]}).value == whole.facets(
            ["zone", "camera_id"], {"zone": ["gate", "hall"]}
        )
        assert view.count().value == len(whole) == len(pair.model)
        some = [*list(pair.model)[::7], "nobody"]
        assert view.get(some).value == whole.get(some)
        assert [view.thumbnail(each).value for each in some] == [whole.thumbnail(each) for each in some]
    with pytest.raises(ConfigError):
        view.search(queries, 0)
    view.close()
    pair.writer.close()


@pytest.mark.slow
def test_while_others_write_two_who_ask_the_same_shares_find_every_item_once(tmp_path):
    folder, rng = tmp_path / "gallery", np.random.default_rng(0)
    create_gallery(folder, dim=DIM, encoder="e", config=GalleryConfig(segment_rows=15, merge_rows=60))
    kept = [f"kept {number}" for number in range(40)]
    over, faults = threading.Event(), []
    with GalleryWriter(folder) as writer:
        writer.add(table(kept, unit(rng, 40)), encoder="e")
        shards = shares(folder, 3)

        def ask():
            view = ShardedView(shards)
            while not over.is_set():
                view.refresh()
                found = [hit.item_id for hit in view.search(unit(np.random.default_rng(2), 1), 1000).value[0]]
                if len(found) != len(set(found)) or not set(kept) <= set(found):
                    faults.append(sorted(set(kept) - set(found)) or "twice")
            view.close()

        asking = [threading.Thread(target=ask) for _ in range(2)]
        for thread in asking:
            thread.start()
        for step in range(60):  # the same items again and again: each time one share loses one, and the last one gains it
            chosen = [kept[at] for at in rng.choice(40, 5, replace=False)]
            writer.add(table(chosen, unit(rng, 5)), encoder="e")
            if step % 20 == 19:
                writer.compact()
        over.set()
        for thread in asking:
            thread.join()
    assert faults == []


def test_a_lost_share_is_said_or_refused_and_is_whole_again_when_it_is_back(tmp_path):
    folder, rng = tmp_path / "gallery", np.random.default_rng(0)
    create_gallery(folder, dim=DIM, encoder="e", config=GalleryConfig(segment_rows=10, merge_rows=10))
    with GalleryWriter(folder) as writer:
        for start in range(0, 45, 5):
            writer.add(table([f"item {number}" for number in range(start, start + 5)], unit(rng, 5)), encoder="e")
        shards, query = shares(folder, 3, Losable), unit(rng, 1)
        saying, refusing = ShardedView(shards, lost="say"), ShardedView(shards)
        whole = GalleryView(folder).search(query, 45)
        assert saying.search(query, 45) == refusing.search(query, 45) == (whole, ())
        held = {hit.item_id for hit in shards[1].ask(None, "search", (query, 45), {}).answer[0]}
        shards[1].lost = True
        assert 0 < len(held) < 45
        assert saying.search(query, 45) == ([[hit for hit in whole[0] if hit.item_id not in held]], (1,))
        with refused(ResourceError, "share 1 of 3"):
            refusing.search(query, 45)
        writer.add(table(["late"], query), encoder="e")
        saying.refresh()
        assert saying.search(query, 1).value[0][0].item_id == "late"
        shards[1].lost = False
        for view in (saying, refusing):
            answer = view.search(query, 46)
            assert ({hit.item_id for hit in answer.value[0]}, answer.missing) == ({"late", *(f"item {number}" for number in range(45))}, ())
        for shard in shards:
            shard.lost = True
        with pytest.raises(ResourceError):
            saying.search(query, 1)
