"""What a gallery costs beside FAISS alone and beside two vector stores: searching under filters, ties, adding, deleting, erasing, opening.

    python benchmarks/gallery.py --out benchmarks/results/gallery-DATE.json [--quick] [--exact-alone]

A million vectors of 512 dimensions (a hundred thousand with --quick) around a centre for each fifty, as persons have several pictures. All
arms search the same queries for the same 20; a filter lets 0.1, 1, 10, 50 or 100 % pass. FAISS is IndexFlatIP, with a bitmap selector under
a filter. LanceDB (`pip install lancedb`, without an index, so exact) and Qdrant's local form (`pip install qdrant-client`, exact) run if
they are installed. A memory pass is one read of all vectors by a sum. Then approximate kinds under the same filters (gallery_kinds.py) and
growth to ten million (gallery_growth.py), which also run alone. Takes 12 GB of memory and 18 GB of disk.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.gallery_crowd import SHARES, Crowd, crowd_of, table_of
from benchmarks.gallery_growth import growth
from benchmarks.gallery_kinds import kinds
from benchmarks.harness import Report, run_benchmark, time_turns
from reid_ray.gallery.config import GalleryConfig
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.gallery.gallery_writer import GalleryWriter, create_gallery

DIM, K = 512, 20


def fill(folder: Path, crowd: Crowd, report: Report) -> None:
    """Add everything, and say how quickly."""
    vectors, share = crowd.vectors, crowd.share
    create_gallery(folder, dim=DIM, encoder="e", config=GalleryConfig())
    started = time.perf_counter()
    with GalleryWriter(folder) as writer:
        for start in range(0, len(vectors), 8_192):
            part = slice(start, start + 8_192)
            writer.add(table_of(vectors[part], start, share[part]), encoder="e")
        seconds = time.perf_counter() - started
        report.row(
            what="add in batches of 8,192",
            arm="gallery",
            items=len(vectors),
            seconds=round(seconds, 3),
            a_second=round(len(vectors) / seconds),
        )
        started = time.perf_counter()
        for number in range(200):
            writer.add(table_of(vectors[number : number + 1], 10**8 + number, share[number : number + 1]), encoder="e")
        seconds = (time.perf_counter() - started) / 200
        report.row(what="add one, until it is on the disk and searchable", arm="gallery", seconds=round(seconds, 5))
        started = time.perf_counter()
        writer.delete([f"item-{10**8 + number:09d}" for number in range(200)])
        report.row(what="delete 200", arm="gallery", seconds=round(time.perf_counter() - started, 5))
        started = time.perf_counter()
        writer.compact()
        report.row(what="compact", arm="gallery", seconds=round(time.perf_counter() - started, 3))
        started = time.perf_counter()
        writer.erase(["item-000000007"])
        hidden = time.perf_counter() - started
        writer.carry_out_erasures()
        seconds = round(time.perf_counter() - started, 3)
        report.row(what="erase one: hidden after, gone after", arm="gallery", hidden=round(hidden, 5), seconds=seconds)


def searches(report: Report, view: GalleryView, crowd: Crowd, repeats: int) -> None:
    """Gallery and FAISS under every filter, for 1, 16 and 64 queries, in turns."""
    vectors, share, query = crowd.vectors, crowd.share, crowd.query
    import faiss

    index = faiss.IndexFlatIP(DIM)
    index.add(vectors)
    for queries in (1, 16, 64):
        asked = query[:queries]
        runs: dict[str, Callable[[], Any]] = {"memory pass": vectors.sum} if queries == 1 else {}
        for name, below in SHARES.items():
            where = None if below == 1000 else {"share": {"to": below - 1}}
            runs[f"gallery, {name}"] = partial(view.search, asked, K, where=where)
            selector = faiss.IDSelectorBitmap(np.packbits(share < below, bitorder="little"))
            options = None if below == 1000 else faiss.SearchParameters(sel=selector)
            runs[f"FAISS, {name}"] = partial(index.search, asked, K, params=options)
        for run in runs.values():
            run()
        timings = time_turns(runs, repeats=repeats)
        for arm, timing in timings.items():
            report.row(what="search", queries=queries, arm=arm, **timing.row())
        whole = timings["gallery, 100 %"].best_s
        if queries == 1:
            report.claim("a lone query, in memory passes", whole / timings["memory pass"].best_s, "<=", 1.2)
        report.claim(f"{queries} queries: gallery over FAISS, no filter", whole / timings["FAISS, 100 %"].best_s, "<=", 1.1)
        worst = max(timings[f"gallery, {name}"].best_s for name in SHARES)
        report.claim(f"{queries} queries: worst filter over none", worst / whole, "<=", 1.1)


def found_alike(report: Report, view: GalleryView, crowd: Crowd) -> None:
    """Recall at 20 under every filter beside sums in float64."""
    vectors, share, query = crowd.vectors, crowd.share, crowd.query
    least = 1.0
    for below in SHARES.values():
        rows = np.flatnonzero(share < below)
        rows = rows[rows != 7]  # erased
        hits = view.search(query[:8], K, where=None if below == 1000 else {"share": {"to": below - 1}})
        for asked, found in zip(query[:8], hits, strict=True):
            score = np.concatenate([vectors[part].astype(np.float64) @ asked for part in np.array_split(rows, 50)])
            best = {f"item-{row:09d}" for row in rows[np.argsort(-score, kind="stable")[:K]]}
            least = min(least, len(best & {each.item_id for each in found}) / min(K, len(rows)))
    report.claim("recall at 20, least over filters and queries", least, ">=", 1.0)


def ties(report: Report, folder: Path, crowd: Crowd, repeats: int) -> None:
    """Half of the gallery is one picture, and that is what is asked for."""
    vectors, share = crowd.vectors, crowd.share
    count = len(vectors) // 4
    same, other = vectors[:count].copy(), vectors[:count]
    same[::2] = vectors[count]
    runs: dict[str, Callable[[], Any]] = {}
    for name, content in (("no ties", other), ("half of it ties", same)):
        create_gallery(folder / name, dim=DIM, encoder="e")
        with GalleryWriter(folder / name) as writer:
            for start in range(0, count, 8_192):
                part = slice(start, min(start + 8_192, count))
                writer.add(table_of(content[part], start, share[part]), encoder="e")
            writer.compact()
        view = GalleryView(folder / name)
        runs[name] = partial(view.search, vectors[count : count + 1], K)
        runs[name]()
    timings = time_turns(runs, repeats=repeats)
    for name, timing in timings.items():
        report.row(what="ties", arm=f"gallery, {name}", items=count, **timing.row())
    report.claim("half of the gallery ties, over none", timings["half of it ties"].best_s / timings["no ties"].best_s, "<=", 1.5)


def opening(report: Report, folder: Path) -> None:
    """Open the gallery in this process; files are in the page cache."""
    started = time.perf_counter()
    view = GalleryView(folder)
    report.row(what="open", arm="gallery", items=len(view), seconds=round(time.perf_counter() - started, 4))


def stores(report: Report, folder: Path, crowd: Crowd, repeats: int) -> None:
    """LanceDB and Qdrant's local form, exact, where they are installed; on a tenth, for they take their time."""
    vectors, share, query = crowd.vectors, crowd.share, crowd.query
    count = len(vectors) // 10
    part, rows = vectors[:count], share[:count]
    runs: dict[str, Callable[[], Any]] = {}
    create_gallery(folder / "tenth", dim=DIM, encoder="e")
    with GalleryWriter(folder / "tenth") as writer:
        writer.add(table_of(part, 0, rows), encoder="e")
        writer.compact()
        writer.seal()
    view = GalleryView(folder / "tenth")
    runs["gallery"] = lambda: view.search(query[:1], K)
    runs["gallery, 10 %"] = lambda: view.search(query[:1], K, where={"share": {"to": 99}})
    if importlib.util.find_spec("lancedb"):
        import lancedb

        data = table_of(part, 0, rows).rename_columns(["item_id", "vector", "share", "person_id"])
        table = lancedb.connect(str(folder / "lance")).create_table("items", data)
        runs["LanceDB"] = lambda: table.search(query[0]).distance_type("dot").limit(K).select(["item_id"]).to_arrow()
        runs["LanceDB, 10 %"] = lambda: (
            table.search(query[0]).distance_type("dot").where("share < 100", prefilter=True).limit(K).select(["item_id"]).to_arrow()
        )
    if importlib.util.find_spec("qdrant_client"):
        from qdrant_client import QdrantClient, models

        client = QdrantClient(path=str(folder / "qdrant"))
        client.create_collection("items", vectors_config=models.VectorParams(size=DIM, distance=models.Distance.DOT))
        few = min(count, 20_000)  # its local form keeps points in SQLite, one at a time
        client.upload_collection("items", part[:few], payload=[{"share": int(each)} for each in rows[:few]], ids=list(range(few)))
        only = models.Filter(must=[models.FieldCondition(key="share", range=models.Range(lt=100))])
        runs[f"Qdrant local, {few:,} items"] = lambda: client.query_points("items", query=query[0], limit=K)
        runs[f"Qdrant local, {few:,} items, 10 %"] = lambda: client.query_points("items", query=query[0], limit=K, query_filter=only)
    for run in runs.values():
        run()
    for arm, timing in time_turns(runs, repeats=repeats).items():
        report.row(what="one query", arm=arm, items=count, **timing.row())


def main() -> int:
    """The whole benchmark, or without kinds and growth."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--exact-alone", action="store_true", help="leave out the kinds and the growth, which run alone, too")
    own, rest = parser.parse_known_args()
    return run_benchmark(__doc__ or "", partial(run, whole=not own.exact_alone), rest)


def run(report: Report, quick: bool, *, whole: bool = True) -> None:
    """Measure."""
    count, repeats = (100_000, 5) if quick else (1_000_000, 7)
    crowd = crowd_of(count, dim=DIM)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        fill(folder / "gallery", crowd, report)
        opening(report, folder / "gallery")
        view = GalleryView(folder / "gallery")
        found_alike(report, view, crowd)
        searches(report, view, crowd, repeats)
        ties(report, folder, crowd, repeats)
        stores(report, folder, crowd, repeats)
        del view
        shutil.rmtree(folder / "gallery")  # 13 GB more are needed below
        if not whole:
            return
        kinds(report, folder, crowd, quick, repeats)
        growth(report, folder, 20_000 if quick else 1_000_000)


if __name__ == "__main__":
    sys.exit(main())
