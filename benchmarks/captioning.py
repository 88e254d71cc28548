"""How full the caption job keeps its engine: against vLLM that is given everything at once, and against Ray Data LLM's own processor.

    python benchmarks/captioning.py --out benchmarks/results/captioning-DATE.json [--quick]

The tiny model, 640 crops, answers as long as a real captioner's (lognormal, 25 to 160 tokens, 71 on average; the same crop's is as
long in every arm), max_num_seqs 64. A GPU's step costs about the same however many requests it works on, so the measure is the number
of steps, beside crops a second. The arms run turn by turn, each in a process of its own; every arm reads and decodes the same Parquet
file and cleans its answers. The process that holds the engine has one core to itself, and whatever else an arm starts has the others:
vLLM's LLM and the job's actor do all of their work on that core; the job's engine in a process of its own (engine.own_process) and Ray
Data LLM's have that core to themselves, for their pictures are prepared elsewhere.

An arm's clock starts when the engine is there: LLM's before the file is opened, the others' at the first request, for which a crop or
a few have been read and decoded (`first_request_s` says what that takes LLM for all crops). It ends when the last caption is clean and
where the arm puts it: a list, the job's ledger, the consumer of Ray Data.
"""

from __future__ import annotations

import argparse
import functools
import io
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.caption_engines.answer_lengths import LONGEST
from benchmarks.caption_engines.own_process import run_worker, serve_worker
from benchmarks.caption_engines.recording import SCHEDULER, record_engines
from benchmarks.caption_engines.step_log import read_logs, running_a_step
from benchmarks.harness import Report, ratio_interval, run_benchmark

MODEL = "builtin:tiny-mllm"
ALL_AT_ONCE, JOB, RAY_DATA_LLM = "vLLM, all at once", "caption job", "Ray Data LLM"
JOB_APART = "caption job, engine in a process of its own"
ENGINE_CORE = max(os.sched_getaffinity(0))
LOGICAL_CPUS = 4
CACHE_MB = 64  # of keys and values: holds max_num_seqs of the tiny model's longest requests
CACHE = {"kv_cache_memory_bytes": CACHE_MB << 20}


def main() -> int:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--images", type=int)
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    own, rest = parser.parse_known_args()
    return run_benchmark(__doc__ or "", functools.partial(_run, own=own), rest)


def _run(report: Report, quick: bool, *, own: argparse.Namespace) -> None:
    images, repeats = own.images or (256 if quick else 640), own.repeats or (2 if quick else 4)
    turns: dict[str, list[dict[str, Any]]] = {name: [] for name in own.arms}
    with tempfile.TemporaryDirectory(prefix="caption_bench_") as scratch:
        table = Path(scratch) / "images.parquet"
        write_people(table, images)
        for turn in range(repeats):
            for name in own.arms:
                turns[name].append(_turn(name, table, images, Path(scratch) / f"{turn} {name}"))
                print(name, {key: value for key, value in turns[name][-1].items() if key != "texts"}, flush=True)
    for name, measured in turns.items():
        report.row(what=name, images=images, repeats=repeats, **_summary(measured))
    if any("error" in turn for measured in turns.values() for turn in measured):
        report.claim("turns that ended in an error", sum("error" in turn for measured in turns.values() for turn in measured), "<=", 0)
        return
    for name in [name for name in own.arms if name != ALL_AT_ONCE and ALL_AT_ONCE in turns]:
        for what in ("steps", "crops_per_s"):
            ratio, low, high = ratio_interval([(a[what], b[what]) for a, b in zip(turns[name], turns[ALL_AT_ONCE], strict=True)])
            report.row(what=f"{name} against {ALL_AT_ONCE}: {what}", ratio=ratio, low_95=low, high_95=high)
            if name in {JOB, JOB_APART} and what == "steps":
                report.claim(f"{name}: engine steps against those of vLLM given all at once", ratio, "<=", 1.05)
            elif name in {JOB, JOB_APART}:
                report.claim(f"{name}: crops a second against those of vLLM given all at once", ratio, ">=", 0.95)
    if {JOB, ALL_AT_ONCE} <= set(turns):
        pairs = zip(turns[JOB][0]["texts"], turns[ALL_AT_ONCE][0]["texts"], strict=True)
        report.claim("captions that both make alike, share", round(sum(a == b for a, b in pairs) / images, 4), ">=", 0.99)


