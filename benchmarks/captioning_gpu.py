"""How busy the caption job keeps a GPU: against vLLM given everything at once, and against vLLM's own throughput benchmark.

    python benchmarks/captioning_gpu.py --out benchmarks/results/captioning_gpu-DATE.json [--images 3000] [--arms ...] [--model small]

The shapes of Qwen2.5-VL-7B with random weights, which vLLM draws on the GPU (nothing is downloaded); engine, sampling and pool as
jobs/configs/caption/caption_qwen25vl_7b.yaml has them. Crops of 256 x 128 pixels from one Parquet file; answers as long as a real
captioner's (lognormal, 25 to 160 tokens, 71 on average), the same crop's as long in every arm. The tokenizer is the shipped tiny model's,
filled up with made-up words to the published number of tokens, so that whatever a random model says is a text.

Without a GPU, --gpu-like has vLLM's own worker take the time of one: all but the model is real then. An H200 takes what eight cores prepare
and schedule; on two, --slower 4 leaves as many cores for each crop a second.

The arms run turn by turn, each in a process of its own. Each clock starts when the engine is there: vLLM's own before the file is opened,
the job's at its first request; it ends when the last caption is clean and where the arm puts it, or, of vLLM's benchmark, where that stops
its own. Answers of vLLM's benchmark are as long as one another, so its requests come and go together, or between 0.4 and 1.6 of that
(uneven). Kernels that a process compiles when it first needs them are on the clock, seconds of each arm, most of them while the last
requests end; `in_full_swing` is the rate without them: of requests that joined, from a quarter of them on until nearly the last. `busy` is
the mean of what NVML calls utilisation (the share of time in which a kernel ran) between the first step and the last.
"""

from __future__ import annotations

import argparse
import functools
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.caption_engines.answer_lengths import LONGEST, MEAN
from benchmarks.caption_engines.own_process import ROOT, complaint, run_worker, serve_worker
from benchmarks.caption_engines.random_mllm import SIZES, write_random_mllm
from benchmarks.caption_engines.recording import ASYNC_SCHEDULER, GPU_LIKE_WORKER, SLOWER, record_engines
from benchmarks.caption_engines.step_log import EngineLog, in_full_swing, joined_and_not, read_logs, running_a_step
from benchmarks.captioning import LastCommit, cleaned, write_people
from benchmarks.harness import Report, ratio_interval, run_benchmark

ALL_AT_ONCE, JOB, JOB_ONE, JOB_EACH, JOB_16, JOB_INSIDE, BENCH, BENCH_UNEVEN = (
    "vLLM, all at once",
    "caption job",
    "caption job, all in one process",
    "caption job, each joins as it comes",
    "caption job, 16 join together",
    "caption job, engine in the actor's process",
    "vllm bench throughput",
    "vllm bench throughput, uneven answers",
)
CONFIGURATION = ROOT / "jobs/configs/caption/caption_qwen25vl_7b.yaml"
LIMITS = {"min_words": 1, "max_words": 1000, "script": None, "max_repeats": 1000}  # a random model says anything, any number of times


def main() -> int:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--images", type=int)
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--size", choices=SIZES, default="7b", help="shapes of the model")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--table", type=Path, help="crops that another run wrote here (or writes now), so that it draws none")
    parser.add_argument("--gpu-like", action="store_true", help="no GPU: vLLM's worker takes the time of one (gpu_like_worker.py)")
    parser.add_argument("--slower", type=float, default=1.0, help="with --gpu-like, by what its GPU is slower than an H200")
    parser.add_argument("--graphs-only", action="store_true", help="CUDA graphs without torch.compile: starts a minute sooner")
    own, rest = parser.parse_known_args()
    if own.gpu_like:
        own.size = "small"
        os.environ[SLOWER] = str(own.slower)
    return run_benchmark(__doc__ or "", functools.partial(_run, own=own), rest)


