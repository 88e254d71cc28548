"""A gallery that is searched with a torch device beside the same one searched without: any filter, duplicates, two types of vectors."""

import numpy as np
from gallery_pair import table, unit

from reid_ray.gallery.config import GalleryConfig
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.gallery.gallery_writer import GalleryWriter, create_gallery

FILTERS = (None, {"share": {"to": 0}}, {"share": {"to": 9}}, {"share": {"to": 99}}, {"share": {"to": 499}}, {"share": {"to": 899}})


def filled(folder, *, rows, dim, dtype, duplicates, segment_rows):
    """A gallery of several segments and a log; some of its items are deleted. Returns its vectors."""
    rng = np.random.default_rng(rows)
    vectors = unit(rng, rows, dim)
    vectors[rng.random(rows) < duplicates] = vectors[0]
    share = np.arange(rows) % 1000
    create_gallery(folder, dim=dim, encoder="e", config=GalleryConfig(dtype=dtype, segment_rows=segment_rows))
    with GalleryWriter(folder) as writer:
        for start in range(0, rows, 5_000):
            part = slice(start, min(start + 5_000, rows))
            ids = [f"item {number}" for number in range(part.start, part.stop)]
            writer.add(table(ids, vectors[part], share=share[part].tolist()), encoder="e")
        writer.delete([f"item {number}" for number in range(0, rows, 17)])
    return vectors


def answers(view, queries, k):
    """Every hit's id and score, by filter."""
    return [
        [[(hit.item_id, hit.score) for hit in found] for found in view.search(queries, k, where=where, **options)]
        for where in FILTERS
        for options in ({}, {"one_per": "share"}, {"threshold": 0.1})
    ]


def check_same_answers(folder, device, *, rows=9_000, dim=24, dtype="float32", duplicates=0.02, segment_rows=2_500, k=20):
    vectors = filled(folder, rows=rows, dim=dim, dtype=dtype, duplicates=duplicates, segment_rows=segment_rows)
    rng = np.random.default_rng(1)
    queries = np.concatenate([unit(rng, 7, dim), vectors[:2]])  # the first has all the duplicates at the top
    here, there = GalleryView(folder), GalleryView(folder, device=device)
    assert len(here.parts()) > 2
    assert answers(there, queries, k) == answers(here, queries, k)
