"""Compiles the kernels of search and evaluation ahead of time: numba keeps the machine code, so that no first search waits for it.

numba compiles a kernel for the types of arrays that it is called with, so a small gallery is made, searched, changed and ranked as by a
search and an evaluation; the kernels are not called by themselves.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from reid_ray.gallery.config import GalleryConfig, NearestConfig
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.gallery.gallery_writer import GalleryWriter, create_gallery
from reid_ray.retrieval.metrics import GroundTruth
from reid_ray.retrieval.ranking.exact import rank_queries
from reid_ray.retrieval.ranking.k_reciprocal import Reranker

_ITEMS, _DIM = 100, 8
_ENCODER = "none"


def compile_kernels() -> None:
    """Compile what is not compiled yet for this Python, numba and processor; what is, is loaded."""
    vector_ND = np.random.default_rng(0).standard_normal((_ITEMS, _DIM), np.float32)
    vector_ND[1] = vector_ND[0]  # twins
    vector_ND /= np.linalg.norm(vector_ND, axis=1, keepdims=True)
    with tempfile.TemporaryDirectory(prefix="reid-ray-kernels-") as scratch:
        _search(Path(scratch) / "exact", GalleryConfig(), vector_ND)
        clusters = NearestConfig(kind="ivf", accelerate_rows=_ITEMS // 2)
        _search(Path(scratch) / "clusters", GalleryConfig(dtype="float16", nearest=clusters), vector_ND)
    _rank(vector_ND)


def compile_before_others_wait(*, has_searched: bool) -> None:
    """Compile all kernels where set-up has not: for seconds nothing else gets on in a process that compiles.

    Args:
        has_searched: whether this process has searched a gallery with items; then nothing is done unless it had to compile for that.
    """
    if not has_searched or any(kernel.stats.cache_misses for kernel in _kernels()):
        compile_kernels()


def _kernels() -> Iterator[Any]:
    """The package's kernels in the modules that are imported."""
    from numba.core.dispatcher import Dispatcher

    for module in [module for name, module in sorted(sys.modules.items()) if name.startswith("reid_ray.")]:
        yield from (each for each in vars(module).values() if isinstance(each, Dispatcher))


def _search(folder: Path, config: GalleryConfig, vector_ND: np.ndarray) -> None:
    create_gallery(folder, dim=_DIM, encoder=_ENCODER, config=config)
    ids, camera_ids = [f"{number}" for number in range(_ITEMS)], [number % 2 for number in range(_ITEMS)]
    with GalleryWriter(folder) as writer:
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(vector_ND.reshape(-1)), _DIM)
        table = pa.table({"item_id": ids, "camera_id": camera_ids, "embedding": vectors})
        for sealed in (False, True):
            writer.add(table, encoder=_ENCODER)
            if sealed:
                writer.seal()
            _ask(writer.view, vector_ND)
            writer.delete(ids[2:4])
            _ask(writer.view, vector_ND)
    reader = GalleryView(folder)
    reader.refresh()
    _ask(reader, vector_ND)


def _ask(view: GalleryView, vector_ND: np.ndarray) -> None:
    view.get(["5", "none"])
    for query_QD in (vector_ND[:1], vector_ND[:3]):
        for exact in (False, True):
            for where in (None, {"camera_id": 0}):
                view.search(query_QD, 5, where=where, without=["7"], exact=exact)
        view.search(query_QD, 5, one_per="camera_id")


def _rank(vector_ND: np.ndarray) -> None:
    person_N, camera_N = np.arange(_ITEMS) % 20, np.arange(_ITEMS) % 3
    query_QD = vector_ND[:20]
    rank_queries(query_QD, vector_ND, GroundTruth.text_to_image(person_N[:20], person_N), top_k=5)
    cameras = GroundTruth.image_to_image(person_N[:20], person_N, query_camera_Q=camera_N[:20], gallery_camera_G=camera_N)
    rank_queries(query_QD, vector_ND, cameras, top_k=5)
    Reranker(query_QD, vector_ND).distances()
