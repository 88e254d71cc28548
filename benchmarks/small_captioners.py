"""Memory and seconds a crop of small published captioners on a CPU, by the shipped configurations and random weights of the true size.

    python benchmarks/small_captioners.py --out benchmarks/results/small_captioners-DATE.json [--models NAME ...] [--crops 8]

vLLM draws the weights (load_format dummy), so nothing is downloaded and no caption means anything. Every answer has 71 tokens, a real
captioner's average. Crops of 256 x 128 pixels; engine, sampling and pictures as jobs/configs/caption has them; each model in a
process of its own, with as many threads as OMP_NUM_THREADS says. `gib` is the most memory that it held at once (VmHWM), `cache_mib`
the key-value cache that was sized from the model's geometry, `weights_gib` two bytes for each parameter; `cpu_seconds_a_crop`
are those of all threads, which other programs on the machine disturb less. Crops are answered together, max_num_seqs at most.
"""

from __future__ import annotations

import argparse
import functools
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.caption_engines.answer_lengths import MEAN
from benchmarks.caption_engines.own_process import ROOT, run_worker, serve_worker
from benchmarks.caption_engines.small_mllms import PUBLISHED
from benchmarks.captioning import write_people
from benchmarks.harness import Report, run_benchmark

CONFIGURATIONS = {"smolvlm": "caption_smolvlm_500m.yaml", "qwen": "caption_qwen25vl_3b.yaml"}  # captioner's name -> file


def main() -> int:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--models", nargs="+", choices=PUBLISHED)
    parser.add_argument("--crops", type=int, default=8)
    own, rest = parser.parse_known_args()
    return run_benchmark(__doc__ or "", functools.partial(_run, own=own), rest)


def _run(report: Report, quick: bool, *, own: argparse.Namespace) -> None:
    crops = 2 if quick else own.crops
    for name in own.models or list(PUBLISHED)[: 2 if quick else None]:
        found = run_worker(__file__, "captions", timeout_s=600, model=name, crops=crops)
        report.row(model=name, threads=int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)), **found)
        print(report.rows[-1], flush=True)
        report.claim(f"{name} starts on a CPU and answers", float("error" not in found), ">=", 1)


# --- runs in a process of its own, with the engine in it


def _captions(*, model: str, crops: int) -> dict[str, Any]:
    import pyarrow.parquet as pq
    import yaml

    from reid_ray.caption.config import CaptionerConfig
    from reid_ray.caption.engines.kv_cache import cache_arguments
    from reid_ray.caption.engines.vllm_engine import Engine
    from reid_ray.caption.prompts import STATIC
    from reid_ray.data.images import decode_image

    captioner = "smolvlm" if "SmolVLM" in model else "qwen"
    file = ROOT / "jobs/configs/caption" / CONFIGURATIONS[captioner]
    config = CaptionerConfig.model_validate(yaml.safe_load(file.read_text(encoding="utf-8"))["captioners"][captioner])
    extra = {**config.engine.extra, "load_format": "dummy"}
    engine_config = config.engine.model_copy(update={"extra": extra})
    tokens = int(MEAN)
    sampling = config.sampling.model_copy(update={"max_tokens": tokens, "extra": {"ignore_eos": True}})
    with tempfile.TemporaryDirectory() as temporary:
        table, folder = Path(temporary) / "people.parquet", Path(temporary) / "model"
        write_people(table, crops)
        PUBLISHED[model](folder)
        cache = cache_arguments(str(folder), engine_config, config.pool)["kv_cache_memory_bytes"]
        before = time.perf_counter()
        engine = Engine(str(folder), revision=None, config=engine_config, sampling=sampling, images=1, pool=config.pool)
        started = time.perf_counter() - before
        pictures = [decode_image(data) for data in pq.read_table(table, columns=["image"])["image"].to_pylist()]
        asked = [
            [{"role": "user", "content": [{"type": "image_pil", "image_pil": picture}, {"type": "text", "text": STATIC}]}]
            for picture in pictures
        ]
        engine.chat(asked[:1], ["first"])  # kernels are chosen with the first request
        before, cpu = time.perf_counter(), time.process_time()
        replies = engine.chat(asked, [str(number) for number in range(crops)])
        seconds, cpu_seconds = time.perf_counter() - before, time.process_time() - cpu
        parameters = _parameters(folder)
    if any(reply.error is not None for reply in replies):
        raise RuntimeError(f"no answer: {replies[0].error}")
    return {
        "parameters_m": round(parameters / 1e6),
        "weights_gib": round(2 * parameters / 2**30, 2),
        "cache_mib": cache >> 20,
        "gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "start_seconds": round(started, 1),
        "crops": crops,
        "tokens_each": tokens,
        "seconds_a_crop": round(seconds / crops, 2),
        "cpu_seconds_a_crop": round(cpu_seconds / crops, 2),
    }


def _parameters(folder: Path) -> int:
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(folder))
    return sum(weight.numel() for weight in model.parameters())


if __name__ == "__main__":
    if not serve_worker({"captions": _captions}):
        sys.exit(main())