def _turn(name: str, table: Path, images: int, folder: Path) -> dict[str, Any]:
    """What one arm did: steps, requests a step, crops a second, captions, texts; or its error."""
    logs = folder / "logs"
    logs.mkdir(parents=True)
    result = run_worker(__file__, name, table=str(table), images=images, folder=str(folder))
    if "error" in result:
        return result
    engines = read_logs(logs)
    steps = sum(len(log.steps) for log in engines)
    first = engines[0].first
    start = result.get("start", first)
    return {
        "steps": steps,
        "running_a_step": running_a_step(engines),
        "crops_per_s": images / (result["end"] - start),
        "first_request_s": first - start,
        "in_steps": sum(log.stepping_s for log in engines) / (result["end"] - start),
        "requests": sum(len(log.requests) for log in engines),
        "captions": sum(text is not None for text in result["texts"]),
        "texts": result["texts"],
    }


def _summary(measured: Sequence[dict[str, Any]]) -> dict[str, Any]:
    errors = [turn["error"] for turn in measured if "error" in turn]
    if errors:
        return {"error": errors[0]}
    median = {name: statistics.median(turn[name] for turn in measured) for name in measured[0] if name != "texts"}
    rates = [turn["crops_per_s"] for turn in measured]
    return {name: round(value, 3) for name, value in median.items()} | {"best": round(max(rates), 1), "worst": round(min(rates), 1)}


