"""What does a tuning step of a multimodal LLM cost in time and memory, against a plain PEFT + torch loop on the same model and batches?

    python benchmarks/mllm_training.py --out benchmarks/results/mllm_training-DATE.json [--quick]

SyncReID on a random Qwen2.5-VL with adapters, two processes over gloo on CPU. Rivals: "plain" is PEFT's model in torch's
DistributedDataParallel with torch's AdamW; the others are reid_ray.train.zero at stages 0, 2 and 3. Every rival gets the same weights,
batches and losses; steps are timed turn by turn in the same processes. Memory is the growth of the resident set of a process that runs
one rival alone, from before the model is built; DeepSpeed's reduce buffer is reserved, but on a CPU never touched. planned is what
jobs/memory.py says without that buffer. --quick: the tiny model's size and fewer turns.

With a CUDA device present, also tokens/s, MFU and peak memory of random-weight Qwen2.5-VL-3B and -7B in bf16 under ZeRO-2 and ZeRO-3, on as
many processes as there are devices. That part has not been run by this repository: no result here comes from it.
"""

from __future__ import annotations

import gc
import os
import resource
import socket
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from PIL import Image
from torch import multiprocessing

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.harness import Report, run_benchmark
from reid_ray.model.mllm.config import MllmConfig
from reid_ray.model.mllm.families import family_of
from reid_ray.model.mllm.forward import Mllm
from reid_ray.model.mllm.inputs import Chat
from reid_ray.model.mllm.lora import set_trainable
from reid_ray.model.mllm.model_folder import locate_base, processor_of, shape_of
from reid_ray.train.config import DeepSpeedConfig, OptimizerConfig
from reid_ray.train.log.meter import counted_flops, peak_tflops
from reid_ray.train.losses.across_workers import first_row, gather_rows
from reid_ray.train.memory.dry_run import parameter_sizes, trace_step
from reid_ray.train.memory.estimate import ParameterCounts, PeakBytes, Stage, TrainingSetting, predict
from reid_ray.train.mllm.config import TuneObjective
from reid_ray.train.mllm.module import CAPTION, IMAGE, SyncReid, inputs_of
from reid_ray.train.mllm.objective import build_tune_objective
from reid_ray.train.optimizer import build_optimizer

OBJECTIVE, MODEL, PERSONS = TuneObjective(), MllmConfig(lora={"visual": ["qkv", "proj"]}), 100
OPTIMIZER = OptimizerConfig(name="adamw", lr=1e-3)
STAGES: dict[str, Stage] = {"ZeRO-0": 0, "ZeRO-2": 2, "ZeRO-3": 3}


@dataclass(frozen=True)
class Shape:
    """Widths of a Qwen2.5-VL: language model, then visual encoder; the vocabulary of the tiny one unless given."""

    width: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    mrope: tuple[int, int, int]
    vision_width: int = 1280
    vision_inner: int = 3420
    vision_layers: int = 32
    vision_heads: int = 16
    vocabulary: int | None = None


SMALL = Shape(128, 384, 4, 4, 4, (4, 6, 6), vision_width=96, vision_inner=256, vision_layers=4, vision_heads=3)
MEDIUM = Shape(512, 1408, 6, 8, 8, (8, 12, 12), vision_width=256, vision_inner=700, vision_layers=6, vision_heads=4)
# The published shapes.
REAL = {
    "Qwen2.5-VL-3B": Shape(2048, 11008, 36, 16, 2, (16, 24, 24), vocabulary=151_936),
    "Qwen2.5-VL-7B": Shape(3584, 18944, 28, 28, 4, (16, 24, 24), vocabulary=152_064),
}


@dataclass(frozen=True)
class Work:
    """What the processes of one measurement do."""

    shape: Shape
    rivals: tuple[str, ...]
    rows: int
    turns: int
    steps: int
    precision: str = "fp32"
    device: str = "cpu"


def build(shape: Shape, *, device: str, dtype: torch.dtype, gather: Any) -> tuple[SyncReid, Chat]:
    """The module with random weights, and the tiny model's chat: its tokens are a part of every vocabulary."""
    folder = locate_base(MODEL)
    config = shape_of(folder)
    chat = Chat(processor_of(MODEL, folder, config), context=config.text_config.max_position_embeddings)
    text, vision = config.text_config, config.vision_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers = shape.width, shape.inner, shape.layers
    text.num_attention_heads, text.num_key_value_heads = shape.heads, shape.kv_heads
    text.layer_types, text.vocab_size = ["full_attention"] * shape.layers, shape.vocabulary or text.vocab_size
    text.rope_parameters["mrope_section"] = list(shape.mrope)
    vision.hidden_size, vision.intermediate_size, vision.depth = shape.vision_width, shape.vision_inner, shape.vision_layers
    vision.num_heads, vision.out_hidden_size = shape.vision_heads, shape.width
    from transformers import Qwen2_5_VLForConditionalGeneration

    torch.manual_seed(0)
    with torch.device(device):
        model = Qwen2_5_VLForConditionalGeneration._from_config(config, dtype=dtype)
        set_trainable(model, family_of(config, origin="random"), MODEL)
        module = SyncReid(Mllm(model), OBJECTIVE, persons=PERSONS, gather=gather)
    return module.to(dtype).train(), chat


