"""A gallery beside its model, as Pair, that also goes over to other encoders, keeps snapshots and goes back to them."""

import numpy as np
from gallery_pair import DIM, Pair, table, unit

from reid_ray.gallery.bulk.sealed_piece import PIECES, seal_piece
from reid_ray.gallery.config import GalleryConfig
from reid_ray.gallery.items import checked_items


def seal_vectors(folder, name, ids, vectors):
    """A sealed piece of vectors; its other columns and pictures are not the gallery's."""
    batch = checked_items(table(ids, vectors, camera_id=["nobody's"] * len(ids)), origin=name)
    made = {"dim": vectors.shape[1], "config": GalleryConfig(), "schema": batch.rows.schema, "counts": {}}
    return seal_piece(folder, name, [batch], len(batch), **made)


class EncodersPair(Pair):
    """The model's vectors are those of the encoder that the gallery is of; ids that were erased are in no snapshot."""

    def __init__(self, folder, seed, **config):
        super().__init__(folder, seed, **config)
        self.encoder, self.dim, self.kept, self.changes = "e", DIM, {}, 0

    def add(self):
        ids = [f"item {number}" for number in self.rng.choice(60, self.rng.integers(1, 9), replace=False)]
        vectors = unit(self.rng, len(ids), self.dim)
        cameras = self.rng.integers(4, size=len(ids)).tolist()
        self.writer.add(table(ids, vectors, camera_id=cameras, zone=["gate"] * len(ids)), encoder=self.encoder)
        for each, vector, camera in zip(ids, vectors, cameras, strict=True):
            self.model.pop(each, None)
            self.model[each] = vector, {"camera_id": camera, "zone": "gate"}

    def erase(self):
        ids = self.some_ids()[:2]
        self.writer.erase(ids)
        for model, _, _ in [(self.model, None, None), *self.kept.values()]:
            for each in ids:
                model.pop(each, None)

    def reencode(self):
        self.changes += 1
        encoder, dim = f"encoder {self.changes}", int(self.rng.integers(8, 24))
        lacking = set(self.some_ids()[:2]) if self.rng.random() < 0.5 else set()
        ids = [each for each in self.model if each not in lacking] + ["of nobody"]
        new = dict(zip(ids, unit(self.rng, len(ids), dim), strict=True))
        older = unit(self.rng, len(ids), dim)
        sealed = [
            seal_vectors(self.folder / PIECES, "older", ids[::2], older[::2]),  # of two vectors of one id the later one counts
            seal_vectors(self.folder / PIECES, "newer", ids[::-1], np.stack([new[each] for each in ids[::-1]])),
        ]
        done = self.writer.reencode(self.folder / PIECES, sealed, encoder=encoder, dim=dim, drop_missing=bool(lacking))
        assert (done.living, done.dropped) == (len(ids) - 1, len(lacking))
        self.model = {each: (new[each], row) for each, (_, row) in self.model.items() if each not in lacking}
        self.encoder, self.dim = encoder, dim

    def snapshot(self):
        name = f"kept-{len(self.kept)}-{self.changes}-{self.rng.integers(10**9)}"
        self.writer.snapshot(name)
        self.kept[name] = dict(self.model), self.encoder, self.dim

    def restore(self):
        if self.kept:
            name = str(self.rng.choice(sorted(self.kept)))
            self.writer.restore(name)
            model, self.encoder, self.dim = self.kept[name]
            self.model = dict(model)

    def step(self):
        choice = self.rng.random()
        for limit, do in [(0.12, self.reencode), (0.2, self.snapshot), (0.28, self.restore)]:
            if choice < limit:
                return do()
        super().step()

    def query(self):
        return unit(self.rng, 1, self.dim)
