"""What encoders apart cost and bring on one machine: a searcher that encodes by itself, two of them, and one beside one or two encoders.

    python benchmarks/serving_encoders.py --out benchmarks/results/serving_encoders-DATE.json [--quick]

The text tower of CLIP ViT-B/16's shape and the tiny one, with random weights, over 20,000 items; each process has one thread, and all share
the machine's cores with the load generator: on two cores what the way to an encoder costs shows more than what many encoders bring.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.harness import Report, run_benchmark
from benchmarks.http_load import load
from benchmarks.serving import QUESTIONS, TOWERS, make_gallery, started

_BASE = "ray"
_KINDS = (_BASE, "replicas-2", "encoders-1", "encoders-2")
_CLIENTS = {1: 60, 16: 240, 64: 384}  # -> requests of a turn; of the tiny tower five times as many


def run(report: Report, quick: bool) -> None:
    """All arrangements with each tower, turn by turn."""
    for tower, shape in TOWERS.items():
        with tempfile.TemporaryDirectory(prefix="serving") as temporary:
            make_gallery(Path(temporary), 2_000 if quick else 20_000, shape)
            with started(Path(temporary), _KINDS) as services:
                for service in services.values():
                    load(service.port, QUESTIONS, clients=8, requests=100)
                times = (1 if quick else 5) if tower == "tiny" else 1
                for _, (clients, requests), service in itertools.product(range(2 if quick else 5), _CLIENTS.items(), services.values()):
                    service.ask(f"{clients}", clients=clients, requests=max(clients, requests * times // (4 if quick else 1)))
                for number in map(str, _CLIENTS):
                    base = services[_BASE].loads[number].rates()
                    for name, service in services.items():
                        measured = service.loads[number]
                        report.row(
                            encoder=tower,
                            service=name,
                            clients=number,
                            answered_a_second=[round(rate, 1) for rate in measured.rates()],
                            p50_ms=round(statistics.median(measured.latencies(200)), 1),
                            other=sum(status != 200 for each in measured.seen for status in each.statuses),
                            cpu_ms_a_request=round(1e3 * sum(measured.cpu_s) / len(measured.latencies(200)), 2),
                            of_one_that_encodes=round(statistics.median(a / b for a, b in zip(measured.rates(), base, strict=True)), 2),
                        )


if __name__ == "__main__":
    sys.exit(run_benchmark(__doc__ or "", run))
