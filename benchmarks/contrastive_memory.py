"""How much memory and time do contrastive losses of large batches take, dense and blocked?

    python benchmarks/contrastive_memory.py --out benchmarks/results/contrastive_memory-DATE.json [--quick]

SDM and InfoNCE, forward and backward, float32, features of 512 dimensions, one thread on CPU. Dense is train/losses/image_text.py, which
holds B x B matrices; blocked is train/losses/contrastive.py, which holds tiles. Both run turn by turn on the same features, and
their gradients are compared. --quick stops at a batch of 2,048; the whole run needs about 12 GB for the dense loss at 16,384.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.harness import Report, peak_extra_bytes, run_benchmark, time_turns
from reid_ray.train.losses.contrastive import blocked_infonce_loss, blocked_sdm_loss
from reid_ray.train.losses.image_text import infonce_loss, sdm_loss

DIM, TEMPERATURE, TILES = 512, 0.02, (256, 1024)
Features = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def features_of(batch: int) -> Features:
    draw = torch.Generator().manual_seed(0)
    image, text = (torch.nn.functional.normalize(torch.randn(batch, DIM, generator=draw), dim=1).requires_grad_() for _ in range(2))
    return image, text, torch.randint(0, batch // 2, (batch,), generator=draw)


def dense_sdm(features: Features) -> torch.Tensor:
    image, text, person = features
    return sdm_loss(image, text, person, image_CD=image, text_CD=text, person_C=person, temperature=TEMPERATURE)


def dense_infonce(features: Features) -> torch.Tensor:
    image, text, _ = features
    return infonce_loss(image, text, image_CD=image, text_CD=text, first=0, temperature=TEMPERATURE)


def blocked_sdm(features: Features, tile: int) -> torch.Tensor:
    return blocked_sdm_loss(*features, temperature=TEMPERATURE, tile=tile)


def blocked_infonce(features: Features, tile: int) -> torch.Tensor:
    return blocked_infonce_loss(*features[:2], temperature=TEMPERATURE, tile=tile)


def gradient(loss: Callable[[Features], torch.Tensor], features: Features) -> torch.Tensor:
    return torch.cat(torch.autograd.grad(loss(features), features[:2]))


def run(report: Report, quick: bool) -> None:
    losses: dict[str, dict[str, Callable[[Features], torch.Tensor]]] = {
        "sdm": {"dense": dense_sdm, **{f"blocked {tile}": functools.partial(blocked_sdm, tile=tile) for tile in TILES}},
        "infonce": {"dense": dense_infonce, **{f"blocked {tile}": functools.partial(blocked_infonce, tile=tile) for tile in TILES}},
    }
    torch.set_num_threads(1)
    gradient(dense_sdm, features_of(64))  # first use of the kernels
    batches = (512, 2048) if quick else (1024, 4096, 16_384)
    for batch in batches:
        features = features_of(batch)
        for name, rivals in losses.items():
            measure(report, name, batch, rivals, features, repeats=3 if batch < 4096 else 1, claims=batch == batches[-1])


def measure(
    report: Report,
    name: str,
    batch: int,
    rivals: dict[str, Callable[[Features], torch.Tensor]],
    features: Features,
    *,
    repeats: int,
    claims: bool,
) -> None:
    gradients: dict[str, torch.Tensor] = {}
    memory = dict.fromkeys(rivals, 0)

    def once(rival: str) -> None:
        grown = peak_extra_bytes(lambda: gradients.update({rival: gradient(rivals[rival], features)}))
        memory[rival] = max(memory[rival], grown)

    timings = time_turns({rival: functools.partial(once, rival) for rival in rivals}, repeats=repeats)
    exact = gradients["dense"]
    error = {rival: float((found - exact).norm() / exact.norm()) for rival, found in gradients.items()}
    for rival, timing in timings.items():
        report.row(loss=name, batch=batch, rival=rival, extra_MiB=memory[rival] >> 20, gradient_error=error[rival], **timing.row())
    if claims:
        # A tile is the smaller a part of the matrix, the larger the batch.
        report.claim(
            f"{name} at {batch}: blocked 256 memory over dense",
            memory["blocked 256"] / memory["dense"],
            "<=",
            0.05 if batch == 16_384 else 0.2,
        )
        ratio = timings["blocked 1024"].best_cpu_s / timings["dense"].best_cpu_s
        report.claim(f"{name} at {batch}: blocked 1024 CPU time over dense", ratio, "<=", 1.5)
        report.claim(f"{name} at {batch}: blocked 1024 relative error of the gradient", error["blocked 1024"], "<=", 1e-4)


if __name__ == "__main__":
    sys.exit(run_benchmark(__doc__ or "", run))
