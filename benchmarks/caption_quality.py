"""What captions and the faithfulness filter are worth on synthetic people, whose truth is known.

    python benchmarks/caption_quality.py --out benchmarks/results/caption_quality-DATE.json [--quick]

First: the tiny captioner, through the caption job and vLLM, describes people it has never seen, once by the static and once by the
dynamic instruction; distinct-n and self-BLEU on samples of one size, and the share of attribute words that are true. Second: the
filter of LLM-DA on labelled pairs (human paraphrases, captions with one changed attribute, rewrites by SmolLM2 judged by the truth):
the sentence encoder's cosine alone, the attribute agreement, and both; thresholds chosen on one half of the people, numbers of the
other. Nothing here is timed.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Report, run_benchmark
from reid_ray.caption.calibrate.config import CalibrateJob
from reid_ray.caption.calibrate.job import RESULT, run_calibrate
from reid_ray.caption.calibrate.labelled_pairs import CHANGED, SAME
from reid_ray.caption.calibrate.thresholds import roc
from reid_ray.caption.config import CaptionJob
from reid_ray.caption.filters.diversity import DiversityMeter
from reid_ray.caption.job import run_caption
from reid_ray.caption.prompts import TEMPLATES
from reid_ray.config.common import RayConfig, SyntheticConfig
from reid_ray.data.synthetic.people import SyntheticPeople, score_caption
from reid_ray.records import CAPTIONS
from reid_ray.runtime import ray_session
from reid_ray.storage import read_table

KINDS = ("static", "dynamic")
_BOOTSTRAPS = 2_000
_KEPT = (0.5, 0.7, 0.85, 0.9, 0.95, 0.99)  # where the ROC is written down


def main() -> int:
    return run_benchmark(__doc__ or "", _run)


def _run(report: Report, quick: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="caption_quality_") as scratch, ray_session(RayConfig()):
        _diversity(report, Path(scratch) / "captions", people=150 if quick else 600)
        _faithfulness(report, Path(scratch) / "calibration", people=100 if quick else 600, rewrites=24 if quick else 200)


def _diversity(report: Report, folder: Path, *, people: int) -> None:
    crowd = SyntheticConfig(identities=people, images_per_identity=1, seed=20_261)
    job = {
        "images": {"source": "synthetic", "synthetic": crowd.model_dump()},
        "captioners": {"tiny": {"instructions": list(KINDS)}},
        "rewriter": {"share": 0},
        "output": {"path": str(folder)},
    }
    run_caption(CaptionJob.model_validate(job))
    rows = {kind: {} for kind in KINDS}  # type: dict[str, dict[str, dict[str, Any]]]
    for row in read_table(folder / "captions", CAPTIONS).to_pylist():
        if row["status"] == "ok":
            rows[row["kind"]][row["image_id"]] = row
    source = SyntheticPeople(crowd)
    names = source.image_table()["image_id"].to_pylist()
    truth = dict(zip(names, zip(source.attributes(), source.hidden(), strict=True), strict=True))
    both = [name for name in names if all(name in rows[kind] for kind in KINDS)]
    measured, words = {}, {}
    for kind in KINDS:
        chosen = [rows[kind][name] for name in both]
        meter = DiversityMeter(sample=len(both), templates=[f"dynamic/{template}" for template in TEMPLATES] if kind == "dynamic" else ())
        meter.add(both, [row["text"] for row in chosen], [row["instruction_id"] for row in chosen])
        measured[kind] = result = meter.result()
        words[kind] = [_attribute_words(rows[kind][name]["text"], *truth[name]) for name in both]
        right, said, missed = np.sum(words[kind], axis=0)
        report.row(
            what=f"{kind} captions",
            images=len(both),
            **{f"distinct_{n}": round(value, 4) for n, value in result.distinct_n.items()},
            self_bleu=round(result.self_bleu, 4),
            repeated=result.repeated,
            words=result.words_mean,
            attribute_words=int(said),
            attribute_words_right=round(float(right / said), 4),
            attributes_not_named=int(missed),
            template_coverage=result.template_coverage,
            template_entropy=result.template_entropy,
        )
    static, dynamic = measured["static"], measured["dynamic"]
    for n in (1, 2, 3):
        ratio = round(dynamic.distinct_n[n] / static.distinct_n[n], 3)
        report.claim(f"distinct-{n} of dynamic captions against static ones", ratio, ">=", 1.0)
    report.claim("self-BLEU of dynamic captions against static ones", round(dynamic.self_bleu / static.self_bleu, 3), "<=", 1.0)
    difference, low, high = _difference(words["dynamic"], words["static"])
    report.row(what="attribute accuracy, dynamic less static", difference=difference, low_95=low, high_95=high)
    report.claim("attribute accuracy of dynamic captions less that of static ones", difference, ">=", -0.01)


def _attribute_words(text: str, attributes: Any, hidden: Any) -> tuple[int, int, int]:
    """Attribute words right, said, and visible attributes that are not named."""
    score = score_caption(text, attributes, hidden)
    return score.right, len(score.claims), len(score.missed)


def _difference(a: Sequence[tuple[int, int, int]], b: Sequence[tuple[int, int, int]]) -> tuple[float, float, float]:
    """Share right of a less that of b, and its 95 % interval by bootstrap over images, drawn in pairs."""
    a_N, b_N = np.array(a, float), np.array(b, float)
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(_BOOTSTRAPS):
        take = rng.integers(0, len(a_N), len(a_N))
        drawn.append(a_N[take, 0].sum() / a_N[take, 1].sum() - b_N[take, 0].sum() / b_N[take, 1].sum())
    whole = a_N[:, 0].sum() / a_N[:, 1].sum() - b_N[:, 0].sum() / b_N[:, 1].sum()
    low, high = np.quantile(drawn, [0.025, 0.975])
    return round(float(whole), 4), round(float(low), 4), round(float(high), 4)


def _faithfulness(report: Report, folder: Path, *, people: int, rewrites: int) -> None:
    crowd = SyntheticConfig(identities=people, images_per_identity=1, seed=101)
    job = CalibrateJob.model_validate({"people": crowd.model_dump(), "rewrites": rewrites, "output": {"path": str(folder)}})
    run_calibrate(job)
    result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    for name, values in result["filters"].items():
        thresholds = {key: round(values[key], 4) for key in ("alpha", "beta") if key in values}
        for source, held in values["held_out"].items():
            columns = {key: held[key] for key in ("same", "kept", "changed", "removed")}
            report.row(what=f"filter {name}", pairs=source, auc=values.get("auc_held_out"), **thresholds, **columns)
    _write_roc(report, folder)
    held = {name: values["held_out"]["all"] for name, values in result["filters"].items()}
    for name in ("attributes", "both"):
        report.claim(f"rewrites with a changed attribute that the filter '{name}' removes", held[name]["removed"], ">=", job.target_removed)
        report.claim(f"true paraphrases that the filter '{name}' keeps", held[name]["kept"], ">=", job.target_kept)
    # Not a goal that is reached, but a fact: the published filter alone cannot do it with this encoder.
    report.row(what="cosine alone reaches both targets", holds=result["filters"]["cosine"]["meets_targets"])


def _write_roc(report: Report, folder: Path) -> None:
    """The curves of the held-out half, as what is removed where a given share of paraphrases is kept."""
    lines = [json.loads(line) for line in (folder / "pairs.jsonl").read_text(encoding="utf-8").splitlines()]
    judged = [line for line in lines if line["label"] in (SAME, CHANGED) and line["held_out"]]
    same_N = np.array([line["label"] == SAME for line in judged])
    for name in ("cosine", "attributes"):
        score_N = np.array([line[name] for line in judged])
        points = {}
        for kept in _KEPT:
            threshold = np.quantile(score_N[same_N], 1 - kept, method="lower")
            points[f"removed_at_{kept:g}_kept"] = round(float((score_N[~same_N] < threshold).mean()), 4)
        report.row(what=f"ROC {name}", auc=round(roc(score_N, same_N).auc, 4), **points)


if __name__ == "__main__":
    sys.exit(main())
