"""The caption job: read -> caption -> rewrite -> keep the faithful -> write.

Knows the order of the stages and what is counted; each stage knows the rest. Every image ends in a caption or in a failed row with
a reason, and the manifest says how many of each.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.caption.captioning import Captioner
from reid_ray.caption.engine import engine_environment
from reid_ray.caption.identity import digest
from reid_ray.caption.mining import load_templates
from reid_ray.caption.prompts import TEMPLATES
from reid_ray.caption.rewriting import Rewriter
from reid_ray.config.caption import CaptionerConfig, CaptionJob, FaithfulnessConfig, RewriterConfig
from reid_ray.data.execution import actor_pool, ray_data_execution
from reid_ray.data.sources import ImageListing, image_listing, read_images
from reid_ray.errors import DataError
from reid_ray.progress import progress_bar
from reid_ray.records import CAPTIONS
from reid_ray.runtime import pool_need, ray_session, require_resources
from reid_ray.setup.models import model_revision, resolve_model
from reid_ray.storage import JobOutput, TableWriter

if TYPE_CHECKING:
    import ray.data

CAPTIONS_FOLDER = "captions"


def run_caption(config: CaptionJob) -> dict[str, Any]:
    """Run the job of `config`; returns the manifest of its output folder, which holds captions/*.parquet.

    Raises:
        ReidRayError: images, models or resources that the job cannot run with, before any actor starts.
    """
    models = _check_models(config)
    templates = load_templates(config.captioner.templates) if config.captioner.templates is not None else None
    listing = image_listing(config.images)
    inputs = {"images": listing.origin, **models} | ({} if templates is None else {"templates": digest(sorted(templates.items()))})
    output = JobOutput("caption", config.output.path, config, if_exists=config.output.if_exists, inputs=inputs)
    finished = output.finished()
    if finished is not None and finished["inputs"] == inputs:
        print(f"caption: {config.output.path} holds this run already")
        return finished

    with ray_session(config.ray), output, ray_data_execution(no_progress_timeout_s=config.no_progress_timeout_s):
        _check_resources(config)
        images = read_images(config.images, listing=listing)
        captions = _caption(images, config, models["captioner"]["revision"], templates)
        if config.rewriter.share:
            captions = _rewrite(captions, config, models["rewriter"]["revision"])
        output.facts["templates"] = sorted(TEMPLATES if templates is None else templates)
        _write(captions, output, listing)
        manifest = output.manifest()
    print(f"caption: {output.counts} images; {_in_words(manifest['facts'])} -> {config.output.path}")
    return manifest


def _caption(images: ray.data.Dataset, config: CaptionJob, revision: str, templates: dict[str, str] | None) -> ray.data.Dataset:
    return images.map_batches(
        Captioner,
        fn_constructor_args=(config.captioner,),
        fn_constructor_kwargs={"revision": revision, "max_pixels": config.images.max_pixels, "templates": templates},
        runtime_env=_environment(config.captioner, "captioner.model"),
        **actor_pool(config.captioner.pool),
    )


def _rewrite(captions: ray.data.Dataset, config: CaptionJob, revision: str) -> ray.data.Dataset:
    """Rewriting and keeping the faithful are one stage: an unfaithful rewrite is drawn again on the spot."""
    return captions.map_batches(
        Rewriter,
        fn_constructor_args=(config.rewriter, config.faithfulness),
        fn_constructor_kwargs={"revision": revision},
        runtime_env=_environment(config.rewriter, "rewriter.model"),
        **actor_pool(config.rewriter.pool),
    )


def _write(captions: ray.data.Dataset, output: JobOutput, listing: ImageListing) -> None:
    tally = _Tally()
    clock = time.perf_counter()
    with (
        TableWriter(output.folder / CAPTIONS_FOLDER, CAPTIONS) as writer,
        progress_bar("caption", listing.count) as bar,
    ):
        for table in captions.iter_batches(batch_size=None, batch_format="pyarrow"):
            writer.append(table)
            bar.update(tally.add(table))
            bar.set_postfix_str(f"{tally.failed_images} failed, {tally.kinds['rewrite ok']} rewrites")
    output.timings["pipeline_seconds"] = time.perf_counter() - clock
    output.counts.read = tally.images
    output.counts.written = tally.outcomes.pop("ok", 0)
    output.counts.failed.update(tally.outcomes)
    output.facts.update(tally.facts())
    if tally.images != listing.count:
        raise DataError(
            f"{listing.origin}: {listing.count} images were listed but {tally.images} came through; it changed while being read"
        )


class _Tally:
    """Sums what the private columns say, table by table."""

    def __init__(self) -> None:
        self.images = 0
        self.outcomes: Counter[str] = Counter()  # of images: ok, or the code of the failure
        self.kinds: Counter[str] = Counter()  # of rows: "static ok", "rewrite unfaithful", ...
        self._reasons: Counter[str] = Counter()  # of captions that failed though their image may have another
        self._sums: Counter[str] = Counter()
        self._startup = {"captioner": 0.0, "rewriter": 0.0}

    @property
    def failed_images(self) -> int:
        return self.images - self.outcomes["ok"]

    def add(self, table: pa.Table) -> int:
        """Count a STAGED table; returns how many images it completes."""
        outcomes = table["image_outcome"].drop_null().to_pylist()
        self.images += len(outcomes)
        self.outcomes.update(outcomes)
        self.kinds.update(f"{kind} {status}" for kind, status in _pairs(table, "kind", "status"))
        is_rewrite = pc.equal(table["kind"], "rewrite")
        failed = table.filter(pc.and_(pc.equal(table["status"], "failed"), pc.invert(is_rewrite)))
        self._reasons.update(f"{kind}: {reason.split(':')[0]}" for kind, reason in _pairs(failed, "kind", "reason"))
        for stage, rows in (("captioner", table.filter(pc.invert(is_rewrite))), ("rewriter", table.filter(is_rewrite))):
            for name in ("tokens", "seconds", "tries"):
                self._sums[f"{stage} {name}"] += pc.sum(rows[name]).as_py() or 0
            self._startup[stage] = max(self._startup[stage], pc.max(rows["startup_seconds"]).as_py() or 0.0)
            if stage == "rewriter":
                accepted = rows.filter(pc.equal(rows["status"], "ok"))
                self._sums["faithfulness"] += pc.sum(accepted["faithfulness"]).as_py() or 0
        return len(outcomes)

    def facts(self) -> dict[str, Any]:
        """The manifest's facts: captions and rewrites by outcome, and what a second of an actor yields, its start apart."""
        accepted, unfaithful, failed = (self.kinds[f"rewrite {status}"] for status in ("ok", "unfaithful", "failed"))
        return {
            "generated": int(self._sums["captioner tries"]),  # answers asked for captions, retries with another template included
            "captions": {
                "ok": {kind: self.kinds[f"{kind} ok"] for kind in ("static", "dynamic")},
                "failed": dict(sorted(self._reasons.items())),
            },
            "rewrites": {
                "asked": accepted + unfaithful + failed,
                "generated": int(self._sums["rewriter tries"]),
                "accepted": accepted,
                "unfaithful": unfaithful,
                "failed": failed,
                "mean_faithfulness": self._sums["faithfulness"] / accepted if accepted else None,
            },
            "speed_per_actor": {
                "captioner": self._speed("captioner", images=self.images),
                "rewriter": self._speed("rewriter", rewrites=accepted + unfaithful + failed),
            },
        }

    def _speed(self, stage: str, **made: int) -> dict[str, float]:
        seconds = self._sums[f"{stage} seconds"]
        rates = {f"{name}_per_second": number / seconds if seconds else 0.0 for name, number in made.items()}
        tokens = {"tokens_per_second": self._sums[f"{stage} tokens"] / seconds if seconds else 0.0}
        return {"startup_seconds": self._startup[stage], "busy_seconds": seconds, **rates, **tokens}


def _pairs(table: pa.Table, first: str, second: str) -> Iterable[tuple[str, str]]:
    return zip(table[first].to_pylist(), table[second].to_pylist(), strict=True)


def _check_models(config: CaptionJob) -> dict[str, dict[str, str]]:
    """Name and revision of every model the job loads; refuses what is not there."""
    wanted: dict[str, CaptionerConfig | RewriterConfig | FaithfulnessConfig] = {"captioner": config.captioner}
    if config.rewriter.share:
        wanted |= {"rewriter": config.rewriter, "faithfulness": config.faithfulness}
    models = {}
    for name, section in wanted.items():
        field = f"{name}.model"
        resolved = resolve_model(section.model, field=field)
        models[name] = {"model": section.model, "revision": model_revision(resolved, revision=section.revision, field=field)}
    return models


def _check_resources(config: CaptionJob) -> None:
    needs = [pool_need("captioner.pool", config.captioner.pool)]
    if config.rewriter.share:
        needs.append(pool_need("rewriter.pool", config.rewriter.pool))
    require_resources(needs)


def _environment(section: CaptionerConfig | RewriterConfig, field: str) -> dict[str, Any]:
    return {"env_vars": engine_environment(resolve_model(section.model, field=field), section.engine, section.pool)}


def _in_words(facts: dict[str, Any]) -> str:
    rewrites = facts["rewrites"]
    return (
        f"{sum(facts['captions']['ok'].values())} captions, {rewrites['accepted']} of {rewrites['asked']} rewrites accepted, "
        f"{rewrites['unfaithful']} unfaithful, {rewrites['failed']} failed"
    )
