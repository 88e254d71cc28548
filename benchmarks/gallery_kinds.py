"""Approximate kinds of a gallery under filters: what they find of the exact answer, and how long it takes beside it.

    python benchmarks/gallery_kinds.py --out benchmarks/results/gallery_kinds-DATE.json [--quick]

A million vectors of 512 dimensions, two hundred thousand for hnsw, which is slow to build (thirty thousand with --quick), in one segment.
Recall is the share of the exact 20 best that a kind names, over 64 queries; a filter lets 0.1, 1, 10, 50 or 100 % pass. Every kind is
searched through the gallery, with its own defaults.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.gallery_crowd import SHARES, Crowd, crowd_of, table_of
from benchmarks.harness import Report, run_benchmark, time_turns
from reid_ray.gallery.config import GalleryConfig, NearestConfig
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.gallery.gallery_writer import GalleryWriter, create_gallery

DIM, K = 512, 20


def built(folder: Path, crowd: Crowd, count: int, nearest: NearestConfig, report: Report) -> GalleryView:
    """A gallery of one segment, and how long its index took."""
    create_gallery(folder, dim=DIM, encoder="e", config=GalleryConfig(nearest=nearest))
    with GalleryWriter(folder) as writer:
        for start in range(0, count, 8_192):
            part = slice(start, min(start + 8_192, count))
            writer.add(table_of(crowd.vectors[part], start, crowd.share[part]), encoder="e")
        writer.seal()
        started = time.perf_counter()
        writer.compact()
        seconds = time.perf_counter() - started
    indexes = list(folder.rglob("*.faiss"))
    size = sum(path.stat().st_size for path in indexes)
    report.row(what="compact, with the index", arm=nearest.kind, items=count, seconds=round(seconds, 1), index_bytes_an_item=size / count)
    if len(indexes) != (nearest.kind != "flat"):
        raise SystemExit(f"kind {nearest.kind} made {len(indexes)} indexes; one segment was meant")
    return GalleryView(folder)


def kinds(report: Report, folder: Path, crowd: Crowd, quick: bool, repeats: int) -> None:
    """Each kind under each filter, beside exact search of the same gallery."""
    for kind in ("ivf", "ivf_rabitq", "hnsw"):
        count = len(crowd.vectors) if kind != "hnsw" or quick else len(crowd.vectors) // 5
        nearest = NearestConfig(kind=kind, accelerate_rows=1_000 if quick else 100_000)
        view = built(folder / kind, crowd, count, nearest, report)
        recall = {}
        for name, below in SHARES.items():
            where = None if below == 1000 else {"share": {"to": below - 1}}
            found, best = (view.search(crowd.query, K, where=where, exact=exact) for exact in (False, True))
            pairs = [({hit.item_id for hit in one}, {hit.item_id for hit in other}) for one, other in zip(found, best, strict=True)]
            recall[name] = float(np.mean([len(one & other) / len(other) for one, other in pairs]))
            if any(len(one) != len(other) for one, other in pairs):
                raise SystemExit(f"kind {kind}, {name}: fewer distinct hits than there are")
            runs = {
                f"{kind}{', exact' if exact else ''}, {queries} queries": partial(
                    view.search, crowd.query[:queries], K, where=where, exact=exact
                )
                for queries in (1, 64)
                for exact in (False, True)
            }
            for arm, timing in time_turns(runs, repeats=repeats).items():
                report.row(what=f"search, {name} pass", arm=arm, items=count, recall=round(recall[name], 4), **timing.row())
        lost = recall["100 %"] - min(recall.values())
        report.claim(f"{kind}: recall at 20 without a filter, less the least under one", lost, "<=", 0.0)
        del view
        shutil.rmtree(folder / kind)


def run(report: Report, quick: bool) -> None:
    """The benchmark alone."""
    with tempfile.TemporaryDirectory() as place:
        kinds(report, Path(place), crowd_of(30_000 if quick else 1_000_000, dim=DIM), quick, 3 if quick else 5)


if __name__ == "__main__":
    sys.exit(run_benchmark(__doc__ or "", run))
