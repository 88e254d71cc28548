"""The retrieval service in one process and on Ray Serve, batched and one by one, over HTTP on this machine.

    python benchmarks/serving.py --out benchmarks/results/serving-DATE.json [--quick]

The services run side by side (same encoder, same gallery, one replica each) and are asked turn by turn, so that a slow spell of the
machine hits all. Clients wait for an answer before they ask again; the number of requests is fixed. The text
tower has the shape of CLIP ViT-B/16's (12 layers, 512 wide) with random weights: speed does not depend on what it has learnt.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
from PIL import Image

from benchmarks.harness import Report, run_benchmark
from reid_ray.config.common import RayConfig
from reid_ray.gallery.gallery_writer import GalleryWriter, create_gallery
from reid_ray.model.dual.config import ModelConfig
from reid_ray.model.dual.dual_encoder import build_dual_encoder
from reid_ray.runtime import ray_session
from reid_ray.serve.config import ServeJob
from reid_ray.serve.job import start_service

COLOURS = ("red", "blue", "green", "black", "white", "grey", "yellow", "brown")
GARMENTS = ("coat", "jacket", "shirt", "dress", "hoodie")
SERVICES = ("process", "ray", "one_by_one")


@dataclass(frozen=True)
class Load:
    """What is asked of whom."""

    items: int  # in the gallery
    turns: int
    requests: int  # a turn; a quarter of it from a lone client
    clients: tuple[int, ...]  # the first is the lone one, the last the busiest
    services: tuple[str, ...]


FULL = Load(50_000, 7, 480, (1, 8, 32), SERVICES)
QUICK = Load(2_000, 3, 96, (1, 16), ("process", "one_by_one"))


@dataclass
class Measured:
    """All turns of one service with one number of clients."""

    rates: list[float] = field(default_factory=list)  # requests/s, one a turn
    latencies_ms: list[float] = field(default_factory=list)  # one a request
    batches: list[int] = field(default_factory=list)


def texts() -> list[str]:
    return [f"a {who} in a {colour} {garment}" for who, colour, garment in itertools.product(("man", "woman"), COLOURS, GARMENTS)]


def make_index(folder: Path, items: int) -> None:
    """An encoder with random weights and an index of random vectors, in folder/model and folder/index."""
    shape = {"text_width": 512, "text_layers": 12, "text_heads": 8, "embed_dim": 512}
    encoder = build_dual_encoder(ModelConfig.model_validate({"image_height": 128, "image_width": 64, "scratch": shape}), texts())
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


async def ask(url: str, *, clients: int, requests: int) -> tuple[float, list[float], list[int]]:
    """(seconds, latency of each request in ms, batch of each request)."""
    questions = itertools.islice(itertools.cycle(texts()), requests)
    latencies, batches = [], []
    async with httpx.AsyncClient(timeout=120, trust_env=False, limits=httpx.Limits(max_connections=clients)) as http:

        async def client() -> None:
            for text in questions:  # one iterator for all clients: each takes the next question
                started = time.perf_counter()
                reply = await http.post(f"{url}/v1/search", json={"text": text, "k": 20})
                latencies.append((time.perf_counter() - started) * 1e3)
                batches.append(reply.raise_for_status().json()["batch"])

        started = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(clients)))
        return time.perf_counter() - started, latencies, batches


@contextlib.contextmanager
def started(folder: Path, services: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """Base URL by service."""
    with contextlib.ExitStack() as stack:
        urls = {}
        for name in services:
            searcher = {"num_cpus": 1, "max_batch_size": 1 if name == "one_by_one" else 32}
            config: dict[str, Any] = {"index": str(folder / "index"), "encoder": str(folder / "model"), "searcher": searcher}
            config["serve"] = {"timeout_s": 120, "port": 0}  # a busy machine gives slow numbers, not none
            if name == "ray":
                stack.enter_context(ray_session(RayConfig(address="local")))
            service = start_service(ServeJob.model_validate({**config, "runs_on": "ray" if name == "ray" else "process"}))
            urls[name] = stack.enter_context(service).url
        yield urls


def run(report: Report, quick: bool) -> None:
    load = QUICK if quick else FULL
    measured: dict[tuple[str, int], Measured] = {}
    with tempfile.TemporaryDirectory(prefix="serving") as temporary, contextlib.ExitStack() as stack:
        make_index(Path(temporary), load.items)
        urls = stack.enter_context(started(Path(temporary), load.services))
        for url in urls.values():  # warm up
            asyncio.run(ask(url, clients=8, requests=load.requests // 4))
        for _, clients, (name, url) in itertools.product(range(load.turns), load.clients, urls.items()):
            count = load.requests if clients > 1 else load.requests // 4
            seconds, latencies, batches = asyncio.run(ask(url, clients=clients, requests=count))
            result = measured.setdefault((name, clients), Measured())
            result.rates.append(count / seconds)
            result.latencies_ms += latencies
            result.batches += batches
    for (name, clients), result in sorted(measured.items(), key=lambda entry: entry[0][1]):
        cuts = statistics.quantiles(result.latencies_ms, n=100)
        report.row(
            service=name,
            clients=clients,
            gallery=load.items,
            turns=load.turns,
            requests=len(result.latencies_ms),
            per_second_median=round(statistics.median(result.rates), 1),
            per_second_min=round(min(result.rates), 1),
            per_second_max=round(max(result.rates), 1),
            latency_p50_ms=round(cuts[49], 2),
            latency_p99_ms=round(cuts[98], 2),
            mean_batch=round(statistics.mean(result.batches), 2),
        )
    busiest = load.clients[-1]
    for rival in load.services[1:]:
        gains = [a / b for a, b in zip(measured[rival, busiest].rates, measured["process", busiest].rates, strict=True)]
        goal = 0.67 if rival == "ray" else 0.0
        report.claim(f"requests/s at {busiest} clients of {rival} over the process (median of turns)", statistics.median(gains), ">=", goal)


if __name__ == "__main__":
    sys.exit(run_benchmark(__doc__ or "", run))
