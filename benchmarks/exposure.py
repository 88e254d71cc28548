"""How long does it take to ask what weights have seen of a gallery, near duplicates among it, and how much memory?

    python benchmarks/exposure.py --out benchmarks/results/exposure-DATE.json [--quick]

A table of SEEN of 0.4, 1 and 4 M pictures with two texts each, read from Parquet, against a gallery of 20,000 pictures. Hashes are those of
crops of synthetic people with a fifth of their bits drawn anew, so that words of hashes repeat as in pictures of people. 100 pictures of
the gallery are made near duplicates of seen ones, and 100 copies: exactly these must be found. --quick stops at 0.2 M.
"""

from __future__ import annotations

import functools
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.harness import Report, peak_extra_bytes, run_benchmark, time_turns
from reid_ray.config.common import SyntheticConfig
from reid_ray.data.images import decode_image
from reid_ray.data.perceptual_hash import BITS, picture_hash
from reid_ray.data.seen_rows import image_rows, rows_of, text_rows
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.records import SEEN, SEEN_FILE
from reid_ray.retrieval.evaluate.exposure import exposure

GALLERY, PLANTED, PIECE, CROPS = 20_000, 100, 200_000, 4_000


class World:
    """Pictures as their digests and hashes, drawn from `seed`."""

    def __init__(self, seed: int) -> None:
        crops = SyntheticPeople(SyntheticConfig(identities=CROPS // 4, images_per_identity=4)).image_table()["image"].to_pylist()
        self._crops_NB = np.frombuffer(b"".join(picture_hash(decode_image(data)) for data in crops), np.uint8).reshape(-1, BITS // 8)
        self._rng = np.random.default_rng(seed)

    def pictures(self, count: int) -> tuple[list[str], np.ndarray]:
        """Digests and hashes."""
        like = self._crops_NB[self._rng.integers(0, len(self._crops_NB), count)]
        hash_NB = like ^ np.packbits(self._rng.random((count, BITS)) < 0.2, axis=1)
        return self.digests(count), hash_NB

    def digests(self, count: int) -> list[str]:
        """Of contents that nothing else has."""
        data = self._rng.bytes(32 * count).hex()
        return [data[start : start + 64] for start in range(0, len(data), 64)]

    def seen(self, count: int) -> Iterator[pa.Table]:
        """Pieces of SEEN."""
        for _ in range(count // PIECE):
            yield rows(*self.pictures(PIECE))
        yield text_rows("train", self._rng.integers(-(1 << 62), 1 << 62, 2 * count))


def rows(digests: list[str], hash_NB: np.ndarray) -> pa.Table:
    dataset = pa.array(["LUPerson-MLLM"] * len(digests))
    images = {"image_sha256": pa.array(digests), "dataset": dataset, "person_id": pa.nulls(len(digests), pa.int64())}
    return image_rows("train", pa.table(images), hash_NB)


def run(report: Report, quick: bool) -> None:
    world = World(seed=0)
    digests, hash_NB = world.pictures(GALLERY)
    sizes = (200_000,) if quick else (400_000, 1_000_000, 4_000_000)
    for size in sizes:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            planted = rows(
                [*digests[:PLANTED], *world.digests(PLANTED)],
                np.concatenate([hash_NB[:PLANTED], hash_NB[PLANTED : 2 * PLANTED] ^ np.uint8([0b1010001, *[0] * 14, 0b11])]),
            )
            with pq.ParquetWriter(folder / SEEN_FILE, SEEN, compression="zstd") as writer:
                for piece in (planted, *world.seen(size)):
                    writer.write_table(piece)
            measure(report, folder, rows(digests, hash_NB), size, claims=size == sizes[-1])


def measure(report: Report, folder: Path, gallery: pa.Table, size: int, *, claims: bool) -> None:
    found: dict[str, dict] = {}

    def ask() -> None:
        found["exposure"] = exposure(rows_of(folder), gallery)

    memory = peak_extra_bytes(ask)
    timing = time_turns({"ask": functools.partial(ask)}, repeats=1)["ask"]
    counts = found["exposure"]["train"]
    table_mb = round((folder / SEEN_FILE).stat().st_size / 1e6, 1)
    report.row(seen=size, gallery=GALLERY, **counts, table_MB=table_mb, extra_MiB=memory >> 20, **timing.row())
    if claims:
        report.claim(f"{size} seen pictures: copies found beside {PLANTED}", abs(counts["images"] - PLANTED), "<=", 0)
        report.claim(f"{size} seen pictures: near duplicates found beside {PLANTED}", abs(counts["near"] - PLANTED), "<=", 0)
        report.claim(f"{size} seen pictures: memory, MiB", memory >> 20, "<=", 600)
        report.claim(f"{size} seen pictures: seconds of CPU", timing.best_cpu_s, "<=", 120)


if __name__ == "__main__":
    sys.exit(run_benchmark(__doc__ or "", run))