def write_people(file: Path, images: int) -> None:
    """Synthetic people as one IMAGES table of row groups."""
    import pyarrow.parquet as pq

    from reid_ray.config.common import SyntheticConfig
    from reid_ray.data.synthetic.people import SyntheticPeople
    from reid_ray.records import IMAGES

    people = SyntheticPeople(SyntheticConfig(identities=-(-images // 4), images_per_identity=4))
    with pq.ParquetWriter(file, IMAGES) as writer:
        for start in range(0, images, 512):
            writer.write_table(people.image_table(start, min(start + 512, images)))


# --- each of the following runs in a process of its own, with the engine in it or in one that it starts; it returns `end`, `texts` (None
# where a caption failed) and, where that is not the first request, `start`


def _all_at_once(*, table: str, images: int, folder: str) -> dict[str, Any]:
    from reid_ray.caption.engines.vllm_arguments import engine_arguments
    from reid_ray.caption.engines.vllm_engine import engine_environment
    from reid_ray.model.model_files import resolve_model

    config = _prepared(folder)
    model = resolve_model(MODEL)
    os.environ.update(engine_environment(model, config.engine, config.pool))
    import pyarrow.parquet as pq
    from PIL import Image
    from vllm import LLM, SamplingParams

    from reid_ray.caption.prompts import STATIC

    llm = LLM(model=model, **engine_arguments(config.engine, 1), **config.engine.extra, **CACHE)
    sampling = SamplingParams(temperature=config.sampling.temperature, max_tokens=config.sampling.max_tokens)
    start = time.time()
    encoded = pq.read_table(table, columns=["image"])["image"].to_pylist()[:images]
    pictures = [Image.open(io.BytesIO(data)).convert("RGB") for data in encoded]
    asked = [[{"role": "user", "content": [{"type": "image_pil", "image_pil": p}, {"type": "text", "text": STATIC}]}] for p in pictures]
    answers = [output.outputs[0] for output in llm.chat(asked, sampling, use_tqdm=False)]
    texts = [cleaned(answer.text, answer.finish_reason, config) for answer in answers]
    return {"start": start, "end": time.time(), "texts": texts}


def _job(*, table: str, images: int, folder: str, apart: bool = False) -> dict[str, Any]:
    from reid_ray.caption.config import CaptionJob
    from reid_ray.caption.job import run_caption
    from reid_ray.records import CAPTIONS
    from reid_ray.storage import read_table

    out = Path(folder) / "run"
    job = CaptionJob.model_validate(
        {
            "images": {"source": "parquet", "path": table, "limit": images},
            "captioners": {"main": _prepared(folder, apart=apart)},
            "rewriter": {"share": 0},
            "output": {"path": str(out)},
            "ray": {"local_cpus": LOGICAL_CPUS},
        }
    )
    with LastCommit(out.parent / f".{out.name}.ledger") as ledger:
        run_caption(job)
    return {"end": ledger.at, "texts": read_table(out / "captions", CAPTIONS)["text"].to_pylist()}


class LastCommit:
    """When the newest block of a ledger appeared, to 10 ms: the driver merges blocks, so that none is there at the end."""

    def __init__(self, ledger: Path) -> None:
        self.at = 0.0
        self._ledger, self._ended = ledger, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> LastCommit:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        seen: set[str] = set()
        while not self._ended.wait(0.01):
            blocks = {path.name for path in (self._ledger / "rows").glob("block-*.parquet")}
            if blocks - seen:
                self.at, seen = time.time(), seen | blocks


def _ray_data_llm(*, table: str, images: int, folder: str) -> dict[str, Any]:
    import ray
    from PIL import Image
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    from reid_ray.caption.engines.vllm_arguments import engine_arguments
    from reid_ray.caption.engines.vllm_engine import engine_environment
    from reid_ray.caption.prompts import STATIC
    from reid_ray.model.model_files import resolve_model

    config = _prepared(folder)
    model, sampling = resolve_model(MODEL), {"temperature": config.sampling.temperature, "max_tokens": config.sampling.max_tokens}
    ray.init(address="local", num_cpus=8, include_dashboard=False, object_store_memory=512 << 20)

    def as_request(row: dict[str, Any]) -> dict[str, Any]:
        picture = Image.open(io.BytesIO(row["image"])).convert("RGB")
        messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": STATIC}]}]
        return {"messages": messages, "sampling_params": sampling, "multimodal_data": {"image": picture}}

    processor = build_processor(
        vLLMEngineProcessorConfig(
            model_source=model,
            engine_kwargs=engine_arguments(config.engine, 1) | config.engine.extra | CACHE,
            placement_group_config={"bundles": [{"CPU": 1}]},
            runtime_env={"env_vars": engine_environment(model, config.engine, config.pool)},
            concurrency=1,
            batch_size=64,
            chat_template_stage={"enabled": True, "num_cpus": 0.5},
            tokenize_stage={"enabled": False},
            detokenize_stage={"enabled": False},
            prepare_multimodal_stage={"enabled": False},
            log_engine_metrics=False,
        ),
        preprocess=as_request,
        postprocess=lambda row: {"text": cleaned(row["generated_text"], "length", config)},
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    ray.data.DataContext.get_current().execution_no_progress_timeout_s = 300
    rows = ray.data.read_parquet(table, columns=["image"]).limit(images).repartition(target_num_rows_per_block=64)
    texts = list(_texts(processor(rows).iter_batches(batch_size=None, batch_format="pyarrow")))
    assert len(texts) == images, f"{len(texts)} of {images} images came through"
    return {"end": time.time(), "texts": texts}


def _texts(batches: Iterator[Any]) -> Iterator[str | None]:
    for batch in batches:
        yield from batch["text"].to_pylist()


def cleaned(answer: str, ended_by: str, config: Any) -> str | None:
    from reid_ray.caption.filters.cleaning import BadAnswerError, clean_answer
    from reid_ray.caption.prompts import STATIC

    try:
        return clean_answer(answer, finished=ended_by != "length", limits=config.limits, prompt=STATIC)
    except BadAnswerError:
        return None


def _prepared(folder: str, *, apart: bool = False) -> Any:
    """The captioner's section. This process and what it starts leave the engine's core, and engines find where to log."""
    from reid_ray.caption.config import CaptionerConfig

    others = os.sched_getaffinity(0) - {ENGINE_CORE}
    if others:
        os.sched_setaffinity(0, others)
    record_engines(os.environ, logs=Path(folder) / "logs", core=ENGINE_CORE)
    # The tiny model was trained on short answers: where it is held to more words it says them again, or any.
    limits = {"min_words": 1, "max_words": 1000, "script": None, "max_repeats": 1000}
    return CaptionerConfig.model_validate(
        {
            "model": MODEL,
            "limits": limits,
            "sampling": {"max_tokens": LONGEST},
            "engine": {"kv_cache_mb": CACHE_MB, "own_process": apart, "extra": {"scheduler_cls": SCHEDULER}},
        }
    )


ARMS: dict[str, Callable[..., dict[str, Any]]] = {
    ALL_AT_ONCE: _all_at_once,
    JOB: _job,
    JOB_APART: functools.partial(_job, apart=True),
    RAY_DATA_LLM: _ray_data_llm,
}


if __name__ == "__main__":
    sys.exit(0 if serve_worker(ARMS) else main())
