"""Which sets of captions the plausibility check flags and which it passes, with every number that it looked at.

    python benchmarks/caption_plausibility.py --out benchmarks/results/caption_plausibility-DATE.json [--quick]

Sets that must pass: people's captions of synthetic people, and the shipped captioner's, which has learnt such people; also where each
picture is there twice, the second time moved, brighter and encoded again. Sets that must be flagged: the same captions given to other
pictures, one caption for all, one coat for all. CROPS names a folder of crops of real people, whose captions by the shipped captioner must
be flagged, too. What was captioned is kept in runs/caption_plausibility. --quick leaves the captioner out.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, ImageEnhance

from benchmarks.harness import Report, in_own_process, run_benchmark
from reid_ray.caption.plausibility.config import PlausibilityConfig
from reid_ray.caption.plausibility.job import check
from reid_ray.caption.plausibility.judgement import DOUBTED
from reid_ray.config.common import ImagesConfig
from reid_ray.data.sources import image_listing
from reid_ray.data.synthetic.config import SynthesizeJob
from reid_ray.data.synthetic.job import run_synthesize
from reid_ray.records import CAPTIONS, IMAGES
from reid_ray.storage import read_table

_WORK = Path("runs/caption_plausibility").absolute()
_SEEDS = (41, 42, 43)
_CAPTIONED = _SEEDS[:2]  # by the shipped captioner: minutes each


def main() -> int:
    return run_benchmark(__doc__ or "", _run)


def _run(report: Report, quick: bool) -> None:
    wrong = 0
    for name, kind, must_pass, captions, images in _sets(quick):
        facts = check([captions], PlausibilityConfig(), images, image_listing(images))
        for maker, found in facts["captioners"].items():
            passed = found["verdict"] != DOUBTED
            wrong += passed != must_pass
            numbers = {each["what"]: f"{each['value']:g}{'!' if each['verdict'] == DOUBTED else ''}" for each in found["statements"]}
            report.row(set=name, kind=kind, captions=found["captions"], maker=maker, must_pass=must_pass, passed=passed, **numbers)
    report.claim("sets judged otherwise than they must be", wrong, "<=", 0)


def _sets(quick: bool) -> Iterator[tuple[str, str, bool, pa.Table, ImagesConfig]]:
    """Name, kind, whether it must pass, captions, pictures."""
    for seed in _SEEDS:
        folder = _WORK / f"people-{seed}"
        people = {"identities": 150, "seed": seed}
        run_synthesize(SynthesizeJob.model_validate({"people": people, "output": {"path": str(folder), "if_exists": "reuse"}}))
        images = ImagesConfig(source="parquet", path=str(folder / "images"))
        captions = read_table(folder / "captions", CAPTIONS)
        rng = np.random.default_rng(seed)
        others = captions["text"].take(pa.array(rng.permutation(captions.num_rows))).to_pylist()
        yield f"synthetic {seed}", "people's captions", True, captions, images
        yield f"synthetic {seed}", "people's captions of other pictures", False, _with_texts(captions, others), images
        yield f"synthetic {seed}", "one caption for all", False, _with_texts(captions, others[:1] * len(others)), images
        coats = [_in_black(text) for text in captions["text"].to_pylist()]
        yield f"synthetic {seed}", "a black coat for all", False, _with_texts(captions, coats), images
    if quick:
        return
    for seed in _CAPTIONED:
        images = ImagesConfig(source="parquet", path=str(_WORK / f"people-{seed}" / "images"))
        yield f"synthetic {seed}", "shipped captioner", True, _captioned(f"people-{seed}", "parquet", str(images.path)), images
    twice = _write_twice(_WORK / f"people-{_SEEDS[0]}" / "images", _WORK / "twice")
    images = ImagesConfig(source="folder", path=str(twice))
    yield "synthetic, each twice", "shipped captioner", True, _captioned("twice", "folder", str(twice)), images
    if crops := os.environ.get("CROPS"):
        images = ImagesConfig(source="folder", path=crops)
        yield "crops of a street", "shipped captioner", False, _captioned("crops", "folder", crops), images


def _with_texts(captions: pa.Table, texts: list[str]) -> pa.Table:
    return captions.set_column(captions.schema.get_field_index("text"), CAPTIONS.field("text"), pa.array(texts, pa.string()))


def _in_black(text: str) -> str:
    """The caption with a black coat in the place of whatever the person wears above; the colour that was said of that is left alone."""
    from reid_ray.attributes.lexicon import NOUNS

    upper = {word for word, noun in NOUNS.items() if noun.slot == "upper"}
    return " ".join(word for word in text.split() if word.strip(".,").lower() not in upper) + " The coat is black."


def _write_twice(images: Path, folder: Path) -> Path:
    """300 pictures, each as it is and moved by a pixel, brighter and encoded again."""
    if folder.is_dir():
        return folder
    folder.mkdir(parents=True)
    for row in read_table(images, IMAGES).slice(0, 300).to_pylist():
        name = row["image_id"].replace("/", "_").removesuffix(".jpg")
        (folder / f"{name}_a.jpg").write_bytes(row["image"])
        with Image.open(io.BytesIO(row["image"])) as picture:
            moved = picture.convert("RGB").transform(picture.size, Image.Transform.AFFINE, (1, 0, 1, 0, 1, 0))
        ImageEnhance.Brightness(moved).enhance(1.06).save(folder / f"{name}_b.jpg", quality=80)
    return folder


def _captioned(name: str, source: str, path: str) -> pa.Table:
    """Static captions by the shipped captioner, made in a process of their own."""
    in_own_process(__file__, "--worker", name, source, path)
    return read_table(_WORK / f"captions-{name}" / "captions", CAPTIONS)


def run_captions(name: str, source: str, path: str) -> dict[str, Any]:
    """Caption a set; kept if it is there."""
    from reid_ray.caption.config import CaptionJob
    from reid_ray.caption.job import run_caption

    config = {
        "images": {"source": source, "path": path},
        "rewriter": {"share": 0},
        "output": {"path": str(_WORK / f"captions-{name}"), "if_exists": "reuse"},
    }
    return {"captions": run_caption(CaptionJob.model_validate(config))["counts"]["written"]}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        import json

        print(json.dumps(run_captions(*sys.argv[2:])))
        sys.exit()
    sys.exit(main())
