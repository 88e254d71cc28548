"""What it costs to list a folder of a million images before captioning: seconds, calls for files' states, memory.

    python benchmarks/listing.py --out benchmarks/results/listing-DATE.json [--quick]

A caption run knows its images by their files' sizes and times of change, which it needs for the digest of its inputs and at each look into
the digest cache: four times with one captioner. Here they are asked for once, by many threads where a call waits, and held by the listing
("held"); beside it the same steps where each asks again, in its own thread ("asked each time"). Files are empty, a thousand to a folder, on
the disk of temporary files, and in the kernel's cache for both. Another row is a disk over a network: each call waits half a millisecond
more. Each part runs in a process of its own. --quick takes 100,000 files alone.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.harness import Report, in_own_process, peak_extra_bytes, run_benchmark
from reid_ray.caption.config import CaptionJob
from reid_ray.caption.ledger.missing import look_up_listing
from reid_ray.caption.ledger.write_ahead_log import open_ledger
from reid_ray.config.common import ImagesConfig
from reid_ray.data.sources import ImageListing, image_listing
from reid_ray.storage import JobOutput

_PER_FOLDER = 1_000
_FAR = 20_000  # files of the disk over a network
_WAIT_S = 5e-4
_LOOKS = 3  # before the pass, after it, and when it is published


def run(report: Report, quick: bool) -> None:
    sizes, repeats = ((100_000,), 1) if quick else ((200_000, 1_000_000), 2)
    with tempfile.TemporaryDirectory(prefix="listing_bench_") as scratch:
        folder = Path(scratch) / "crops"
        made = 0
        for size in sizes:
            make_files(folder, made, size)
            made = size
            held = [part("measure", folder, scratch, "held") for _ in range(repeats)]
            asked = [part("measure", folder, scratch, "asked each time") for _ in range(repeats)]
            for each in (held, asked):
                report.row(**min(each, key=lambda row: float(row["seconds"])))
            counts = part("count", folder, scratch)
            report.row(what="calls for a file's state", **counts)
        report.claim("calls for a file's state, from listing to publishing", counts["a_file"], "<=", 1)
        report.claim("bytes held of an image", held[-1]["bytes_an_image"], "<=", 64)
        report.claim(
            "CPU seconds, held by asked each time", min(h["cpu_seconds"] for h in held) / min(a["cpu_seconds"] for a in asked), "<=", 0.8
        )
        far = part("far", folder, scratch)
        report.row(what="each call waits 0.5 ms", **far)
        report.claim("over a network, held by asked each time", far["held_s"] / far["asked_each_time_s"], "<=", 0.1)


def make_files(folder: Path, start: int, stop: int) -> None:
    """Empty files, a thousand to a folder, with names as long as those of a data set."""
    for at in range(start, stop, _PER_FOLDER):
        place = folder / f"{at // _PER_FOLDER:04d}"
        place.mkdir(parents=True)
        for number in range(at, min(at + _PER_FOLDER, stop)):
            os.close(os.open(place / f"{number // 20:06d}_c{number % 6}_{number:08d}.jpg", os.O_CREAT | os.O_WRONLY))
    time.sleep(2.5)  # what changed just now would be looked at again


def part(name: str, *arguments: object) -> dict[str, Any]:
    """One part in a process of its own."""
    return in_own_process(__file__, "--part", name, *map(str, arguments))


def steps(folder: str, scratch: str, *, states: bool) -> ImageListing:
    """What a run does with its listing, from the beginning to the end."""
    listing = image_listing(ImagesConfig(source="folder", path=folder), states=states)
    place = {"source": "folder", "path": folder}
    config = CaptionJob.model_validate({"images": place, "output": {"path": f"{scratch}/captions"}})
    JobOutput("caption", config.output.path, config, inputs={"images": folder}, contents={"images.path": listing.digest()}).provenance  # noqa: B018
    with tempfile.TemporaryDirectory(dir=scratch) as output, open_ledger(Path(output) / "out") as ledger:
        for _ in range(_LOOKS):
            look_up_listing(listing, ledger)
    return listing


def measure(folder: str, scratch: str, how: str) -> dict[str, Any]:
    """Seconds of the steps, and memory of the listing alone and of all steps."""
    states = how == "held"
    kept: list[ImageListing] = []
    start = time.perf_counter()
    listing_bytes = peak_extra_bytes(lambda: kept.append(image_listing(ImagesConfig(source="folder", path=folder), states=states)))
    listed_s = time.perf_counter() - start
    count = kept.pop().count
    clock, cpu = time.perf_counter(), time.process_time()
    peak = peak_extra_bytes(lambda: kept.append(steps(folder, scratch, states=states)))
    return {
        "what": how,
        "images": count,
        "seconds": round(time.perf_counter() - clock, 3),
        "cpu_seconds": round(time.process_time() - cpu, 3),
        "seconds_of_listing": round(listed_s, 3),
        "bytes_an_image": round(held_bytes(kept[0]) / count, 1),
        "peak_bytes_an_image_of_listing": round(listing_bytes / count, 1),
        "peak_bytes_an_image": round(peak / count, 1),
    }


def held_bytes(listing: ImageListing) -> int:
    """Bytes of a listing: its pieces, their names and states."""
    parts = [each for piece in listing.pieces for each in (piece, piece.__dict__, *piece.__dict__.values())]
    return sum(map(sys.getsizeof, {id(each): each for each in parts}.values()))


def counted(wait_s: float = 0.0) -> Counter[int]:
    """Count os.stat of pictures by thread from now on, each with a wait."""
    calls, real = Counter[int](), os.stat

    def stat(path: Any, *options: Any, **more: Any) -> os.stat_result:
        if isinstance(path, str) and path.endswith(".jpg"):
            calls[threading.get_ident()] += 1
            if wait_s:
                time.sleep(wait_s)
        return real(path, *options, **more)

    os.stat = stat
    return calls


def count(folder: str, scratch: str) -> dict[str, Any]:
    """Calls for a file's state in all steps, and how many of them the main thread made."""
    calls = counted()
    images = steps(folder, scratch, states=True).count
    return {
        "images": images,
        "a_file": round(calls.total() / images, 3),
        "in_the_main_thread": calls[threading.get_ident()],
        "threads": len(calls),
    }


def far(folder: str, scratch: str) -> dict[str, Any]:
    """Seconds of asking for the states of some files over a network, once by many threads and four times by one."""
    counted(_WAIT_S)
    listing = image_listing(ImagesConfig(source="folder", path=folder, limit=_FAR))
    clock = time.perf_counter()
    listing.renewed()
    held = time.perf_counter() - clock
    clock = time.perf_counter()
    for _ in listing.places("once"):
        pass
    asked = (time.perf_counter() - clock) * (1 + _LOOKS)
    return {"images": listing.count, "held_s": round(held, 3), "asked_each_time_s": round(asked, 3)}


PARTS: dict[str, Callable[..., dict[str, Any]]] = {"measure": measure, "count": count, "far": far}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--part"]:
        print(json.dumps(PARTS[sys.argv[2]](*sys.argv[3:])))
        sys.exit(0)
    sys.exit(run_benchmark(__doc__ or "", run))
