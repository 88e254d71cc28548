"""Which file keeps a training set's rows: this project's, Lance's, Hugging Face datasets' or MosaicML streaming's?

    pip install -e '.[bench]'
    python benchmarks/row_files.py --out benchmarks/results/row_files-DATE.json [--quick] [--images 100000]

The same images with four captions each are written in each format, then 512 random rows at a time are taken as bytes and texts: what a
training step needs before anything is decoded. Each is read by the fastest way that its documentation names, in a process of its own, by
turns: `seconds to open` (imports left out), rows a second once read before, rows a second of the first batches after the files were dropped
from the page cache, and what the process holds beside mapped files. Files that a decoder or a worker does not share (MosaicML's) are read
from their local copy.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.harness import Report, drop_pages, in_own_process, run_benchmark
from benchmarks.synthetic_rows import CAPTIONS_EACH, ROWS, iter_rows
from reid_ray.train.feed.prepared import RowFile, write_rows

_BATCH, _BLOCKS, _BLOCK = 512, 5, 20
_NEEDED = {"Lance": "lance", "Hugging Face datasets": "datasets", "MosaicML streaming": "streaming"}
Take = Callable[[np.ndarray], list[tuple[bytes, list[str]]]]


def main() -> int:
    if sys.argv[1:2] == ["--write"]:
        print(json.dumps(_write(*sys.argv[2:4], images=int(sys.argv[4]))))
        return 0
    if sys.argv[1:2] == ["--read"]:
        print(json.dumps(_read(*sys.argv[2:4], images=int(sys.argv[4]))))
        return 0
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--images", type=int, help="only this size")
    own, rest = parser.parse_known_args()
    return run_benchmark(__doc__ or "", partial(_run, only=own.images), rest)


def _run(report: Report, quick: bool, *, only: int | None) -> None:
    sizes, turns = ([5_000, 20_000], 2) if quick else ([100_000, 300_000, 1_000_000], 3)
    sizes = sizes if only is None else [only]
    missing = [name for name, module in _NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing and not quick:
        raise SystemExit(f"{', '.join(missing)} must be installed; see above which packages that takes")
    for images in sizes:
        # MosaicML's writer takes its rows one by one, and its dataset gives them so: some minutes for many.
        slow = images != sizes[0] or only is not None
        formats = [name for name in FORMATS if name not in missing and not (slow and name == "MosaicML streaming")]
        with tempfile.TemporaryDirectory(prefix="row_files_") as scratch:
            written = {name: in_own_process(__file__, "--write", name, f"{scratch}/{name}", str(images)) for name in formats}
            read: dict[str, list[dict[str, Any]]] = {name: [] for name in formats}
            for _ in range(turns):
                for name in formats:
                    read[name].append(in_own_process(__file__, "--read", name, f"{scratch}/{name}", str(images)))
        for name, each in read.items():
            ratios = [own["rows_per_s"] / other["rows_per_s"] for own, other in zip(read["reid_ray"], each, strict=True)]
            report.row(
                images=images,
                format=name,
                **written[name],
                turns=turns,
                **{key: _spread([one[key] for one in each]) for key in each[0]},
                ours_over_this=_spread(ratios),
            )
            if name != "reid_ray":
                report.claim(
                    f"rows a second of RowFile over {name}, {images:,} images, median turn", statistics.median(ratios), ">=", 1 / 0.95
                )


def _spread(values: list[float]) -> list[float]:
    """[least, median, most]."""
    return [round(value, 4) for value in (min(values), statistics.median(values), max(values))]


def _write(name: str, folder: str, *, images: int) -> dict[str, float]:
    spent, pieces = 0.0, 0

    def rows() -> Iterator[pa.Table]:
        nonlocal spent, pieces
        source = iter_rows(images, height=128, width=64)
        while True:
            clock = time.perf_counter()
            piece = next(source, None)
            spent += time.perf_counter() - clock  # to draw the rows is no part of writing them
            if piece is None:
                return
            pieces += 1
            yield _distinct(piece[1], seed=pieces)

    Path(folder).mkdir()
    clock = time.perf_counter()
    FORMATS[name][0](Path(folder), rows())
    seconds = time.perf_counter() - clock - spent
    size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    return {"write_s": round(seconds, 2), "gigabytes": round(size / 1e9, 3)}


def _distinct(rows: pa.Table, *, seed: int) -> pa.Table:
    """Other bytes in each image: encoded pictures are as good as random, and a format that finds repeats must not profit from ours."""
    image = rows["image"].combine_chunks()
    _, offsets, data = image.buffers()
    noise = pa.py_buffer(np.random.default_rng([3, seed]).bytes(data.size))
    return rows.set_column(0, "image", pa.Array.from_buffers(pa.binary(), len(image), [None, offsets, noise], offset=image.offset))


def _read(name: str, folder: str, *, images: int) -> dict[str, float]:
    drop_pages(Path(folder))
    FORMATS[name][1](Path(folder))  # imports
    held = _anonymous_bytes()
    clock = time.perf_counter()
    take = FORMATS[name][1](Path(folder))
    opened = time.perf_counter() - clock
    draw = np.random.default_rng(2)
    drop_pages(Path(folder))
    cold = _rate(take, [draw.integers(0, images, _BATCH) for _ in range(5)])
    batches = [draw.integers(0, images, _BATCH) for _ in range(_BLOCK)]
    _rate(take, batches)
    cpu = time.process_time()
    rates = [_rate(take, batches) for _ in range(_BLOCKS)]
    cpu = (time.process_time() - cpu) / (_BLOCKS * _BLOCK * _BATCH)
    return {
        "open_ms": opened * 1e3,
        "rows_per_s": statistics.median(rates),
        "cpu_us_per_row": cpu * 1e6,
        "cold_rows_per_s": cold,
        "held_mb": (_anonymous_bytes() - held) / 1e6,
    }


def _rate(take: Take, batches: list[np.ndarray]) -> float:
    clock = time.perf_counter()
    for rows in batches:
        found = take(rows)
        assert len(found) == len(rows)
        assert len(found[0][0]) > 500
        assert len(found[-1][1]) == CAPTIONS_EACH
    return len(batches) * _BATCH / (time.perf_counter() - clock)


def _anonymous_bytes() -> int:
    gc.collect()
    pa.default_memory_pool().release_unused()
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    return int(next(line for line in status.splitlines() if line.startswith("RssAnon:")).split()[1]) << 10


def _pairs(table: pa.Table) -> list[tuple[bytes, list[str]]]:
    return list(zip(table["image"].to_pylist(), table["captions"].to_pylist(), strict=True))


# --- the formats: how each is written, and opened


def _write_ours(folder: Path, rows: Iterator[pa.Table]) -> None:
    write_rows(folder / "rows.arrow", ROWS, (piece.slice(at, 4096) for piece in rows for at in range(0, len(piece), 4096)))


def _open_ours(folder: Path) -> Take:
    file = RowFile(folder / "rows.arrow")
    return lambda rows: _pairs(file.take(rows))


def _write_lance(folder: Path, rows: Iterator[pa.Table]) -> None:
    import lance

    lance.write_dataset((batch for piece in rows for batch in piece.to_batches()), folder / "rows.lance", schema=ROWS)


def _open_lance(folder: Path) -> Take:
    import lance

    dataset = lance.dataset(str(folder / "rows.lance"))
    return lambda rows: _pairs(dataset.take(rows.tolist()))


def _write_hf(folder: Path, rows: Iterator[pa.Table]) -> None:
    from datasets import Features
    from datasets.arrow_writer import ArrowWriter

    with ArrowWriter(path=str(folder / "rows.arrow"), features=Features.from_arrow_schema(ROWS)) as writer:
        for piece in rows:
            writer.write_table(piece, writer_batch_size=1000)
        writer.finalize()


def _open_hf(folder: Path) -> Take:
    from datasets import Dataset

    dataset = Dataset.from_file(str(folder / "rows.arrow")).with_format("arrow")
    return lambda rows: _pairs(dataset[rows.tolist()])


def _write_mds(folder: Path, rows: Iterator[pa.Table]) -> None:
    from streaming import MDSWriter

    with MDSWriter(out=str(folder / "rows"), columns={"image": "bytes", "captions": "json"}) as writer:
        for piece in rows:
            for image, captions in _pairs(piece):
                writer.write({"image": image, "captions": captions})


def _open_mds(folder: Path) -> Take:
    from streaming import LocalDataset

    dataset = LocalDataset(local=str(folder / "rows"))
    return lambda rows: [(found["image"], found["captions"]) for found in map(dataset.get_item, rows.tolist())]


FORMATS: dict[str, tuple[Callable[[Path, Iterator[pa.Table]], None], Callable[[Path], Take]]] = {
    "reid_ray": (_write_ours, _open_ours),
    "Lance": (_write_lance, _open_lance),
    "Hugging Face datasets": (_write_hf, _open_hf),
    "MosaicML streaming": (_write_mds, _open_mds),
}


if __name__ == "__main__":
    sys.exit(main())
