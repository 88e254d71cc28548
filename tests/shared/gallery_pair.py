"""A gallery beside a dictionary and a sorted list: random writes, filters and generations, after which a search must find the same."""

import numpy as np
import pyarrow as pa

from reid_ray.gallery.config import GalleryConfig
from reid_ray.gallery.gallery_writer import GalleryWriter, create_gallery

DIM = 16


def unit(rng, count, dim=DIM):
    vectors = rng.normal(size=(count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def table(ids, vectors, **columns):
    array = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    pictures = pa.array([b"picture of " + each.encode() for each in ids], pa.binary())
    return pa.table({"item_id": ids, "embedding": array, "thumbnail": pictures, **columns})


def expected(model, query, k, passes=lambda row: True):
    """Ids by brute force: float64 sums, ties in the order of adding."""
    rows = [(each, *model[each]) for each in model if passes(model[each][1])]
    scored = [(-np.float32(np.dot(vector.astype(np.float64), query.astype(np.float64))), each) for each, vector, _ in rows]
    return [each for _, each in sorted(scored, key=lambda pair: pair[0])][:k]  # sorted is stable


class Pair:
    """A gallery and its model: {id: (vector, {column: value})} in the order of adding."""

    def __init__(self, folder, seed, **config):
        self.rng, self.model, self.folder = np.random.default_rng(seed), {}, folder
        create_gallery(folder, dim=DIM, encoder="e", config=GalleryConfig(**config))
        self.writer = GalleryWriter(folder)

    def add(self):
        ids = [f"item {number}" for number in self.rng.choice(60, self.rng.integers(1, 9), replace=False)]
        vectors = unit(self.rng, len(ids))
        vectors[self.rng.random(len(ids)) < 0.3] = unit(np.random.default_rng(1), 1)  # duplicates, so that scores tie
        cameras = [None if self.rng.random() < 0.2 else int(self.rng.integers(4)) for _ in ids]
        zones = [str(self.rng.choice(["gate", "hall", "roof"])) for _ in ids]
        self.writer.add(table(ids, vectors, camera_id=cameras, zone=zones), encoder="e")
        for each, vector, camera, zone in zip(ids, vectors, cameras, zones, strict=True):
            self.model.pop(each, None)
            self.model[each] = vector, {"camera_id": camera, "zone": zone}

    def some_ids(self):
        known = list(self.model)
        return [known[at] for at in self.rng.choice(len(known), min(len(known), 4), replace=False)]

    def delete(self):
        ids = self.some_ids()
        assert self.writer.delete([*ids, "nobody"]) == len(ids)
        for each in ids:
            del self.model[each]

    def erase(self):
        ids = self.some_ids()[:2]
        self.writer.erase(ids)
        for each in ids:
            del self.model[each]

    def step(self):
        choice = self.rng.random()
        steps = [(0.6, self.add), (0.75, self.delete), (0.82, self.erase), (0.88, self.writer.seal), (0.92, self.writer.compact)]
        for limit, do in [*steps, (0.95, self.writer.carry_out_erasures), (1.0, self.reopen)]:
            if choice < limit:
                return do()

    def reopen(self):
        self.writer.close()
        self.writer = GalleryWriter(self.folder)

    def query(self):
        return unit(np.random.default_rng(1) if self.rng.random() < 0.3 else self.rng, 1)

    def check(self, view):
        assert len(view) == len(self.model)
        query = self.query()
        k = int(self.rng.integers(1, 20))
        camera, zone = int(self.rng.integers(4)), "gate"
        filters = [
            (None, lambda row: True),
            ({"camera_id": camera}, lambda row: row["camera_id"] == camera),
            ({"camera_id": {"from": 1, "to": 2}}, lambda row: row["camera_id"] in (1, 2)),
            ({"camera_id": [0, camera], "zone": zone}, lambda row: row["camera_id"] in (0, camera) and row["zone"] == zone),
        ]
        for where, passes in filters:
            known = view.schema.get_field_index("camera_id") >= 0
            if where is not None and not known:
                continue
            found = view.search(query, k, where=where)[0]
            assert [each.item_id for each in found] == expected(self.model, query[0], k, passes)
            for each in found:
                assert view.thumbnail(each.item_id) == b"picture of " + each.item_id.encode()
                assert {name: each.item.get(name) for name in ("camera_id", "zone")} == self.model[each.item_id][1]