def _run(report: Report, quick: bool, *, own: argparse.Namespace) -> None:
    images, repeats = own.images or (640 if quick else 3_000), own.repeats or (1 if quick else 3)
    turns: dict[str, list[dict[str, Any]]] = {name: [] for name in own.arms}
    with tempfile.TemporaryDirectory(prefix="caption_bench_") as scratch:
        table, model = own.table or Path(scratch) / "images.parquet", Path(scratch) / "model"
        if not table.exists():
            write_people(table, images)
        write_random_mllm(model, own.size)
        for turn in range(repeats):
            for name in own.arms:
                places = {"table": str(table), "model": str(model), "folder": str(Path(scratch) / f"{turn} {name}")}
                turns[name].append(_turn(name, images, own, places))
                print(name, {key: value for key, value in turns[name][-1].items() if key != "texts"}, flush=True)
                _report(report, turns, images, own)  # so that a run that is cut off has said what it knows
    for name in [name for name in own.arms if name != ALL_AT_ONCE and turns.get(ALL_AT_ONCE)]:
        pairs = [(a["crops_per_s"], b["crops_per_s"]) for a, b in zip(turns[name], turns[ALL_AT_ONCE], strict=True) if "error" not in a | b]
        if pairs:
            ratio, low, high = ratio_interval(pairs)
            report.row(what=f"{name} against {ALL_AT_ONCE}: crops a second", ratio=ratio, low_95=low, high_95=high)
    for rival in (ALL_AT_ONCE, BENCH, BENCH_UNEVEN):
        pairs = [(a, b) for a, b in zip(turns.get(JOB, []), turns.get(rival, []), strict=False) if "error" not in a | b]
        if pairs:
            ratio = ratio_interval([(a["in_full_swing"], b["in_full_swing"]) for a, b in pairs])[0]
            report.claim(f"the job's crops a second in full swing against {rival}", ratio, ">=", 0.95)


def _report(report: Report, turns: dict[str, list[dict[str, Any]]], images: int, own: argparse.Namespace) -> None:
    report.rows.clear()
    for name, measured in turns.items():
        if not measured:
            continue
        errors = [turn["error"] for turn in measured if "error" in turn]
        numbers = (
            {"error": errors[0]}
            if errors
            else {key: round(statistics.median(turn[key] for turn in measured), 3) for key in measured[0] if key != "texts"}
        )
        report.row(what=name, size=own.size, images=images, repeats=len(measured), **numbers)


def _turn(name: str, images: int, own: argparse.Namespace, places: dict[str, str]) -> dict[str, Any]:
    """What one arm did: crops and tokens a second, steps, busy share of the GPU; or its error."""
    logs = Path(places["folder"]) / "logs"
    logs.mkdir(parents=True)
    with _Utilisation() as gpu:
        began = time.time()
        result = run_worker(
            __file__, name, timeout_s=900, images=images, engine={"graphs_only": own.graphs_only, "gpu_like": own.gpu_like}, **places
        )
    if "error" in result:
        return result
    engines = read_logs(logs)
    start = result.get("start", engines[0].first)
    seconds = result["seconds"] if "seconds" in result else result["end"] - start
    last = max(log.end for log in engines)
    busy = [share for at, share in gpu.samples if start <= at <= last]
    return {
        "crops_per_s": images / seconds,
        "in_full_swing": in_full_swing(engines),
        "generated_per_s": result["generated"] / seconds,
        "prompt_per_s": result["prompt"] / seconds,
        "steps": sum(len(log.steps) for log in engines),
        "running_a_step": running_a_step(engines),
        **joined_and_not(engines),
        "busy": statistics.fmean(busy) if busy else 0.0,
        "cpu_s_of_the_engine": _engine_cpu_s(engines),
        "seconds": seconds,
        "start_s": start - began,
        "captions": result["captions"],
    }


def _engine_cpu_s(engines: list[EngineLog]) -> float:
    """CPU seconds of the processes that step, from their first step to their last."""
    return sum(log.steps[-1].cpu_s - log.steps[0].cpu_s for log in engines)


