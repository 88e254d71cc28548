"""Whatever stands behind the interface of a gallery answers alike: a writer's view, its shares, and a few lists in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from gallery_pair import DIM, table, unit

from reid_ray.gallery.config import GalleryConfig
from reid_ray.gallery.gallery_interface import SearchableGallery, WritableGallery
from reid_ray.gallery.gallery_writer import GalleryWriter, create_gallery
from reid_ray.gallery.manifest import Manifest
from reid_ray.gallery.nearest.browsing import Listed
from reid_ray.gallery.nearest.hits import Found
from reid_ray.gallery.shards.joined_view import JoinedView
from reid_ray.gallery.shards.one_share import Shard
from reid_ray.gallery.shards.sharded_view import ShardedView
from reid_ray.gallery.shards.share import Share

pytestmark = pytest.mark.slow


class ListsInMemory:
    """Both halves of the interface by a dictionary, in the order of adding: {id: (vector, item, thumbnail)}."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest, self.generation = manifest, 1
        self._rows: dict[str, tuple[np.ndarray, dict[str, Any], bytes]] = {}
        self._kept: dict[str, dict[str, tuple[np.ndarray, dict[str, Any], bytes]]] = {}

    @property
    def view(self) -> ListsInMemory:
        return self

    def __len__(self) -> int:
        return len(self._rows)

    def refresh(self) -> None:
        pass

    def add(self, table: pa.Table, *, encoder: str, origin: str = "the items") -> int:
        vector_ND = np.stack(table["embedding"].to_numpy()).astype(np.float32)
        for vector_D, row in zip(vector_ND, table.drop_columns(["embedding"]).to_pylist(), strict=True):
            thumbnail = row.pop("thumbnail")
            self._rows.pop(row["item_id"], None)
            self._rows[row["item_id"]] = vector_D, row, thumbnail
        return len(vector_ND)

    def delete(self, ids: Sequence[str]) -> int:
        return sum(self._rows.pop(each, None) is not None for each in set(ids))

    def erase(self, ids: Sequence[str], *, request: str | None = None) -> str:
        self.delete(ids)
        for kept in self._kept.values():
            for each in ids:
                kept.pop(each, None)
        return request or "request"

    def carry_out_erasures(self, *, due_only: bool = False) -> None:
        pass

    def compact(self) -> None:
        pass

    def snapshot(self, name: str) -> None:
        self._kept[name] = dict(self._rows)

    def restore(self, name: str) -> None:
        self._rows = dict(self._kept[name])

    def drop_snapshot(self, name: str) -> None:
        del self._kept[name]

    def close(self) -> None:
        pass

    def search(
        self,
        query_QD: np.ndarray,
        k: int,
        *,
        where: Mapping[str, Any] | None = None,
        without: Sequence[str] = (),
        threshold: float | None = None,
        one_per: str | None = None,
        exact: bool = False,
    ) -> list[list[Found]]:
        return [self._best(query_D, k, where, without, threshold, one_per) for query_D in query_QD]

    def get(self, ids: Sequence[str]) -> list[dict[str, Any] | None]:
        return [self._rows[each][1] if each in self._rows else None for each in ids]

    def vectors_there(self, ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        nothing = np.zeros(self.manifest.dim, np.float32)
        found = [self._rows[each][0] if each in self._rows else nothing for each in ids]
        return np.stack(found), np.array([each in self._rows for each in ids])

    def thumbnail(self, item_id: str) -> bytes | None:
        return self._rows[item_id][2] if item_id in self._rows else None

    def newest(self, k: int, *, where: Mapping[str, Any] | None = None, after: str | None = None) -> tuple[list[Listed], bool]:
        ids = [each for each in reversed(self._rows) if each == after or self._passes(each, where)]
        if after is not None and after in ids:
            ids = ids[ids.index(after) + 1 :]
        return [Listed(self.generation, each, self._rows[each][1]) for each in ids[:k]], after is not None and after in self._rows

    def facets(self, columns: Sequence[str], where: Mapping[str, Any] | None = None) -> dict[str, dict[Any, int]]:
        passing = [self._rows[each][1] for each in self._rows if self._passes(each, where)]
        if columns == ["item_id"]:
            return {"item_id": {None: len(passing)} if passing else {}}
        values = {column: [row[column] for row in passing if row[column] is not None] for column in columns}
        return {column: {value: found.count(value) for value in set(found)} for column, found in values.items()}

    def columns(self) -> list[str]:
        return ["item_id", "camera_id", "zone"]

    def typed_columns(self) -> dict[str, str]:
        return {"item_id": "text", "camera_id": "whole number", "zone": "text"}

    def _passes(self, item_id: str, where: Mapping[str, Any] | None) -> bool:
        return all(self._rows[item_id][1][name] in wanted for name, wanted in (where or {}).items())

    def _best(self, query_D, k, where, without, threshold, one_per) -> list[Found]:
        scored = [
            Found(self.generation, each, float(vector_D @ query_D), item)
            for each, (vector_D, item, _) in self._rows.items()
            if each not in without and self._passes(each, where)
        ]
        hits: list[Found] = []
        for hit in sorted(scored, key=lambda each: -each.score):
            is_seen = one_per is not None and hit.item[one_per] is not None and hit.item[one_per] in {each.item[one_per] for each in hits}
            if not is_seen and (threshold is None or hit.score >= threshold):
                hits.append(hit)
        return hits[:k]


def answers(view: SearchableGallery, queries: np.ndarray, ids: Sequence[str]) -> dict[str, Any]:
    """What a reader says, without what may differ: generations and times, and the last digits of scores."""

    def told(item: Mapping[str, Any] | None) -> Any:
        return item and {name: item.get(name) for name in ("item_id", "camera_id", "zone")}

    where = {"camera_id": [0, 2], "zone": ["gate", "hall"]}
    named = {"item_id": [*ids[::3], "nobody"], "zone": ["gate", "hall"]}
    options: list[dict[str, Any]] = [
        {},
        {"where": where},
        {"where": named},
        {"where": {"item_id": []}},
        {"one_per": "zone"},
        {"without": ids[:5]},
        {"threshold": 0.1, "exact": True},
    ]
    hits = [view.search(queries, k, **each) for each in options for k in (1, 7, 100)]
    vector_ND, is_there = view.vectors_there(ids)
    listed = [
        view.newest(5),
        view.newest(4, where=where),
        view.newest(4, where=named),
        view.newest(3, after=view.newest(4)[0][-1].item_id),
        view.newest(3, after="nobody"),
    ]
    return {
        "len": len(view),
        "hits": [[[(hit.item_id, round(hit.score, 4), told(hit.item)) for hit in found] for found in each] for each in hits],
        "get": [told(item) for item in view.get(ids)],
        "vectors": (vector_ND.round(4).tolist(), is_there.tolist()),
        "thumbnails": [view.thumbnail(each) for each in ids],
        "newest": [([(each.item_id, told(each.item)) for each in found], is_known) for found, is_known in listed],
        "facets": [view.facets(["camera_id", "zone"], each) for each in (None, where, named)],
        "ids": view.facets(["item_id"], where),
        "columns": set(view.columns()) >= {"item_id", "camera_id", "zone"},
        "typed": {name: view.typed_columns()[name] for name in ("item_id", "camera_id", "zone")},
        "made": (view.manifest.dim, view.manifest.encoder),
    }


@pytest.mark.parametrize("seed", range(2))
def test_a_gallery_its_shares_and_lists_in_memory_answer_alike_through_the_interface(tmp_path, seed):
    folder, rng = tmp_path / "gallery", np.random.default_rng(seed)
    create_gallery(folder, dim=DIM, encoder="e", config=GalleryConfig(segment_rows=9, merge_rows=30))
    ours = GalleryWriter(folder)
    stores: list[WritableGallery] = [ours, ListsInMemory(ours.view.manifest)]
    known = [f"item {number}" for number in range(40)]

    def add() -> None:
        ids = [known[at] for at in rng.choice(40, 6, replace=False)]
        rows = table(ids, unit(rng, 6), camera_id=rng.integers(3, size=6), zone=rng.choice(["gate", "hall", "roof"], 6))
        assert [store.add(rows, encoder="e") for store in stores] == [6, 6]

    def some() -> list[str]:
        return [known[at] for at in rng.choice(40, 3, replace=False)]

    def each(change, *words) -> None:
        first, second = (getattr(store, change)(*words) for store in stores)
        assert first == second

    for _ in range(4):
        add()
    each("snapshot", "kept")
    joined = JoinedView(str(folder), ShardedView([Shard(folder, Share(number, 3)) for number in range(3)]))
    for _ in range(20):
        match rng.integers(6):
            case 0:
                each("delete", [*some(), "nobody"])
            case 1:
                ids = some()
                for store in stores:
                    store.erase(ids)
            case 2:
                each("carry_out_erasures")
            case 3:
                each("compact")
            case 4 if rng.random() < 0.3:
                each("restore", "kept")
            case _:
                add()
        joined.refresh()
        queries = unit(rng, 2)
        wanted = answers(stores[1].view, queries, known)
        views: list[SearchableGallery] = [stores[0].view, joined]
        for view in views:
            found = answers(view, queries, known)
            for name, answer in wanted.items():
                assert found[name] == answer, (name, view)
    each("drop_snapshot", "kept")
    for store in stores:
        store.close()
