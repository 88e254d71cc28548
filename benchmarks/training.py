"""What does a training step cost against plain PyTorch, what do the ZeRO stages save, and how fast is the feed?

    python benchmarks/training.py --out benchmarks/results/training-DATE.json [--quick]

step: two gloo workers of one thread train the same model on the same batches, by this project's loop (reid_ray.train.loop over DeepSpeed
ZeRO-0; without validation and checkpoints) and by a plain loop over DistributedDataParallel, in the same processes, block by block by
turns. Both use the same loss and optimizer. stages: every engine in processes of its own: step time, and how far resident memory grows
from the built imports to the peak. loader: images a second from the prepared pictures to tensors, by threads, by Ray Data's actors and by a
torch DataLoader, with the same decoding, augmentation and collate. The memory of contrastive losses is contrastive_memory.py's question.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import multiprocessing

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.harness import Report, run_benchmark
from reid_ray.config.base import load_config
from reid_ray.config.common import RayConfig, SyntheticConfig
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.model.dual.dual_encoder import DualEncoder, build_dual_encoder
from reid_ray.model.dual.preprocess import ImageTransform
from reid_ray.model.dual.tokenizer import train_tokenizer
from reid_ray.records import CAPTIONS, IMAGES
from reid_ray.runtime import ray_session
from reid_ray.storage import Counts, TableWriter, read_table
from reid_ray.train.dual.config import TrainJob
from reid_ray.train.dual.towers import PairCollate, TwoTowers
from reid_ray.train.feed.augment import fill_of
from reid_ray.train.feed.decoding import Decoder, PictureRequest
from reid_ray.train.feed.loader import Feed
from reid_ray.train.feed.pairs import prepare_pairs
from reid_ray.train.feed.prepared import PICTURES, SAMPLES, RowFile
from reid_ray.train.parts import TrainBatch

WORKERS = 2
SMALL = "{vision_width: 96, vision_layers: 3, text_width: 96, text_layers: 2, embed_dim: 96, vocab_size: 2000, context: 64}"
LARGE = "{vision_width: 384, vision_layers: 6, text_width: 256, text_layers: 4, embed_dim: 256, vocab_size: 4000, context: 64}"


def job(model: str, stage: int, *overrides: str) -> TrainJob:
    values = [
        "images={path: unused, val_split: null}",
        "captions={paths: [unused]}",
        "output.path=unused",
        f"model={{image_height: 128, image_width: 64, scratch: {model}}}",
        "batches.size=32",
        "objective={sdm: {temperature: 0.1}, infonce: {weight: 1}}",
        "optimizer={name: adamw, lr: 0.0001}",
        f"engine={{zero_stage: {stage}, persistence_threshold: 0}}",
        f"workers.count={WORKERS}",
        *overrides,
    ]
    return load_config(TrainJob, None, values)


# --- step and stages: what runs in each of the two processes


def encoder_of(config: TrainJob) -> DualEncoder:
    texts = SyntheticPeople(SyntheticConfig(identities=50, images_per_identity=1)).caption_table()["text"].to_pylist()
    return build_dual_encoder(config.model, texts, seed=0)


def batches_of(config: TrainJob, rank: int, count: int) -> list[TrainBatch]:
    """Batches made before the clock starts, so that both loops are fed alike: nothing to wait for."""
    encoder = encoder_of(config)
    draw = torch.Generator().manual_seed(rank)
    share = config.batches.size // WORKERS
    batches = []
    for _ in range(count):
        pixels = torch.randn(share, 3, config.model.image_height, config.model.image_width, generator=draw)
        ids = torch.randint(0, 250, (share, encoder.context), generator=draw)
        ids[:, -1] = encoder.tokenizer.eos_token_id
        person = torch.randint(0, 10_000, (share,), generator=draw)
        batches.append(TrainBatch({"pixel_values": pixels, "input_ids": ids}, person, person))
    return batches


class PlainDdp:
    """The loop that anybody would write first."""

    def __init__(self, config: TrainJob) -> None:
        from reid_ray.train.losses.objective import build_objective
        from reid_ray.train.optimizer import build_optimizer

        module = TwoTowers(encoder_of(config))
        self._optimizer = build_optimizer(module, config.optimizer)
        self._ddp = torch.nn.parallel.DistributedDataParallel(module)
        self._objective, self._clip_norm = build_objective(config.objective), config.optimizer.clip_norm
        for group in self._optimizer.param_groups:
            group["lr"] = config.optimizer.lr * group["factor"]

    def block(self, batches: list[TrainBatch]) -> None:
        """One step for each batch."""
        for batch in batches:
            loss = self._objective(self._ddp(**batch.inputs), batch.person_A).total
            self._optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self._ddp.parameters(), self._clip_norm)
            self._optimizer.step()
            loss.item()


class OurLoop:
    """reid_ray.train.loop over ZeroEngine, as a worker of the train job runs it; its checkpoints are left out."""

    def __init__(self, config: TrainJob) -> None:
        from reid_ray.train import loop
        from reid_ray.train.losses.objective import build_objective
        from reid_ray.train.optimizer import build_optimizer
        from reid_ray.train.zero import ZeroEngine

        module = TwoTowers(encoder_of(config))
        optimizer = build_optimizer(module, config.optimizer)
        share = config.batches.size // WORKERS
        self._engine = ZeroEngine(module, optimizer, config=config.engine, clip_norm=config.optimizer.clip_norm, batch_size=share)
        self._objective, self._config, self._loop = build_objective(config.objective), config, loop

    def block(self, batches: list[TrainBatch]) -> None:
        """One step for each batch, and one line of the log."""
        from reid_ray.train.checkpoint.contents import Progress
        from reid_ray.train.parts import Parts
        from reid_ray.train.recipe import Selection

        checkpoints: Any = SimpleNamespace(save=lambda *_: None)
        log: Any = SimpleNamespace(numbers=lambda *_, **__: None, event=lambda *_, **__: None)

        def given(start: int, stop: int) -> Iterator[TrainBatch]:
            yield from batches[start:stop]

        feed: Any = SimpleNamespace(plan=SimpleNamespace(steps_per_epoch=10**9), batches=given)
        parts = Parts(self._engine, self._objective, feed, write=lambda *_: None)
        config = self._config.model_copy(update={"schedule": self._config.schedule.model_copy(update={"log_every": len(batches)})})
        chosen = Selection("val", "r1", "R@1")
        own: Any = {"selection": chosen, "checkpoints": checkpoints, "log": log, "config": config}
        self._loop.train(parts, folder=Path(), progress=Progress(), steps=len(batches), **own)


def engine_of(name: str, model: str) -> PlainDdp | OurLoop:
    if name == "ddp":
        return PlainDdp(job(model, 0))
    return OurLoop(job(model, int(name.removeprefix("zero"))))


def worker(rank: int, store: str, *, names: list[str], model: str, turns: int, steps: int, results: Any) -> None:
    """One of the two processes: `turns` blocks of `steps` steps for each of the engines `names`, by turns, after one to warm up."""
    torch.set_num_threads(1)
    os.environ.update(LOCAL_RANK=str(rank), DS_ACCELERATOR="cpu")  # as Ray Train sets them
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=WORKERS)
    batches = batches_of(job(model, 0), rank, steps)
    import deepspeed  # noqa: F401  (all engines start from the same imports)

    before = resident_mib("VmRSS")
    engines = {name: engine_of(name, model) for name in names}
    for engine in engines.values():
        engine.block(batches[:2])
    wall: Blocks = {name: [] for name in names}
    cpu: Blocks = {name: [] for name in names}
    for _ in range(turns):
        for name, engine in engines.items():
            dist.barrier()
            wall_start, cpu_start = time.perf_counter(), time.process_time()
            engine.block(batches)
            wall[name].append((time.perf_counter() - wall_start) / steps)
            cpu[name].append((time.process_time() - cpu_start) / steps)
    if rank == 0:
        results.put((wall, cpu, resident_mib("VmHWM") - before))
    dist.barrier()
    dist.destroy_process_group()


Blocks = dict[str, list[float]]


def resident_mib(name: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name + ":"))


def in_two_processes(names: list[str], model: str, *, turns: int, steps: int) -> tuple[Blocks, Blocks, float]:
    """Wall and CPU seconds per step of each block of each engine on rank 0, and the growth of resident memory in MiB."""
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        options = {"names": names, "model": model, "turns": turns, "steps": steps, "results": results}
        processes = [context.Process(target=worker, args=(rank, f"{folder}/store"), kwargs=options) for rank in range(WORKERS)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    if any(process.exitcode for process in processes):
        raise RuntimeError(f"a worker of {names} ended with {[process.exitcode for process in processes]}")
    return results.get()


def measure_step(report: Report, *, quick: bool) -> None:
    model, turns, steps = (SMALL, 8, 10) if quick else (LARGE, 16, 10)
    wall, cpu, _ = in_two_processes(["ddp", "zero0"], model, turns=turns, steps=steps)
    for name in wall:
        report.row(part="step", rival=name, **milliseconds(wall[name], cpu[name]), repeats=turns)
    for what, seconds in (("step time", wall), ("CPU time of a step", cpu)):
        ratios = [ours / plain for ours, plain in zip(seconds["zero0"], seconds["ddp"], strict=True)]
        report.claim(f"{what} of this loop over plain DDP, median of turns", statistics.median(ratios), "<=", 1.10)


def measure_stages(report: Report, *, quick: bool) -> None:
    model, rounds, steps = (SMALL, 1, 8) if quick else (LARGE, 3, 16)
    names = ("ddp", "zero0", "zero1", "zero2", "zero3")
    wall: Blocks = {name: [] for name in names}
    cpu: Blocks = {name: [] for name in names}
    grown: Blocks = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            each_wall, each_cpu, more_MiB = in_two_processes([name], model, turns=1, steps=steps)
            wall[name] += each_wall[name]
            cpu[name] += each_cpu[name]
            grown[name].append(more_MiB)
    for name in names:
        report.row(part="stages", rival=name, **milliseconds(wall[name], cpu[name]), grown_MiB=round(min(grown[name]), 1), repeats=rounds)
    report.claim("peak memory of ZeRO-0 over plain DDP", min(grown["zero0"]) / min(grown["ddp"]), "<=", 1.10)


def milliseconds(wall: list[float], cpu: list[float]) -> dict[str, float]:
    """Columns for a row: time per step."""
    return {
        "ms_median": round(1000 * statistics.median(wall), 2),
        "ms_min": round(1000 * min(wall), 2),
        "cpu_ms_median": round(1000 * statistics.median(cpu), 2),
    }


# --- loader


class SampleDataset(torch.utils.data.Dataset):
    """What a plain DataLoader would be given: one sample per index, read from the same file."""

    def __init__(self, decoder: Decoder, picture_S: Any, texts: list[str]) -> None:
        self._decoder, self._picture_S, self._texts = decoder, picture_S, texts

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, index: int) -> tuple[Any, str]:
        (picture,) = self._decoder(PictureRequest(0, self._picture_S[index : index + 1], self._picture_S[index : index + 1]))
        return picture, self._texts[index]


class CollateSamples:
    """The feed's collate for a DataLoader's list of samples."""

    def __init__(self, collate: Callable[..., dict[str, torch.Tensor]]) -> None:
        self._collate = collate

    def __call__(self, samples: list[tuple[Any, str]]) -> dict[str, torch.Tensor]:
        """(picture, text) of each sample -> tensors."""
        pictures, texts = zip(*samples, strict=True)
        return self._collate(list(pictures), list(texts))


def measure_loader(report: Report, *, quick: bool) -> None:
    repeats, steps = (2, 10) if quick else (5, 40)
    with tempfile.TemporaryDirectory() as name, ray_session(RayConfig(object_store_mb=1024)):
        folder = Path(name)
        people = SyntheticPeople(SyntheticConfig(identities=200, images_per_identity=4, height=256, width=128, val_share=0, test_share=0))
        with TableWriter(folder / "images", IMAGES) as images, TableWriter(folder / "captions", CAPTIONS) as captions:
            images.append(people.image_table())
            captions.append(people.caption_table())
        rivals = loader_rivals(folder, steps=steps)
        rates: dict[str, list[float]] = {rival: [] for rival in rivals}
        starts: dict[str, list[float]] = {rival: [] for rival in rivals}
        for _ in range(repeats):
            for rival, batches in rivals.items():
                first, rate = images_per_second(batches, steps=steps, size=64)
                rates[rival].append(rate)
                starts[rival].append(first)
        for rival, each in rates.items():
            first = round(statistics.median(starts[rival]), 2)
            report.row(part="loader", rival=rival, images_per_second=round(statistics.median(each)), best=round(max(each)), first_s=first)
        best = {kind: max(max(each) for rival, each in rates.items() if rival.startswith(kind)) for kind in ("threads", "Ray", "Data")}
        report.claim("images/s of the feed's threads over a torch DataLoader, best of each", best["threads"] / best["Data"], ">=", 0.95)
        report.claim("images/s of the feed's Ray Data actors over a torch DataLoader, best of each", best["Ray"] / best["Data"], ">=", 0.8)


def loader_rivals(folder: Path, *, steps: int) -> dict[str, Callable[[], Iterator[Any]]]:
    """What yields batches of 64 of the tables in `folder`: the train job's feed and torch's DataLoader, both over the same files."""
    config = loader_job(folder)
    prepare_pairs(config, folder, Counts())
    samples = RowFile(folder / SAMPLES)
    transform = ImageTransform(384, 128)
    tokenizer = train_tokenizer(read_table(folder / "captions", CAPTIONS)["text"].to_pylist(), vocab_size=1000, context=64)
    collate = PairCollate(transform, tokenizer, context=64)

    def ours(*changes: str) -> Callable[[], Iterator[Any]]:
        batches = loader_job(folder, *changes).batches
        feed = Feed(
            folder,
            batches,
            rewrite_share=0,
            resize=transform.resize,
            fill=fill_of(config.batches.fill, mean=transform.mean, std=transform.std),
            collate=collate,
            rank=0,
            world=1,
        )
        return lambda: feed.batches(0, steps + 2)

    def plain(workers: int) -> Callable[[], Iterator[Any]]:
        decoder = Decoder(
            folder / PICTURES,
            config.batches,
            resize=transform.resize,
            fill=fill_of(config.batches.fill, mean=transform.mean, std=transform.std),
        )
        dataset = SampleDataset(decoder, samples.column("picture"), samples.take(np.arange(len(samples)))["text"].to_pylist())
        loader = torch.utils.data.DataLoader(
            dataset,
            batch_size=64,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            collate_fn=CollateSamples(collate),
            persistent_workers=workers > 0,
        )

        def epochs() -> Iterator[Any]:
            while True:
                yield from loader

        return epochs

    return {
        "threads 1": ours("batches.threads=1"),
        "threads 2": ours("batches.threads=2"),
        "Ray Data, 1 actor": ours("batches.decoders={replicas: 1, batch_size: 32}"),
        "Ray Data, 2 actors": ours("batches.decoders={replicas: 2, batch_size: 32}"),
        "DataLoader in process": plain(0),
        "DataLoader, 1 worker": plain(1),
        "DataLoader, 2 workers": plain(2),
    }


def loader_job(folder: Path, *changes: str) -> TrainJob:
    values = [
        f"images={{path: {folder}/images, val_split: null}}",
        f"captions={{paths: [{folder}/captions], rewrite_share: 0}}",
        "output.path=unused",
        "batches={size: 64, colour: 0.2}",
        "workers.count=1",
        *changes,
    ]
    return load_config(TrainJob, None, values)


def images_per_second(make: Callable[[], Iterator[Any]], *, steps: int, size: int) -> tuple[float, float]:
    """Seconds to the first batch, and the rate of the `steps` batches after the second."""
    started = time.perf_counter()
    batches = make()
    next(batches)
    first = time.perf_counter() - started
    next(batches)
    started = time.perf_counter()
    for _ in range(steps):
        next(batches)
    rate = steps * size / (time.perf_counter() - started)
    close = getattr(batches, "close", None)
    if close is not None:
        close()
    return first, rate


def run(report: Report, quick: bool) -> None:
    torch.set_num_threads(1)
    measure_step(report, quick=quick)
    measure_stages(report, quick=quick)
    measure_loader(report, quick=quick)


if __name__ == "__main__":
    sys.exit(run_benchmark(__doc__ or "", run))