class _Utilisation:
    """Share of time in which the first GPU runs a kernel, asked for every 0.1 s; nothing where there is no NVML."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, float]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _Utilisation:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        try:
            import pynvml  # type: ignore[import-not-found] # with the GPU's stack

            pynvml.nvmlInit()
            handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        except Exception as error:  # noqa: BLE001 - whatever a machine without a GPU's library raises
            print(f"no utilisation: {error}", file=sys.stderr)
            return
        while not self._ended.wait(0.1):
            self.samples.append((time.time(), pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100))


# --- each of the following runs in a process of its own, with the engine in it or in one that it starts


def _captioner(model: str, folder: str, engine: Mapping[str, bool], changes: Mapping[str, Any] | None = None) -> Any:
    """The captioner's section of the shipped configuration with these weights; engines of what this process starts will log."""
    import yaml

    from reid_ray.caption.config import CaptionerConfig

    record_engines(os.environ, logs=Path(folder) / "logs", core=None)
    section = yaml.safe_load(CONFIGURATION.read_text(encoding="utf-8"))["captioners"]["qwen"]
    extra = section["engine"].pop("extra") | {"load_format": "dummy", "scheduler_cls": ASYNC_SCHEDULER}
    if engine["graphs_only"]:
        extra["compilation_config"] = {"mode": 0, "cudagraph_mode": "FULL_DECODE_ONLY"}
    section["engine"] |= {"extra": extra} | dict(changes or {})
    section |= {"model": model, "instructions": ["static"], "limits": LIMITS}
    section["sampling"]["max_tokens"] = LONGEST
    section["pool"] |= {"replicas": 1, "max_replicas": None}
    if json.loads((Path(model) / "config.json").read_text(encoding="utf-8"))["text_config"]["hidden_size"] < 1024:
        section["engine"] |= {"gpu_memory_utilization": 0.2}  # to be tried beside something else
    if not _gpus():
        section["pool"] |= {"num_gpus": 0, "num_cpus": 1}
        section["engine"] |= {"dtype": "float32", "enforce_eager": True, "kv_cache_mb": 256}
    if engine["gpu_like"]:
        # As on one large GPU: the worker in the core's process, and prompts of 32 in one step.
        extra |= {"worker_cls": GPU_LIKE_WORKER, "distributed_executor_backend": "uni", "max_num_batched_tokens": 16_384}
    return CaptionerConfig.model_validate(section)


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _all_at_once(*, table: str, model: str, images: int, folder: str, engine: dict[str, bool]) -> dict[str, Any]:
    from reid_ray.caption.engines.kv_cache import cache_arguments
    from reid_ray.caption.engines.vllm_arguments import engine_arguments

    config = _captioner(model, folder, engine)
    import pyarrow.parquet as pq
    from PIL import Image
    from vllm import LLM, SamplingParams

    from reid_ray.caption.prompts import STATIC

    llm = LLM(model=model, **engine_arguments(config.engine, 1) | cache_arguments(model, config.engine, config.pool) | config.engine.extra)
    sampling = SamplingParams(temperature=config.sampling.temperature, top_p=config.sampling.top_p, max_tokens=LONGEST)
    start = time.time()
    encoded = pq.read_table(table, columns=["image"])["image"].to_pylist()[:images]
    pictures = [Image.open(io.BytesIO(data)).convert("RGB") for data in encoded]
    asked = [[{"role": "user", "content": [{"type": "image_pil", "image_pil": p}, {"type": "text", "text": STATIC}]}] for p in pictures]
    answers = llm.chat(asked, sampling, use_tqdm=False)
    texts = [cleaned(answer.outputs[0].text, str(answer.outputs[0].finish_reason), config) for answer in answers]
    return {
        "start": start,
        "end": time.time(),
        "captions": sum(text is not None for text in texts),
        "generated": sum(len(answer.outputs[0].token_ids) for answer in answers),
        "prompt": sum(len(answer.prompt_token_ids or ()) for answer in answers),
    }


