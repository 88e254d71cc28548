"""The calibrate job: labelled pairs -> scores of both filters -> thresholds chosen on one half, reported on the held-out other.

Knows the order and the report; pairs, numbers and pictures are labelled_pairs.py's, thresholds.py's and results.py's.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from reid_ray.caption.actors.configured_engine import start_engine
from reid_ray.caption.calibrate.config import CalibrateJob
from reid_ray.caption.calibrate.labelled_pairs import CHANGED, LOSSY, SAME, LabelledPair, halves, human_pairs, judge_rewrite, read_pairs
from reid_ray.caption.calibrate.results import draw, render_markdown
from reid_ray.caption.calibrate.thresholds import choose_pair, choose_threshold, frontier, quality, roc
from reid_ray.caption.config import FaithfulnessConfig, RewriterConfig
from reid_ray.caption.engines.vllm_engine import engine_environment, model_facts
from reid_ray.caption.filters.agreement import compare_attributes
from reid_ray.caption.filters.faithfulness import FaithfulnessScorer, SentenceEncoder
from reid_ray.caption.ledger.row_keys import RewriteRecipe
from reid_ray.caption.rewrites import Rewriter
from reid_ray.caption.rows import STAGED, staged_table
from reid_ray.caption.streaming.in_rounds import run_in_rounds
from reid_ray.data.execution import actor_pool, ray_data_execution
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.errors import DataError
from reid_ray.model.hub_models import fetch_models, pinned
from reid_ray.model.model_files import model_revision, resolve_model
from reid_ray.records import conform
from reid_ray.runtime import pool_need, ray_session, require_resources
from reid_ray.storage import JobOutput, write_bytes, write_json
from reid_ray.terminal.own_lines import say
from reid_ray.versions import numbered

REPORT, RESULT, PICTURE, PAIRS = "calibration.md", "calibration.json", "roc.png", "pairs.jsonl"
PUBLISHED_ALPHA = 0.6  # LLM-DA


def run_calibrate(config: CalibrateJob) -> dict[str, Any]:
    """Run the job of `config`; returns the manifest. The folder holds calibration.json, .md, roc.png and pairs.jsonl.

    Raises:
        ReidRayError: models or pairs that the job cannot run with.
    """
    config = config.model_copy(update={"encoder": pinned(config.encoder, field="encoder.model")})
    if config.rewrites:
        config = config.model_copy(update={"rewriter": pinned(config.rewriter, field="rewriter.model")})
    encoder = resolve_model(config.encoder.model, field="encoder.model")
    inputs = {"encoder": {"model": config.encoder.model, "revision": model_revision(encoder, revision=config.encoder.revision)}}
    if config.rewrites:
        inputs["rewriter"] = model_facts(config.rewriter, "rewriter.model")
    output = JobOutput("calibrate", config.output.path, config, if_exists=config.output.if_exists, inputs=inputs)
    if (earlier := output.kept()) is not None:
        return earlier
    with output:
        pairs = [*human_pairs(config.people), *(read_pairs(config.pairs) if config.pairs else ())]
        if config.rewrites:
            rewritten, failed = _rewrite(config, inputs["rewriter"]["revision"])
            if not rewritten:
                raise DataError(
                    f"rewriter.model {config.rewriter.model}: not one of {failed.total()} rewrites can be used ({dict(failed)}); give "
                    "another model, or set rewrites to 0"
                )
            pairs += rewritten
            output.counts.unused.update(failed)
        scorer = SentenceEncoder(encoder, revision=config.encoder.revision, field="encoder.model")
        result = calibrate(pairs, scorer, config)
        output.counts.read = len(pairs) + output.counts.unused.total()
        output.counts.written = len(pairs)
        output.facts.update({name: result[name] for name in ("pairs", "filters")})
        curves = result.pop("curves")
        _write_pairs(output, pairs, result.pop("scores"))
        write_json(output.folder / RESULT, {**numbered("calibration"), **result})
        write_bytes(output.folder / REPORT, render_markdown(result, config).encode())
        write_bytes(output.folder / PICTURE, draw(result, curves, config))
        manifest = output.manifest()
    both = result["filters"]["both"]["held_out"]["all"]
    say(
        f"calibrate: {len(pairs)} pairs; alpha {result['filters']['cosine']['alpha']:.3f} for {config.encoder.model}; both filters remove "
        f"{both['removed']:.1%} of changed rewrites and keep {both['kept']:.1%} of paraphrases (held out) -> {config.output.path}"
    )
    return manifest


def calibrate(pairs: Sequence[LabelledPair], scorer: FaithfulnessScorer, config: CalibrateJob) -> dict[str, Any]:
    """Score pairs by cosine and by attributes, choose thresholds on the first half, measure on the second.

    Returns:
        {"pairs", "published_alpha", "filters", "scores", "curves"}. "filters" maps cosine, attributes and both to their thresholds and
        what these do (Quality), on the half they were "chosen_on" and, by source, "held_out"; the last two hold arrays for the files.

    Raises:
        DataError: a half lacks one of the labels.
    """
    agreements = [compare_attributes(pair.original, pair.rewrite) for pair in pairs]
    score_N = {
        "cosine": np.asarray(scorer.score([p.original for p in pairs], [p.rewrite for p in pairs]), np.float64),
        "attributes": np.array([agreement.score for agreement in agreements]),
    }
    label_N = np.array([pair.label for pair in pairs])
    first = {id(pair) for pair in halves(pairs)[0]}
    choosing_N = np.array([id(pair) in first for pair in pairs])
    judged_N = label_N != LOSSY
    for half_N in (choosing_N, ~choosing_N):
        if not {SAME, CHANGED} <= set(label_N[half_N]):
            raise DataError("calibration needs paraphrases and changed rewrites in both halves; raise people.identities or add pairs")
    same_N = label_N == SAME
    fit_N, held_N = choosing_N & judged_N, ~choosing_N & judged_N
    targets = {"target_removed": config.target_removed, "target_kept": config.target_kept}
    filters: dict[str, Any] = {}
    curves: dict[str, Any] = {}
    keep_N: dict[str, np.ndarray] = {}
    for name, threshold_name in (("cosine", "alpha"), ("attributes", "beta")):
        threshold = choose_threshold(roc(score_N[name][fit_N], same_N[fit_N]), config.choose, **targets)
        curves[name] = roc(score_N[name][held_N], same_N[held_N])
        keep_N[name] = score_N[name] >= threshold
        filters[name] = {threshold_name: threshold, "auc_held_out": round(curves[name].auc, 4)}
    edge = frontier(score_N["cosine"][fit_N], score_N["attributes"][fit_N], same_N[fit_N])
    alpha, beta = choose_pair(edge, config.choose, **targets)
    keep_N["both"] = (score_N["cosine"] >= alpha) & (score_N["attributes"] >= beta)
    filters["both"] = {"alpha": alpha, "beta": beta}
    curves["both"] = frontier(score_N["cosine"][held_N], score_N["attributes"][held_N], same_N[held_N])
    for name, values in filters.items():
        whole = quality(keep_N[name][held_N], same_N[held_N])
        values |= {
            "chosen_on": quality(keep_N[name][fit_N], same_N[fit_N]).as_dict(),
            "held_out": _by_source(keep_N[name], same_N, held_N, pairs),
            "meets_targets": whole.meets(removed=config.target_removed, kept=config.target_kept),
        }
        lossy_N = (label_N == LOSSY) & ~choosing_N
        values["lossy_kept"] = round(float(keep_N[name][lossy_N].mean()), 4) if lossy_N.any() else None
    return {
        "pairs": {f"{source} {label}": n for (source, label), n in sorted(Counter((p.source, p.label) for p in pairs).items())},
        "filters": filters,
        # The published threshold, for comparison: it was set for another encoder.
        "published_alpha": {
            "alpha": PUBLISHED_ALPHA,
            **quality(score_N["cosine"][held_N] >= PUBLISHED_ALPHA, same_N[held_N]).as_dict(),
        },
        "scores": {"cosine": score_N["cosine"], "attributes": score_N["attributes"], "explained": [a.explain() for a in agreements]},
        "curves": {**curves, "cosine_N": score_N["cosine"], "label_N": label_N, "attributes_N": score_N["attributes"]},
    }


def _by_source(keep_N: np.ndarray, same_N: np.ndarray, held_N: np.ndarray, pairs: Sequence[LabelledPair]) -> dict[str, Any]:
    """Quality on all held-out pairs and on those of each source."""
    source_N = np.array([pair.source for pair in pairs])
    masks = {"all": held_N} | {str(source): held_N & (source_N == source) for source in dict.fromkeys(source_N)}
    return {name: quality(keep_N[mask_N], same_N[mask_N]).as_dict() for name, mask_N in masks.items()}


def _rewrite(config: CalibrateJob, revision: str) -> tuple[list[LabelledPair], Counter[str]]:
    """The language model's rewrites of human captions, unfiltered and labelled, and its failures by code."""
    import ray.data

    people = SyntheticPeople(config.people)
    count = min(config.rewrites, people.num_images)
    table = people.caption_table(0, count).take(list(range(0, 2 * count, 2)))  # the first caption of each image
    # One try, nothing filtered: the filter is what is to be calibrated.
    unfiltered = FaithfulnessConfig(model=config.encoder.model, revision=config.encoder.revision, alpha=-1, max_tries=1)
    environment = engine_environment(resolve_model(config.rewriter.model), config.rewriter.engine, config.rewriter.pool)
    with ray_session(config.ray), ray_data_execution(no_progress_timeout_s=config.no_progress_timeout_s):
        require_resources([pool_need("rewriter.pool", config.rewriter.pool)])
        fetch_models({"rewriter": (config.rewriter, config.rewriter.pool), "encoder": (config.encoder, config.rewriter.pool)})
        rewritten = (
            ray.data.from_arrow(conform(table, STAGED, origin="human captions"))
            .repartition(target_num_rows_per_block=config.rewriter.pool.batch_size)
            .map_batches(
                _RewritingActor,
                fn_constructor_args=(config.rewriter, unfiltered),
                fn_constructor_kwargs={"revision": revision},
                runtime_env={"env_vars": environment},
                **actor_pool(config.rewriter.pool),
            )
        )
        rows = [row for batch in rewritten.iter_batches(batch_size=None, batch_format="pyarrow") for row in _rows(batch)]
    truth = {row["image_id"]: (person, people.attributes(person, person + 1)[0]) for person, row in enumerate(table.to_pylist())}
    original = {row["caption_id"]: row["text"] for row in rows if row["kind"] == "human"}
    made = [row for row in rows if row["kind"] == "rewrite"]
    failed = Counter(str(row["reason"]).split(":")[0] for row in made if row["status"] == "failed")
    # People are numbered as in human_pairs, so that a person's pairs of every source fall into one half.
    step = config.people.images_per_identity
    pairs = [
        judge_rewrite(original[row["parent_id"]], row["text"], truth[row["image_id"]][1], truth[row["image_id"]][0] // step * step)
        for row in made
        if row["status"] != "failed"
    ]
    return pairs, failed


def _rows(batch: pa.Table) -> list[dict[str, Any]]:
    return batch.select(["caption_id", "image_id", "parent_id", "kind", "status", "text", "reason"]).to_pylist()


def _write_pairs(output: JobOutput, pairs: Sequence[LabelledPair], scores: dict[str, Any]) -> None:
    lines = [
        json.dumps(
            {
                "original": pair.original,
                "rewrite": pair.rewrite,
                "label": pair.label,
                "source": pair.source,
                "note": pair.note,
                "held_out": bool(pair.person % 2),  # see labelled_pairs.halves
                "cosine": round(float(scores["cosine"][i]), 4),
                "attributes": round(float(scores["attributes"][i]), 4),
                "explained": scores["explained"][i],
            },
            ensure_ascii=False,
        )
        for i, pair in enumerate(pairs)
    ]
    write_bytes(output.folder / PAIRS, ("\n".join(lines) + "\n").encode())


class _RewritingActor:
    """STAGED rows of captions -> the same rows and their rewrites; some dozens, so without a ledger."""

    def __init__(self, config: RewriterConfig, faithfulness: FaithfulnessConfig, *, revision: str) -> None:
        self._recipe = RewriteRecipe(config, faithfulness, revision=revision, scorer_revision="")
        self._rewriter = Rewriter(config, faithfulness, recipe=self._recipe, revision=revision)
        self._engine = start_engine(config, images=0, field="rewriter")
        self._scorer = SentenceEncoder(
            resolve_model(faithfulness.model, field="faithfulness.model"), revision=faithfulness.revision, device=faithfulness.device
        )

    def __call__(self, captions: pa.Table) -> pa.Table:
        wanted = [row | {"key": b""} for row in captions.to_pylist() if self._recipe.keys(row["caption_id"], b"")]
        made = run_in_rounds([self._rewriter.work(row) for row in wanted], self._engine, self._scorer)
        rows = [{name: value for name, value in row.items() if name != "key"} for each in made for row in each]
        return pa.concat_tables([captions.select(STAGED.names), staged_table(rows)])