def batch_of(chat: Chat, rows: int, step: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """A batch of coloured crops with captions; identities by twos."""
    colours = [tuple(int(value) for value in torch.randint(0, 255, (3,)).tolist()) for _ in range(rows)]
    crops = [Image.new("RGB", (64, 128), colour) for colour in colours]
    captions = [f"The person {row} of step {step} wears a red coat, black trousers and white shoes." for row in range(rows)]
    asked = ["Continue the description of the person:"] * rows
    batch = inputs_of(chat.picture_turns(crops, asked, captions), IMAGE) | inputs_of(chat.caption_turns(captions, asked, captions), CAPTION)
    return batch, torch.arange(rows) // 2 % PERSONS


def stepper(rival: str, work: Work) -> tuple[Callable[[dict[str, torch.Tensor], torch.Tensor], None], Chat]:
    """One training step of a rival, over a model of its own."""
    dtype = torch.bfloat16 if work.precision == "bf16" else torch.float32
    module, chat = build(
        work.shape, device="cpu" if work.device == "cpu" else "cuda", dtype=dtype, gather=lambda x: (gather_rows(x), first_row(len(x)))
    )
    optimizer, objective = build_optimizer(module, OPTIMIZER), build_tune_objective(OBJECTIVE)
    if rival in STAGES:
        from reid_ray.train.zero import ZeroEngine

        engine = DeepSpeedConfig.model_validate({"zero_stage": STAGES[rival], "precision": work.precision, "persistence_threshold": 0})
        zero = ZeroEngine(module, optimizer, config=engine, clip_norm=OPTIMIZER.clip_norm, batch_size=work.rows)

        def step(batch: dict[str, torch.Tensor], person_A: torch.Tensor) -> None:
            zero.step(objective(zero.forward(batch), person_A.to(zero.device)).total, lr=OPTIMIZER.lr)

        return step, chat
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    wrapped = torch.nn.parallel.DistributedDataParallel(module, broadcast_buffers=False)

    def plain(batch: dict[str, torch.Tensor], person_A: torch.Tensor) -> None:
        optimizer.zero_grad()
        objective(wrapped(**batch), person_A).total.backward()
        torch.nn.utils.clip_grad_norm_(weights, OPTIMIZER.clip_norm)
        optimizer.step()

    return plain, chat


def worker(rank: int, world: int, port: int, work: Work, results: Any) -> None:
    """One process: all rivals of `work` turn by turn; rank 0 puts {rival: seconds per step} and the growth of memory in `results`."""
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo" if work.device == "cpu" else "nccl", rank=rank, world_size=world)
    import reid_ray.train.zero  # noqa: F401  before memory is looked at

    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    steps = {rival: stepper(rival, work) for rival in work.rivals}
    chat = next(iter(steps.values()))[1]
    torch.manual_seed(1 + rank)
    batches = [batch_of(chat, work.rows, number) for number in range(work.steps)]
    seconds: dict[str, list[float]] = {rival: [] for rival in work.rivals}
    for turn in range(work.turns + 1):
        for rival, (step, _) in steps.items():
            dist.barrier()
            started = time.perf_counter()
            for batch, person_A in batches:
                step(batch, person_A)
            dist.barrier()
            if turn:  # the first is for warming up
                seconds[rival].append((time.perf_counter() - started) / work.steps)
    if rank == 0:
        results.put((seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - before))
    dist.destroy_process_group()


def measured(work: Work, *, processes: int) -> tuple[dict[str, list[float]], int]:
    """Seconds per step of each rival, and bytes that rank 0 grew by."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    results = multiprocessing.get_context("spawn").SimpleQueue()
    multiprocessing.spawn(worker, (processes, port, work, results), nprocs=processes)
    return results.get()


def planned(work: Work, rival: str, *, processes: int) -> int:
    """What the memory planner says of one process, without the reduce buffer."""
    dtype = torch.bfloat16 if work.precision == "bf16" else torch.float32
    module, chat = build(work.shape, device="meta", dtype=dtype, gather=lambda x: (x, 0))
    batch, person_A = batch_of(chat, work.rows, 0)
    batch = {name: value.to("meta") if value.is_floating_point() else value for name, value in batch.items()}
    objective = build_tune_objective(OBJECTIVE)
    setting = TrainingSetting(
        STAGES.get(rival, 0), devices=processes, batch=work.rows, weight_bytes=2 if work.precision == "bf16" else 4, bucket=0
    )
    held = trace_step(
        module,
        lambda: objective(module(**batch), person_A).total,
        vocabulary=work.shape.vocabulary,
        keep_gradients=not setting.frees_gradients,
    )
    trained, frozen = (sum(sizes) for sizes in parameter_sizes(module))
    return predict(ParameterCounts(trained, frozen), PeakBytes(held.activations, held.logits, held.gradients), setting).device


def on_cpu(report: Report, quick: bool) -> None:
    """Two processes, turn by turn; then each rival alone for its memory."""
    rivals = ("plain", *STAGES)
    work = Work(SMALL if quick else MEDIUM, rivals, rows=4 if quick else 8, turns=1 if quick else 5, steps=2)
    seconds, _ = measured(work, processes=2)
    grown = {}
    for rival in rivals if not quick else ("plain", "ZeRO-2"):
        _, grown[rival] = measured(replace(work, rivals=(rival,), turns=1), processes=2)
    for rival in rivals:
        report.row(
            rival=rival,
            turns=len(seconds[rival]),
            step_s_min=round(min(seconds[rival]), 4),
            step_s_median=round(statistics.median(seconds[rival]), 4),
            step_s_max=round(max(seconds[rival]), 4),
            grown_MiB=grown[rival] >> 20 if rival in grown else None,
            planned_MiB=planned(work, rival, processes=2) >> 20 if rival in STAGES else None,
        )
    if quick:  # a turn on the tiny model says that the code runs, not what it costs
        return
    plain = statistics.median(seconds["plain"])
    report.claim("ZeRO-2 step over plain DDP", statistics.median(seconds["ZeRO-2"]) / plain, "<=", 1.25)
    report.claim("ZeRO-2 memory over plain DDP", grown["ZeRO-2"] / grown["plain"], "<=", 1.1)


def on_gpus(report: Report, quick: bool) -> None:
    """Random weights of real size on every CUDA device; see the module's paragraph: never run by this repository."""
    devices = torch.cuda.device_count()
    for name, shape in REAL.items():
        for rival in ("ZeRO-2", "ZeRO-3"):
            work = Work(shape, (rival,), rows=8, turns=1 if quick else 5, steps=4, precision="bf16", device="cuda")
            results = multiprocessing.get_context("spawn").SimpleQueue()
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            multiprocessing.spawn(gpu_worker, (devices, port, work, results), nprocs=devices)
            report.row(
                model=name, rival=rival, devices=devices, **results.get(), planned_GiB=planned(work, rival, processes=devices) / 2**30
            )


def gpu_worker(rank: int, world: int, port: int, work: Work, results: Any) -> None:
    """One CUDA device: tokens/s, MFU and the allocator's peak."""
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.cuda.set_device(rank)
    dist.init_process_group("nccl", rank=rank, world_size=world)
    step, chat = stepper(work.rivals[0], work)
    batch, person_A = batch_of(chat, work.rows, 0)
    batch = {name: value.cuda() for name, value in batch.items()}
    counter = counted_flops() if rank == 0 else nullcontext(None)
    with counter as flops:
        step(batch, person_A)  # warms up; what is counted is forward and backward
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    for _ in range(work.steps * work.turns):
        step(batch, person_A)
    torch.cuda.synchronize()
    seconds = (time.perf_counter() - started) / (work.steps * work.turns)
    if rank == 0:
        assert flops is not None
        tokens = int(batch["image_mask"].sum() + batch["caption_mask"].sum())
        peak = peak_tflops(work.precision, given=None)
        results.put(
            {
                "step_s": seconds,
                "tokens_per_s": world * tokens / seconds,
                "mfu": flops.get_total_flops() / seconds / (peak * 1e12) if peak else None,
                "peak_GiB": torch.cuda.max_memory_allocated() / 2**30,
            }
        )
    dist.destroy_process_group()


def run(report: Report, quick: bool) -> None:
    on_cpu(report, quick)
    if torch.cuda.is_available():
        on_gpus(report, quick)


if __name__ == "__main__":
    sys.exit(run_benchmark(__doc__ or "", run))
