"""A gallery whose vectors lie on a GPU: the same answers as of the CPU, to the last bit, under every filter."""

import time

import numpy as np
import pytest
from gallery_pair import unit
from on_device import check_same_answers, filled

from reid_ray.gallery.gallery_view import GalleryView

pytestmark = pytest.mark.gpu
DEVICE = "cuda:0"


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("duplicates", [0.0, 0.02, 0.5])
def test_a_gallery_on_a_gpu_gives_the_answers_of_the_cpu(tmp_path, dtype, duplicates):
    check_same_answers(tmp_path / "gallery", DEVICE, dtype=dtype, duplicates=duplicates)


def test_larger_segments_too_also_where_the_process_multiplies_in_tf32(tmp_path, monkeypatch):
    import torch

    before = torch.get_float32_matmul_precision()
    for precision in ("highest", "high"):
        torch.set_float32_matmul_precision(precision)
        try:
            check_same_answers(tmp_path / precision, DEVICE, rows=120_000, dim=256, segment_rows=50_000)
        finally:
            torch.set_float32_matmul_precision(before)


def test_the_seconds_of_both_are_printed_and_the_gpu_holds_the_vectors(tmp_path):
    """Run with -s for the numbers."""
    import torch

    rows, dim = 200_000, 512
    filled(tmp_path / "gallery", rows=rows, dim=dim, dtype="float32", duplicates=0, segment_rows=200_000)
    queries = unit(np.random.default_rng(1), 64, dim)
    before = torch.cuda.memory_allocated()
    views = {"cpu": GalleryView(tmp_path / "gallery"), "gpu": GalleryView(tmp_path / "gallery", device=DEVICE)}
    for name, view in views.items():
        for count in (1, 64):
            for where in (None, {"share": {"to": 99}}, {"share": {"to": 499}}):
                view.search(queries[:count], 20, where=where)
                started = time.perf_counter()
                for _ in range(5):
                    view.search(queries[:count], 20, where=where)
                seconds = (time.perf_counter() - started) / 5
                print(f"{name}: {count} queries, filter {where}, {rows:,} x {dim}: {seconds * 1e3:.2f} ms")
    held = torch.cuda.memory_allocated() - before
    assert 4 * dim * rows <= held < 4 * dim * rows * 1.1