def _job(*, table: str, model: str, images: int, folder: str, engine: dict[str, bool], **how: Any) -> dict[str, Any]:
    from reid_ray.caption.config import CaptionJob
    from reid_ray.caption.job import run_caption
    from reid_ray.records import CAPTIONS
    from reid_ray.storage import read_table

    out = Path(folder) / "run"
    job = CaptionJob.model_validate(
        {
            "images": {"source": "parquet", "path": table, "limit": images},
            "captioners": {"main": _captioner(model, folder, engine, **how)},
            "rewriter": {"share": 0},
            "output": {"path": str(out)},
            "ray": {"local_cpus": max(4, os.cpu_count() or 4)},
        }
    )
    with LastCommit(out.parent / f".{out.name}.ledger") as ledger:
        run_caption(job)
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    texts = read_table(out / "captions", CAPTIONS)["text"].to_pylist()
    stage = manifest["facts"]["passes"]["main"]["captioner"]
    return {
        "end": ledger.at,
        "captions": sum(text is not None for text in texts),
        "generated": stage["tokens"],
        "prompt": stage["prefix_cache"]["queries"],
    }


# The subcommand of `vllm bench throughput`; vLLM's CPU build does not start its own command line.
_THROUGHPUT = """
from vllm.benchmarks.throughput import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""


def _bench(*, table: str, model: str, images: int, folder: str, engine: dict[str, bool], uneven: bool = False) -> dict[str, Any]:
    from transformers import AutoTokenizer

    from reid_ray.caption.engines.vllm_arguments import engine_arguments
    from reid_ray.caption.prompts import STATIC

    del table  # it draws pictures of noise, as large as the crops
    config = _captioner(model, folder, engine)
    result = Path(folder) / "bench.json"
    record_engines(os.environ, logs=Path(folder) / "logs", core=None, as_asked=True)
    options: dict[str, Any] = engine_arguments(config.engine, 1) | config.engine.extra
    words = len(AutoTokenizer.from_pretrained(model).encode(STATIC))
    asked = {
        "backend": "vllm-chat",
        "dataset-name": "random-mm",
        "dataset-path": "none",  # where there is none, it asks about texts alone and says so in a line of its output
        "num-prompts": images,
        "random-input-len": words,
        "random-output-len": round(MEAN),
        "random-mm-base-items-per-request": 1,
        "random-mm-limit-mm-per-prompt": {"image": 1},
        "random-mm-bucket-config": "{(256, 128, 1): 1.0}",
        "output-json": result,
    }
    if uneven:
        asked["random-range-ratio"] = {"input": 0.0, "output": 0.6}  # evenly between 28 and 114 tokens
    command = [sys.executable, "-c", _THROUGHPUT, "--model", model]
    for name, value in (options | asked).items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            command.append(flag if value else f"--no-{flag[2:]}")
        else:
            command += [flag, json.dumps(value) if isinstance(value, dict) else str(value)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"vllm bench throughput: {complaint(done.stderr)}")
    found = json.loads(result.read_text(encoding="utf-8"))
    least = config.engine.extra["mm_processor_kwargs"]["min_pixels"] // 28**2  # tokens of a picture, each of 28 x 28 pixels
    tokens = found["total_num_tokens"] / found["num_requests"]
    if tokens < least + words:
        raise RuntimeError(f"vllm bench throughput: {tokens:.0f} tokens a request, fewer than a picture and its question have")
    return {
        "seconds": found["elapsed_time"],
        "captions": found["num_requests"],
        "generated": 0,
        "prompt": found["total_num_tokens"],
    }


ARMS: dict[str, Callable[..., dict[str, Any]]] = {
    ALL_AT_ONCE: _all_at_once,
    JOB: _job,
    JOB_ONE: functools.partial(_job, changes={"own_process": False, "prepare_processes": 0}),
    JOB_EACH: functools.partial(_job, changes={"admit_together": 1}),
    JOB_16: functools.partial(_job, changes={"admit_together": 16}),
    JOB_INSIDE: functools.partial(_job, changes={"own_process": False}),
    BENCH: _bench,
    BENCH_UNEVEN: functools.partial(_bench, uneven=True),
}


if __name__ == "__main__":
    sys.exit(0 if serve_worker(ARMS) else main())
