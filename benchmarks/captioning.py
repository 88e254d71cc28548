"""The caption job against a bare vLLM loop and against Ray Data LLM's own processor, and its memory from few images to many.

    python benchmarks/captioning.py --out benchmarks/results/captioning-DATE.json [--quick] [--only rate|ray-data-llm|memory]

The bare loop is what one writes without the job: read the pictures of one Parquet file, decode a batch, give it to vLLM, keep the
texts. Same model, engine arguments, batch size, images and cores for all. They run turn by turn, each in a process of its own; a rate
counts from the end of the first batch to the end of the last, so that imports, Ray and the engine's start stay out of it. Ray Data
LLM is asked twice: as its documentation has it, with pictures as data URLs that its own stage decodes, and with pictures decoded in
its preprocessing; what it cannot do is recorded with its error.

Peak memory is what the job's processes have allocated (anonymous and shared pages in smaps_rollup, a shared page counted once), at the
moment when all of them together held most, four times a second. Pages of files, the code of libraries for the most part, stay out: the
kernel takes and drops them as it likes. Few images and many run one after the other in one Ray, each with an engine of its own, after a
job that only warms Ray up: its workers import what the job needs when they get their first task, and its statistics actor fills
buffers. Otherwise the short run would end before Ray has the size that it keeps. Ray keeps idle workers in number up to its logical
CPUs, so a row says how many processes there were; 4 logical CPUs here.
"""

from __future__ import annotations

import argparse
import functools
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.harness import Report, run_benchmark

ROOT = Path(__file__).resolve().parents[1]
MODEL = "builtin:tiny-mllm"
BATCH = 64
LOGICAL_CPUS = 4
WARM_UP_IMAGES = 1_000
TIMEOUT_S = 3600


def main() -> int:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--only", choices=["rate", "ray-data-llm", "memory"])
    own, rest = parser.parse_known_args()
    return run_benchmark(__doc__ or "", functools.partial(_run, only=own.only), rest)


def _run(report: Report, quick: bool, *, only: str | None) -> None:
    images, repeats, few, many = (640, 2, 256, 1280) if quick else (3_200, 2, 1_000, 20_000)
    with tempfile.TemporaryDirectory(prefix="caption_bench_") as scratch:
        table, out = Path(scratch) / "images", Path(scratch) / "out"
        _write_images(table, many if only in (None, "memory") else images)
        if only in (None, "rate"):
            _compare_rates(report, table, out, images=images, repeats=repeats)
        if only in (None, "ray-data-llm"):
            for name in ("Ray Data LLM, data URLs", "Ray Data LLM, decoded pictures"):
                result = _in_own_process(name, table, images, out)
                report.row(what=name, images=images, images_per_s_best=result.get("images_per_second"), error=result.get("error"))
        if only in (None, "memory"):
            _compare_memory(report, table, out, few=few, many=many)


def _compare_rates(report: Report, table: Path, out: Path, *, images: int, repeats: int) -> None:
    """The bare loop and the job, turn by turn."""
    rates: dict[str, list[float]] = {"bare vLLM loop": [], "caption job": []}
    texts: dict[str, list[str]] = {}
    for _ in range(repeats):
        for name, measured in rates.items():
            result = _in_own_process(name, table, images, out)
            assert "error" not in result, result
            measured.append(result["images_per_second"])
            texts[name] = result["texts"]
            print(f"{name}: {measured[-1]:.1f} images a second", flush=True)
    for name, measured in rates.items():
        report.row(what=name, images=images, repeats=repeats, images_per_s_best=max(measured), images_per_s_worst=min(measured))
    same = sum(a == b for a, b in zip(texts["caption job"], texts["bare vLLM loop"], strict=True)) / images
    report.claim("captions that both make alike, share", round(same, 4), ">=", 0.99)
    ratio = max(rates["caption job"]) / max(rates["bare vLLM loop"])
    report.claim("caption job against a bare vLLM loop, images a second", round(ratio, 3), ">=", 0.95)


def _compare_memory(report: Report, table: Path, out: Path, *, few: int, many: int) -> None:
    """The job over a few and over many images, in one Ray that is warm."""
    result = _in_own_process("caption job's memory", table, few, out, many=many)
    assert "error" not in result, result
    peaks = []
    for images, parts in zip((few, many), result["peaks"], strict=True):
        peaks.append(sum(held for _, held in parts.values()))
        columns = {f"{part}_mb": round(held / 1e6) for part, (_, held) in parts.items()}
        processes = sum(count for count, _ in parts.values())
        report.row(what="caption job", images=images, peak_mb=round(peaks[-1] / 1e6), **columns, processes=processes)
    report.claim(f"peak memory at {many} images against {few}", round(peaks[1] / peaks[0], 3), "<=", 1.1)


