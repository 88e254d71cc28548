"""Make the golden outputs: one small output of every kind that is read again later, and what is in them, as JSON.

    python tests/golden/make.py NAME        (some minutes; from the root of the commit whose outputs are to be kept)

writes tests/golden/NAME. The outputs are what the jobs wrote, except that a run's Ray folder, boards, pictures and pages are left out.
They are never made again: they stand for what users of that commit have on their disks.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
RAY = ["ray.address=local", "ray.local_cpus=4", "ray.object_store_mb=100"]
SHAPE = "{patch_size: 16, vision_width: 8, vision_layers: 1, text_width: 8, text_layers: 1, embed_dim: 8, vocab_size: 300, context: 32}"
TRAIN = [
    *["images.path=W/people/images", "captions.paths=[W/people/captions]", "model.image_height=64", "model.image_width=32"],
    *[f"model.scratch={SHAPE}", "batches.size=4", "objective.sdm.temperature=0.1", "masking.kind=nam", "optimizer.lr=0.001"],
    *["workers.count=1", "schedule.log_every=1", *RAY],
]


def main() -> int:
    name = sys.argv[1]
    work, golden = Path("golden_work"), ROOT / "tests" / "golden" / name
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    _jobs()
    _killed_training(work)
    shutil.rmtree(golden, ignore_errors=True)
    _keep(work, golden)
    contents = json.dumps(_contents(golden), ensure_ascii=False, separators=(",", ":"))
    (golden / "contents.json").write_text(contents.replace("},{", "},\n{") + "\n", encoding="utf-8")
    return 0


def _jobs() -> None:
    _job("synthesize", "people.identities=6", "people.images_per_identity=2", "people.height=64", "people.width=32", "output.path=W/people")
    crops = Path("golden_work/crops")
    crops.mkdir()
    for number, data in enumerate(_column("golden_work/people/images", "image")[:3]):
        (crops / f"{number:04d}_c1.jpg").write_bytes(data if number else data[: len(data) // 2])
    _job("ingest", "source.format=folder", "source.path=W/crops", "output.path=W/ingest", "load.processes=0")
    _job(
        "caption",
        *["images.source=folder", "images.path=W/crops", "captioners.main.instructions=[static, dynamic]", "rewriter.share=1.0"],
        *["faithfulness.alpha=0.7", "faithfulness.max_tries=2", "output.path=W/caption", *RAY],
    )
    _job("refilter", "run=W/caption", "alpha=0.99", "output.path=W/refilter")
    _job("train", *TRAIN, "schedule.max_steps=2", "output.path=W/training")
    tune = ["images.path=W/people/images", "images.val_split=null", "captions.paths=[W/people/captions]", "batches.size=4"]
    tune += ["batches.samples_per_identity=2", "schedule.max_steps=1", "model.train_projector=false", "model.lora.rank=1"]
    _job("tune", *tune, "model.lora.llm=[q_proj]", "objective.sdm.weight=1.0", "workers.count=1", "output.path=W/tuning", *RAY)
    images = ["images.source=parquet", "images.path=W/people/images"]
    _job("index", *images, "encoder=W/training/model", "thumbnail_height=16", "output.path=W/index", *RAY)
    _job("embed", *images, "encoder=W/training/model", "output.path=W/embeddings", *RAY)
    scored = ["images=W/people/images", "captions=W/people/captions", "split=train", "top_k=3", "sheet_queries=0"]
    _job("evaluate", "encoder=W/training/model", *scored, "output.path=W/evaluation", *RAY)


def _killed_training(work: Path) -> None:
    """A training that was cut off after its first checkpoint."""
    command = [
        "train",
        *TRAIN,
        "images.val_split=null",
        "schedule.epochs=400",
        "schedule.checkpoint_every=2",
        "schedule.keep_checkpoints=1",
    ]
    process = subprocess.Popen(_command(*command, "output.path=W/killed"), cwd=ROOT)
    while not list(work.glob(".killed.*.run/checkpoints/step-*/manifest.json")):
        assert process.poll() is None, "the training ended before it had a checkpoint"
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for act in (psutil.Process.suspend, psutil.Process.kill):
        for each in family:
            with contextlib.suppress(psutil.NoSuchProcess):  # a worker may end by itself meanwhile
                act(each)
    process.wait()


def _keep(work: Path, golden: Path) -> None:
    left_out = shutil.ignore_patterns("*.png", "*.html", "tensorboard", "ray", "lock", "best", "start", "report.md")
    golden.mkdir(parents=True)
    for folder in sorted(work.iterdir()):
        if folder.name.startswith(".caption.") and folder.name.endswith(".ledger"):
            shutil.copytree(folder, golden / "ledger", ignore=left_out)
        elif folder.name.endswith(".run"):
            shutil.copytree(folder, golden / "run", ignore=left_out)
        elif not folder.name.startswith(".") and folder.name != "crops":
            shutil.copytree(folder, golden / folder.name, ignore=left_out)
    shutil.copytree(work / "crops", golden / "crops")
    here = sys.prefix.encode()  # commands of Ray's workers name it; as long as before, for checkpoints know the sizes of their files
    for file in golden.rglob("manifest.json"):
        file.write_bytes(file.read_bytes().replace(here, b"/venv".ljust(len(here), b"_")))


def _contents(golden: Path) -> dict[str, Any]:
    """What is in the outputs, read with plain pyarrow, numpy and safetensors."""
    import numpy as np
    import pyarrow.parquet as pq
    from safetensors.numpy import load_file

    def relative(file: Path) -> str:
        return file.relative_to(golden).as_posix()

    def digest(data: bytes) -> str:
        return hashlib.sha256(data).hexdigest()[:16]

    return {
        "tables": {relative(file): _plain(pq.read_table(file).to_pylist()) for file in sorted(golden.rglob("*.parquet"))},
        "tensors": {
            relative(file): {key: digest(np.ascontiguousarray(value).tobytes()) for key, value in sorted(load_file(file).items())}
            for file in sorted(golden.rglob("*.safetensors"))
        },
        "arrays": {relative(file): digest(np.load(file, allow_pickle=False).tobytes()) for file in sorted(golden.rglob("*.npy"))},
    }


def _plain(value: Any) -> Any:
    """For JSON: bytes by their digest, floats rounded, nulls left out."""
    if isinstance(value, bytes):
        return f"sha256 {hashlib.sha256(value).hexdigest()[:16]}"
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return {key: _plain(each) for key, each in value.items() if each is not None} if isinstance(value, dict) else value


def _column(path: str, name: str) -> list[Any]:
    import pyarrow.parquet as pq

    return list(pq.read_table(path)[name].to_pylist())


def _command(job: str, *overrides: str) -> list[str]:
    return [sys.executable, f"jobs/{job}.py", *(each.replace("W/", "golden_work/") for each in overrides)]


def _job(job: str, *overrides: str) -> None:
    print("==", job, flush=True)
    subprocess.run(_command(job, *overrides), cwd=ROOT, check=True)


if __name__ == "__main__":
    sys.exit(main())
