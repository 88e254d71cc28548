"""The retrieval service in one process and on Ray Serve beside what a good user would write: FastAPI, uvicorn, the same batcher, FAISS.

    python benchmarks/serving.py --out benchmarks/results/serving-DATE.json [--quick]

On Ray Serve it is asked directly (ray), and through its proxy (proxy). Each service has a process of its own, the same encoder, gallery and
one thread; all run side by side and are asked turn by turn, in another order each time, so that a slow spell of the machine hits all (those
that are not asked sleep); a lone client's turns are short and many, for one core's speed is what varies most. Ratios are of turns: their
geometric mean, and its 95 % interval. Closed loops of 1, 16 and 64 clients; an open loop at twice the rate that 64 clients reached; 20,000
requests for growth of memory. The text tower has the shape of CLIP ViT-B/16's (12 layers, 512 wide), or is tiny, with random weights: speed
does not depend on what it has learnt. The load comes from a process of its own, whose CPU is told.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import httpx
import numpy as np
import psutil
import pyarrow as pa
from PIL import Image

from benchmarks.harness import Report, ratio_interval, run_benchmark
from benchmarks.http_load import Seen, load
from benchmarks.serving_services import THREADS
from reid_ray.gallery.gallery_writer import GalleryWriter, create_gallery
from reid_ray.model.dual.config import ModelConfig
from reid_ray.model.dual.dual_encoder import build_dual_encoder

COLOURS = ("red", "blue", "green", "black", "white", "grey", "yellow", "brown")
GARMENTS = ("coat", "jacket", "shirt", "dress", "hoodie")
SERVICES = ("process", "ray", "proxy", "rival", "alone")
IN_WORDS = {"process": "one process", "ray": "Ray Serve", "rival": "the rival"}
TOWERS = {
    "ViT-B/16": {"text_width": 512, "text_layers": 12, "text_heads": 8, "embed_dim": 512},
    "tiny": {"text_width": 64, "text_layers": 2, "text_heads": 2, "embed_dim": 128},
}


@dataclass(frozen=True)
class Size:
    """How much is asked."""

    items: int  # in the gallery
    turns: int
    closed_s: float  # about, of a turn with one number of clients; with one client of all the turns that take its place
    open_s: float
    clients: tuple[int, ...]
    growth: int  # requests of which the memory is watched


FULL = Size(20_000, 5, 4.0, 8.0, (1, 16, 64), 20_000)
QUICK = Size(2_000, 2, 1.0, 2.0, (1, 16), 1_000)
_SHORT_TURNS = 5  # of one client, in place of one


@dataclass
class Measured:
    """All turns of one service under one load."""

    seen: list[Seen] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)  # of the service and its children

    def rates(self) -> list[float]:
        """Answered requests a second, one a turn."""
        return [sum(status == 200 for status in each.statuses) / each.seconds for each in self.seen]

    def latencies(self, *statuses: int) -> list[float]:
        """Milliseconds until an answer with one of these statuses."""
        return [ms for each in self.seen for ms, status in zip(each.latencies_ms, each.statuses, strict=True) if status in statuses]


@dataclass
class Running:
    """A service that runs."""

    port: int
    process: psutil.Process
    loads: dict[str, Measured] = field(default_factory=dict)

    def cpu_s(self) -> float:
        """Seconds of CPU of it and its children so far."""
        total = 0.0
        for each in [self.process, *self.process.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                times = each.cpu_times()
                total += times.user + times.system
        return total

    def ask(self, name: str, **order: Any) -> Seen:
        """Put a load on it."""
        before = self.cpu_s()
        seen = load(self.port, QUESTIONS, **order)
        result = self.loads.setdefault(name, Measured())
        result.seen.append(seen)
        result.cpu_s.append(self.cpu_s() - before)
        return seen


QUESTIONS = [
    {"text": f"a {who} in a {colour} {garment}", "k": 20} for who, colour, garment in itertools.product(("man", "woman"), COLOURS, GARMENTS)
]


def make_gallery(folder: Path, items: int, tower: dict[str, int]) -> None:
    """An encoder with random weights and a gallery of random vectors, in folder/model and folder/index."""
    texts = [str(each["text"]) for each in QUESTIONS]
    encoder = build_dual_encoder(ModelConfig.model_validate({"image_height": 128, "image_width": 64, "scratch": tower}), texts)
    encoder.save(folder / "model", {})
    vector_ND = np.random.default_rng(0).standard_normal((items, encoder.dim), dtype=np.float32)
    vector_ND /= np.linalg.norm(vector_ND, axis=1, keepdims=True)
    rows = [{"item_id": f"{i}", "image_id": f"{i}", "camera_id": i % 6} for i in range(items)]
    picture = io.BytesIO()
    Image.new("RGB", (64, 128)).save(picture, "JPEG")
    array = pa.FixedSizeListArray.from_arrays(pa.array(vector_ND.reshape(-1)), encoder.dim)
    table = pa.Table.from_pylist(rows).append_column("embedding", array).append_column("thumbnail", pa.array([picture.getvalue()] * items))
    create_gallery(folder / "index", dim=encoder.dim, encoder=encoder.fingerprint)
    with GalleryWriter(folder / "index") as writer:
        writer.add(table, encoder=encoder.fingerprint)
        writer.compact()


@contextlib.contextmanager
def started(folder: Path, kinds: Sequence[str] = SERVICES) -> Iterator[dict[str, Running]]:
    """The services, once all are ready; stopped at the end."""
    services: dict[str, Running] = {}
    script = Path(__file__).with_name("serving_services.py")
    # What a service says of threads holds for the thread that says it; FAISS and BLAS ask the environment in every other one.
    environment = {**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(THREADS))}
    with contextlib.ExitStack() as stack:
        for kind in kinds:
            port = _free_port()
            log = stack.enter_context((folder / f"{kind}.log").open("w"))
            command = [sys.executable, str(script), kind, str(folder), str(port)]
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=environment)
            stack.callback(_stop, process)
            services[kind] = Running(port, psutil.Process(process.pid))
            _wait_for(port, process, folder / f"{kind}.log")
        yield services


def run(report: Report, quick: bool) -> None:
    """All services with each encoder."""
    size = QUICK if quick else FULL
    for tower, shape in TOWERS.items():
        with tempfile.TemporaryDirectory(prefix="serving") as temporary:
            make_gallery(Path(temporary), size.items, shape)
            with started(Path(temporary)) as services:
                _ask_all(services, size)
                _say(report, tower, services, size)
                if tower == "tiny":
                    _growth(report, services["process"], size)


def _ask_all(services: dict[str, Running], size: Size) -> None:
    for service in services.values():
        warm = load(service.port, QUESTIONS, clients=8, requests=200)
        assert set(warm.statuses) == {200}, set(warm.statuses)
    order = random.Random(0)
    for _, clients in itertools.product(range(size.turns), size.clients):
        turns = _SHORT_TURNS if clients == 1 else 1
        for service in (each for _ in range(turns) for each in order.sample(list(services.values()), len(services))):
            known = service.loads.get(f"{clients}")
            rate = statistics.median(known.rates()) if known else _rate(service, clients)
            service.ask(f"{clients}", clients=clients, requests=max(10, int(rate * size.closed_s / turns)))
    for _, service in itertools.product(range(2), services.values()):
        rate = 2 * statistics.median(service.loads[f"{size.clients[-1]}"].rates())
        service.ask("overload", rate=rate, seconds=size.open_s)


def _rate(service: Running, clients: int) -> float:
    seen = load(service.port, QUESTIONS, clients=clients, requests=max(20, 2 * clients))
    return len(seen.statuses) / seen.seconds


def _say(report: Report, tower: str, services: dict[str, Running], size: Size) -> None:
    for name, service in services.items():
        for under, measured in service.loads.items():
            admitted, told = measured.latencies(200), measured.latencies(429, 503)
            report.row(
                encoder=tower,
                service=name,
                clients=under,
                requests=sum(len(each.statuses) for each in measured.seen),
                answered_a_second=[round(rate, 1) for rate in measured.rates()],
                p50_ms=round(statistics.median(admitted), 2),
                p99_ms=round(float(np.quantile(admitted, 0.99)), 2),
                refused=len(told),
                refused_p99_ms=round(float(np.quantile(told, 0.99)), 2) if told else None,
                broken=len(measured.latencies(0)),
                other=len(measured.latencies(*range(1, 200), *range(201, 429), *range(430, 503), *range(504, 600))),
                cpu_ms_a_request=round(1e3 * sum(measured.cpu_s) / len(admitted), 2),
                mean_batch=round(statistics.mean(batch for each in measured.seen for batch in each.batches), 1),
                generator_cpu_share=round(sum(each.cpu_s for each in measured.seen) / sum(each.seconds for each in measured.seen), 3),
            )
    for clients in map(str, size.clients):
        rates = {name: services[name].loads[clients].rates() for name in SERVICES}
        for one, other, goal in (("process", "rival", 0.95), ("ray", "process", 0.67)):
            ratio, low, high = ratio_interval(list(zip(rates[one], rates[other], strict=True)))
            what = f"{tower}: answers a second of {IN_WORDS[one]} over {IN_WORDS[other]}, {clients} clients"
            report.row(what=what, ratio=round(ratio, 3), low=low, high=high, turns=len(rates[one]))
            report.claim(what, ratio, ">=", goal)
    for name in ("process", "ray"):
        overload, peak = services[name].loads["overload"], services[name].loads[f"{size.clients[-1]}"]
        goodput = statistics.median(overload.rates()) / statistics.median(peak.rates())
        report.claim(f"{tower}: {name} at twice what it can do, answers a second over the peak", goodput, ">=", 0.8)
        report.claim(f"{tower}: {name} at twice what it can do, p99 of the admitted, s", _p99_s(overload.latencies(200)), "<=", 2.0)
        report.claim(f"{tower}: {name} at twice what it can do, p99 until told, s", _p99_s(overload.latencies(429, 503)), "<=", 0.1)


def _growth(report: Report, service: Running, size: Size) -> None:
    before = service.process.memory_info().rss
    load(service.port, QUESTIONS, clients=16, requests=size.growth)
    middle = service.process.memory_info().rss
    load(service.port, QUESTIONS, clients=16, requests=size.growth)
    after = service.process.memory_info().rss
    report.row(
        what="memory of one process", requests=size.growth, before_mb=before >> 20, then_mb=middle >> 20, after_as_many_more_mb=after >> 20
    )
    report.claim(f"memory after {size.growth} requests more over before, one process", after / middle, "<=", 1.02)


def _p99_s(latencies_ms: list[float]) -> float:
    return float(np.quantile(latencies_ms, 0.99)) / 1e3 if latencies_ms else 0.0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 180
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"http://127.0.0.1:{port}/v1/ready", timeout=5, trust_env=False).status_code == 200:
                return
        time.sleep(0.2)
    raise RuntimeError(f"a service does not start: {log.read_text()[-2000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(run_benchmark(__doc__ or "", run))