def _write_images(folder: Path, images: int) -> None:
    """Synthetic people as one IMAGES table of row groups."""
    import pyarrow.parquet as pq

    from reid_ray.config.common import SyntheticConfig
    from reid_ray.data.synthetic.people import SyntheticPeople
    from reid_ray.records import IMAGES

    people = SyntheticPeople(SyntheticConfig(identities=-(-images // 4), images_per_identity=4))
    folder.mkdir()
    with pq.ParquetWriter(folder / "images.parquet", IMAGES) as writer:
        for start in range(0, images, 512):
            writer.write_table(people.image_table(start, min(start + 512, images)))


# --- each of the following runs in a process of its own and returns images_per_second and, but for Ray Data LLM, texts


def _bare_loop(table: Path, images: int, out: Path) -> dict[str, Any]:
    from reid_ray.caption.config import CaptionerConfig
    from reid_ray.caption.engines.vllm_engine import engine_arguments, engine_environment
    from reid_ray.model.model_files import resolve_model

    config = CaptionerConfig.model_validate(_captioner())
    model = resolve_model(MODEL)
    os.environ.update(engine_environment(model, config.engine, config.pool))
    import pyarrow.parquet as pq
    from PIL import Image
    from vllm import LLM, SamplingParams

    from reid_ray.caption.prompts import STATIC

    llm = LLM(model=model, **engine_arguments(config.engine, 1))
    sampling = SamplingParams(temperature=config.sampling.temperature, max_tokens=config.sampling.max_tokens)
    texts: list[str] = []
    first, left = 0.0, images
    for batch in pq.ParquetFile(table / "images.parquet").iter_batches(BATCH, columns=["image"]):
        pictures = [Image.open(io.BytesIO(data)).convert("RGB") for data in batch.column("image").to_pylist()[:left]]
        asked = [[{"role": "user", "content": [{"type": "image_pil", "image_pil": p}, {"type": "text", "text": STATIC}]}] for p in pictures]
        texts += [answer.outputs[0].text for answer in llm.chat(asked, sampling, use_tqdm=False)]
        first, left = first or time.perf_counter(), left - len(pictures)
        if not left:
            break
    return {"images_per_second": (images - BATCH) / (time.perf_counter() - first), "texts": texts}


def _job(table: Path, images: int, out: Path) -> dict[str, Any]:
    from reid_ray.caption.config import CaptionJob
    from reid_ray.caption.job import run_caption
    from reid_ray.records import CAPTIONS
    from reid_ray.storage import read_table

    job = CaptionJob.model_validate(
        {
            "images": {"source": "parquet", "path": str(table), "limit": images},
            "captioners": {"main": _captioner()},
            "rewriter": {"share": 0},
            "output": {"path": str(out)},
            "ray": {"local_cpus": LOGICAL_CPUS},
        }
    )
    manifest = run_caption(job)
    assert manifest["counts"]["read"] == images, manifest["counts"]
    rate = manifest["facts"]["passes"]["main"]["throughput"]["images_per_second"]
    return {"images_per_second": rate, "texts": read_table(out / "captions", CAPTIONS)["text"].to_pylist()}


def _job_memory(table: Path, few: int, out: Path, *, many: int) -> dict[str, Any]:
    """The peaks, as _peak_of has them, of the job over `few` and over `many` images, after a first run that counts for nothing."""
    from reid_ray.config.common import RayConfig
    from reid_ray.runtime import ray_session

    with ray_session(RayConfig(address="local", local_cpus=LOGICAL_CPUS)):
        _job(table, WARM_UP_IMAGES, out / "warm-up")
        return {"peaks": [_peak_of(functools.partial(_job, table, images, out / str(images))) for images in (few, many)]}


def _peak_of(run: Callable[[], Any]) -> dict[str, tuple[int, int]]:
    """{part: (processes, bytes)} of the moment in `run` at which all parts together held most."""
    peak: dict[str, tuple[int, int]] = {}
    ended = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.25):
            parts = _allocated_by_part()
            if sum(held for _, held in parts.values()) > sum(held for _, held in peak.values()):
                peak = parts

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        run()
    finally:
        ended.set()
        watcher.join()
    return peak


def _allocated_by_part() -> dict[str, tuple[int, int]]:
    import psutil

    me = psutil.Process()
    parts = {"driver": (0, 0), "engine": (0, 0), "ray": (0, 0)}
    for process in [me, *me.children(recursive=True)]:
        try:
            title = " ".join(process.cmdline())
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
        except (psutil.NoSuchProcess, OSError):
            continue  # it ended between the listing and the look
        part = "driver" if process == me else "engine" if "Caption" in title else "ray"
        held = sum(int(line.split()[1]) << 10 for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))
        parts[part] = (parts[part][0] + 1, parts[part][1] + held)
    return parts


def _ray_data_llm(table: Path, images: int, *, urls: bool) -> dict[str, Any]:
    import base64

    import ray
    from PIL import Image
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    from reid_ray.caption.config import CaptionerConfig
    from reid_ray.caption.engines.vllm_engine import engine_arguments, engine_environment
    from reid_ray.caption.prompts import STATIC
    from reid_ray.model.model_files import resolve_model

    config = CaptionerConfig.model_validate(_captioner())
    model, sampling = resolve_model(MODEL), {"temperature": 0.0, "max_tokens": config.sampling.max_tokens}
    ray.init(address="local", num_cpus=8, include_dashboard=False, object_store_memory=512 << 20)
    text = {"type": "text", "text": STATIC}

    def as_url(row: dict[str, Any]) -> dict[str, Any]:
        url = "data:image/jpeg;base64," + base64.b64encode(row["image"]).decode()
        return {
            "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}, text]}],
            "sampling_params": sampling,
        }

    def as_picture(row: dict[str, Any]) -> dict[str, Any]:
        picture = Image.open(io.BytesIO(row["image"])).convert("RGB")
        messages = [{"role": "user", "content": [{"type": "image"}, text]}]
        return {"messages": messages, "sampling_params": sampling, "multimodal_data": {"image": picture}}

    processor = build_processor(
        vLLMEngineProcessorConfig(
            model_source=model,
            engine_kwargs=engine_arguments(config.engine, 1),
            placement_group_config={"bundles": [{"CPU": 1}]},
            runtime_env={"env_vars": engine_environment(model, config.engine, config.pool)},
            concurrency=1,
            batch_size=BATCH,
            chat_template_stage={"enabled": True, "num_cpus": 0.5},
            tokenize_stage={"enabled": False},
            detokenize_stage={"enabled": False},
            prepare_multimodal_stage={"enabled": urls, "num_cpus": 0.5},
            log_engine_metrics=False,
        ),
        preprocess=as_url if urls else as_picture,
        postprocess=lambda row: {"text": row["generated_text"]},
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    ray.data.DataContext.get_current().execution_no_progress_timeout_s = 300
    rows = ray.data.read_parquet(str(table), columns=["image"]).limit(images).repartition(target_num_rows_per_block=BATCH)
    first, before, done = 0.0, 0, 0
    for batch in processor(rows).iter_batches(batch_size=None, batch_format="pyarrow"):
        done += batch.num_rows
        first, before = (first, before) if first else (time.perf_counter(), done)
    assert done == images, f"{done} of {images} images came through"
    return {"images_per_second": (images - before) / (time.perf_counter() - first)}


def _captioner() -> dict[str, Any]:
    return {"model": MODEL, "instructions": ["static"], "pool": {"batch_size": BATCH}}


WORKERS: dict[str, Callable[..., dict[str, Any]]] = {
    "bare vLLM loop": _bare_loop,
    "caption job": _job,
    "caption job's memory": _job_memory,
    "Ray Data LLM, data URLs": lambda table, images, out: _ray_data_llm(table, images, urls=True),
    "Ray Data LLM, decoded pictures": lambda table, images, out: _ray_data_llm(table, images, urls=False),
}


def _in_own_process(name: str, table: Path, images: int, out: Path, **options: Any) -> dict[str, Any]:
    """What the worker `name`, called with these arguments and JSON-able `options`, returned, or {"error": its last line of complaint}."""
    command = [sys.executable, str(Path(__file__).resolve()), "--worker", name, str(table), str(images), str(out), json.dumps(options)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    if done.returncode:
        return {"error": _complaint(done.stderr)}
    # Ray's processes may write to the same stream after the worker's own last line.
    last = next((line for line in reversed(done.stdout.splitlines()) if line.startswith("{")), None)
    return {"error": f"no result in {done.stdout[-300:]!r}"} if last is None else dict(json.loads(last))


def _complaint(log: str) -> str:
    """The line of a traceback that names the first exception, and the last line."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    named = [line for line in lines if "Error: " in line and not line.startswith("(")]
    return " | ".join(dict.fromkeys([*named[:1], *lines[-1:]]))[:600]


def _worker(name: str, table: Path, images: int, out: Path, options: dict[str, Any]) -> int:
    import shutil

    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    # The job's ledger lies beside its output: both must go before the next turn.
    result = WORKERS[name](table, images, out / "run", **options)
    shutil.rmtree(out)
    print("\n" + json.dumps(result))
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        sys.exit(_worker(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]), json.loads(sys.argv[6])))
    sys.exit(main())
