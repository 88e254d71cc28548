"""Which sets of captions the plausibility check flags and which it passes, with every number that it looked at.

    python benchmarks/caption_plausibility.py --out benchmarks/results/caption_plausibility-DATE.json [--quick]

Sets that must pass: people's captions of synthetic people. Sets that must be flagged: the same captions given to other pictures, one
caption for all, one coat for all. RUNS names finished caption jobs of the shipped captioner, with a colon between them: those of synthetic
people, which it has learnt, must pass, those of other pictures must be flagged, such as

    reid-ray caption rewriter.share=0 images.synthetic.seed=41 'captioners.main.instructions=[static,dynamic]' output.path=runs/drawn
    reid-ray caption rewriter.share=0 images.source=folder images.path=CROPS output.path=runs/street

--quick takes one seed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.harness import Report, run_benchmark
from reid_ray.caption.origin import images_of
from reid_ray.caption.plausibility.config import PlausibilityConfig
from reid_ray.caption.plausibility.guesses import GuessCount
from reid_ray.caption.plausibility.job import PlausibilityCheck
from reid_ray.config.common import ImagesConfig
from reid_ray.data.labels.doubted_captions import DOUBTED
from reid_ray.data.sources import image_listing
from reid_ray.data.synthetic.config import SynthesizeJob
from reid_ray.data.synthetic.job import run_synthesize
from reid_ray.records import CAPTIONS
from reid_ray.storage import read_manifest, read_table

_WORK = Path("runs/caption_plausibility").absolute()
_SEEDS = (41, 42, 43)


def main() -> int:
    return run_benchmark(__doc__ or "", _run)


def _run(report: Report, quick: bool) -> None:
    wrong = 0
    for name, kind, must_pass, captions, images in _sets(quick):
        seen = PlausibilityCheck(PlausibilityConfig(), images, image_listing(images))
        seen.samples.add(captions)
        facts = seen.judged()
        for maker, found in facts["captioners"].items():
            passed = found["verdict"] != DOUBTED
            wrong += passed != must_pass
            numbers = {each["what"]: f"{each['value']:g}{'!' if each['verdict'] == DOUBTED else ''}" for each in found["statements"]}
            report.row(set=name, kind=kind, captions=found["captions"], maker=maker, must_pass=must_pass, passed=passed, **numbers)
    report.claim("sets judged otherwise than they must be", wrong, "<=", 0)


def _sets(quick: bool) -> Iterator[tuple[str, str, bool, pa.Table, ImagesConfig]]:
    """Name, kind, whether it must pass, captions, pictures."""
    for seed in _SEEDS[: 1 if quick else None]:
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
    for run in filter(None, os.environ.get("RUNS", "").split(":")):
        manifest = read_manifest(run)
        captions = read_table(Path(run) / "captions", CAPTIONS)
        guesses = GuessCount()
        guesses.add(captions)
        kind = "other pictures" if guesses.facts() else "synthetic people"
        yield kind, "shipped captioner", not guesses.facts(), captions, images_of(manifest)


def _with_texts(captions: pa.Table, texts: list[str]) -> pa.Table:
    return captions.set_column(captions.schema.get_field_index("text"), CAPTIONS.field("text"), pa.array(texts, pa.string()))


def _in_black(text: str) -> str:
    """The caption with a black coat in the place of whatever the person wears above; the colour that was said of that is left alone."""
    from reid_ray.attributes.lexicon import NOUNS

    upper = {word for word, noun in NOUNS.items() if noun.slot == "upper"}
    return " ".join(word for word in text.split() if word.strip(".,").lower() not in upper) + " The coat is black."


if __name__ == "__main__":
    sys.exit(main())
