"""Step metrics of a log line: mean losses, throughput, share of time spent waiting for data, memory, MFU (model FLOPs utilisation).

Knows clocks, counters and torch.distributed; not models, files or what the numbers mean. MFU is the share of the device's peak that the
model's own operations use: three times those of the forward pass per sample, whatever is computed twice to save memory (as in PaLM).
Passes without gradient, such as that of noise levels, count as if they had one, so MFU is a little too high there.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from reid_ray.train.parts import Loss

# Dense TFLOP/s in the makers' data sheets, by a part of torch's name of the device; the first that fits.
PEAK_TFLOPS: dict[str, dict[str, float]] = {
    "B200": {"bf16": 2250, "fp32": 75},
    "H200": {"bf16": 989, "fp32": 67},
    "H100 PCIe": {"bf16": 756, "fp32": 51},
    "H100": {"bf16": 989, "fp32": 67},
    "A100": {"bf16": 312, "fp32": 19.5},
    "A10": {"bf16": 125, "fp32": 31.2},
    "L40S": {"bf16": 362, "fp32": 91.6},
    "L4": {"bf16": 121, "fp32": 30.3},
    "RTX 4090": {"bf16": 165, "fp32": 82.6},
    "RTX 3090": {"bf16": 71, "fp32": 35.6},
}


def peak_tflops(precision: str, *, given: float | None) -> float | None:
    """Peak of this worker's device, TFLOP/s: `given`, or what is known of an NVIDIA GPU; None if unknown."""
    if given is not None or not torch.cuda.is_available():
        return given
    name = torch.cuda.get_device_name()
    return next((peaks[precision] for part, peaks in PEAK_TFLOPS.items() if part in name.replace("-", " ")), None)


@contextmanager
def counted_flops() -> Iterator[FlopCounterMode]:
    """Floating-point operations of the matrix products inside, on the CPU too; get_total_flops() of what it yields, afterwards."""

    def attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return int(sdpa_flop_count(query, key, value))

    on_cpu = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention}
    with FlopCounterMode(display=False, custom_mapping=on_cpu) as counter:
        yield counter


class Meter:
    """Collects what steps measure; workers speak to each other only when a line is asked for.

    Args:
        device: where workers exchange numbers.
        peak: TFLOP/s of one worker's device; None leaves mfu empty.
    """

    def __init__(self, *, device: torch.device, peak: float | None) -> None:
        self._device, self._peak = device, peak
        self._flops_per_sample: float | None = None
        self._names: list[str] = []
        self._begin()

    @contextmanager
    def data_wait(self) -> Iterator[None]:
        """The time inside was spent waiting for data."""
        started = time.perf_counter()
        yield
        self._wait += time.perf_counter() - started

    @contextmanager
    def excluded(self) -> Iterator[None]:
        """The time inside is left out of every rate: a validation or a checkpoint is no training."""
        started = time.perf_counter()
        yield
        self._since += time.perf_counter() - started

    @contextmanager
    def forward(self, samples: int) -> Iterator[None]:
        """The first forward pass is counted, which takes it a little longer; the others are not touched."""
        if self._flops_per_sample is not None or self._peak is None:
            yield
            return
        with counted_flops() as counter:
            yield
        self._flops_per_sample = 3 * counter.get_total_flops() / samples

    def add(self, loss: Loss, *, norm: float, samples: int) -> None:
        """One step."""
        weighted = {f"weighted_{name}": value for name, value in loss.weighted.items()}
        named = {"loss": loss.total.detach(), **loss.raw, **weighted, **loss.learnt}
        self._names = list(named)
        self._rows.append(torch.stack(list(named.values())))
        self._norm += norm
        self._samples += samples

    def line(self) -> dict[str, float | None]:
        """The numbers since the last line; every worker must ask for it, and all get the same losses and memory.

        loss, each term, weighted_<term> and what the losses learn (logit_scale); grad_norm before clipping; steps_per_second and
        images_per_second over all workers;
        data_wait_share of this worker's time; memory_peak_mb, the largest of all workers, MiB; cuda_peak_mb, of all GPUs (None without);
        mfu (None where the peak is unknown).
        """
        seconds, steps = time.perf_counter() - self._since, len(self._rows)
        world = dist.get_world_size() if dist.is_initialized() else 1
        mean = torch.stack(self._rows).double().mean(dim=0)
        memory = torch.tensor([_resident_mb(), _cuda_mb()], dtype=torch.float64, device=self._device)
        if world > 1:
            dist.all_reduce(mean)
            mean /= world
            dist.all_reduce(memory, op=dist.ReduceOp.MAX)
        resident, cuda = memory.tolist()
        numbers: dict[str, float | None] = dict(zip(self._names, mean.tolist(), strict=True))
        numbers["grad_norm"] = self._norm / steps
        numbers["steps_per_second"] = steps / seconds
        numbers["images_per_second"] = self._samples * world / seconds
        numbers["data_wait_share"] = self._wait / seconds
        numbers["memory_peak_mb"] = resident
        numbers["cuda_peak_mb"] = cuda if torch.cuda.is_available() else None
        numbers["mfu"] = None
        if self._peak is not None and self._flops_per_sample is not None:
            numbers["mfu"] = self._flops_per_sample * self._samples / seconds / (self._peak * 1e12)
        self._begin()
        return numbers

    def _begin(self) -> None:
        self._rows: list[torch.Tensor] = []
        self._norm = self._wait = 0.0
        self._samples = 0
        self._since = time.perf_counter()


def _resident_mb() -> float:
    """Most memory that this process ever held, MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20) if sys.platform == "darwin" else peak / (1 << 10)  # Linux counts KiB


def _cuda_mb() -> float:
    return torch.cuda.max_memory_allocated() / (1 << 20) if torch.cuda.is_available() else 0.0
