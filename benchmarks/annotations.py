"""Read annotation files of up to a million rows, as ingest and lint do: seconds, peak memory, and json.load of the same file beside them.

    python benchmarks/annotations.py --out benchmarks/results/annotations-DATE.json [--quick]

A row is WebPerson's, {path: {caption1, caption2}}, with two captions of 60 words. The reader streams records and checks that no id comes
twice, for which it keeps digests; no image is opened. Each reading has a process of its own, and its peak memory is that process's.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import Report, in_own_process, run_benchmark

_WORDS = (
    "man",
    "woman",
    "red",
    "coat",
    "black",
    "trousers",
    "with",
    "white",
    "shoes",
    "blue",
    "bag",
    "short",
    "dark",
    "hair",
    "walks",
    "and",
)


def main() -> int:
    return run_benchmark(__doc__ or "", _run)


def _run(report: Report, quick: bool) -> None:
    peaks: dict[int, float] = {}
    sizes = (10_000, 30_000) if quick else (100_000, 300_000, 1_000_000)
    with tempfile.TemporaryDirectory(prefix="annotations_bench_") as scratch:
        file = Path(scratch) / "100w.json"
        for rows in sizes:
            write_rows(file, rows)
            for reader in ("reid_ray", "json.load"):
                result = in_own_process(__file__, "--read", reader, str(file))
                assert result["rows"] == rows, f"{reader} read {result['rows']} of {rows} rows"
                report.row(reader=reader, file_mb=round(file.stat().st_size / 1e6), **result)
                if reader == "reid_ray":
                    peaks[rows] = result["added_mb"]
    least, most = sizes[0], sizes[-1]
    growth = (peaks[most] - peaks[least]) * 1e6 / (most - least)
    report.claim("bytes of memory a row (digests of ids)", round(growth, 1), "<=", 200)


def write_rows(file: Path, rows: int) -> None:
    """Write a list of WebPerson's objects."""
    draw = random.Random(0)
    captions = [" ".join(draw.choices(_WORDS, k=60)) for _ in range(1_000)]
    with file.open("w") as stream:
        stream.write("[")
        for row in range(rows):
            pair = {"caption1": f"{captions[row % 1000]} {row}", "caption2": f"{captions[row * 7 % 1000]} {row}"}
            stream.write(("," if row else "") + json.dumps({f"{row // 1000:06d}/{row:09d}.jpg": pair}))
        stream.write("]")


def read(reader: str, file: str) -> int:
    """Read the file and print rows, seconds and megabytes of memory beyond those of the imports."""
    import resource
    import time

    from reid_ray.data.formats.config import SourceConfig
    from reid_ray.data.formats.registry import read_source
    from reid_ray.data.ingest.job import admit

    source = SourceConfig(format="webperson", path=str(Path(file).parent))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    clock = time.perf_counter()
    if reader == "reid_ray":
        rows = sum(1 for _ in admit(read_source(source)))
    else:
        with open(file) as stream:
            rows = len(json.load(stream))
    seconds, after = time.perf_counter() - clock, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"rows": rows, "seconds": round(seconds, 2), "added_mb": round((after - before) / 1e3, 1)}))
    return 0


if __name__ == "__main__":
    sys.exit(read(*sys.argv[2:]) if sys.argv[1:2] == ["--read"] else main())
