"""The caption job: for each captioner, read -> caption -> rewrite -> filter by faithfulness -> write; all into one table.

Knows the order of the stages and what is counted; each stage knows the rest. Every image ends in a caption or in a failed row with
a reason, and the manifest says how many of each.
"""

from __future__ import annotations

import time
from typing import Any

from reid_ray.caption.actors.caption_actor import CaptionActor
from reid_ray.caption.actors.rewrite_actor import RewriteActor
from reid_ray.caption.config import CaptionJob
from reid_ray.caption.engines.protocol import ChatEngine, StreamingEngine
from reid_ray.caption.engines.vllm_engine import model_facts
from reid_ray.caption.ledger.content_keys import digest
from reid_ray.caption.ledger.write_ahead_log import delete_ledger, open_ledger
from reid_ray.caption.mine.patterns import load_templates
from reid_ray.caption.passes import CaptionRun
from reid_ray.caption.plan.hours import Passes
from reid_ray.caption.plan.spent import Stages, planned_hours, planned_passes, resources, resources_in_words
from reid_ray.caption.plausibility.guesses import GUESSES, GuessCount
from reid_ray.caption.plausibility.job import PlausibilityCheck, said_of, score_trusted
from reid_ray.caption.plausibility.judgement import TrustedScore
from reid_ray.caption.plausibility.scores import refuse_absent_encoder
from reid_ray.caption.prompts import TEMPLATES
from reid_ray.caption.rows import STAGED
from reid_ray.caption.tally import Tally, run_facts
from reid_ray.config.common import PoolConfig
from reid_ray.data.execution import ray_data_execution
from reid_ray.data.images import DAMAGE
from reid_ray.data.labels.doubted_captions import PLAUSIBILITY
from reid_ray.data.labels.own_in_words import note_own, own_in_words
from reid_ray.data.labels.own_rows import OwnByPlace, own_by_place
from reid_ray.data.sources import image_listing
from reid_ray.errors import DataError
from reid_ray.model.hub_models import NamesModel, fetch_models, pinned
from reid_ray.own_columns import with_own
from reid_ray.records import CAPTIONS
from reid_ray.runtime import pool_need, ray_session, require_resources
from reid_ray.storage import JobOutput, TableWriter, read_manifest
from reid_ray.terminal.own_lines import say

CAPTIONS_FOLDER = "captions"


def run_caption(config: CaptionJob, *, engine: ChatEngine | StreamingEngine | None = None) -> dict[str, Any]:
    """Run the job of `config`; returns the manifest of its output folder, which holds captions/*.parquet.

    Rows that the ledger beside the output holds are not made again; see caption.ledger.

    Args:
        config: the job.
        engine: used by captioners and rewriter instead of vLLM engines of `config`; goes to the actors.

    Raises:
        ReidRayError: images, models or resources that the job cannot run with, before any actor starts; or another run of this
            output is alive.
    """
    config = _pinned(config)
    models, planned = _check_models(config), _planned(config)
    refuse_absent_encoder(config.plausibility, "plausibility")
    templates = {name: load_templates(c.templates) for name, c in config.captioners.items() if c.templates is not None}
    listing = image_listing(config.images, states=True)
    own_templates = {name: digest(sorted(wordings.items())) for name, wordings in templates.items()}
    own = own_by_place(config.images, listing, beside=STAGED) if listing.further else None
    images = listing.digest()
    inputs = {"images": listing.origin, "images_digest": images, **models} | ({"templates": own_templates} if own_templates else {})
    output = JobOutput(
        "caption", config.output.path, config, if_exists=config.output.if_exists, inputs=inputs, contents={"images.path": images}
    )
    with output.hold(), open_ledger(output.location) as ledger:
        if (finished := output.kept(stale=lambda earlier: _due(earlier, config))) is not None:
            return finished
        with ray_session(config.ray), output, ray_data_execution(no_progress_timeout_s=config.no_progress_timeout_s, in_order=False):
            _check_resources(config)
            if engine is None:
                _fetch_models(config)
            trusted = score_trusted(config.plausibility)
            run = CaptionRun(config, listing, ledger, models=models, templates=templates, engine=engine)
            output.facts["templates"] = sorted({id for name in config.captioners for id in templates.get(name, TEMPLATES)})
            clock = time.perf_counter()
            output.facts["ledger"] = run.make()
            output.timings["pipeline_seconds"] = time.perf_counter() - clock
            _publish(run, config, output, own, trusted)
            held = _held(run, config)
            output.facts["resources"] = resources(held, planned and planned_hours(*planned, run.made, _replicas(config)))
            carried = () if own is None else tuple(own.own.names)
            note_own(output, carried, listing.told)
            note_own(output, left := [name for name in listing.further if name not in carried], {}, carried=False)
            manifest = output.manifest()
        if not config.ledger.keep:
            delete_ledger(ledger)
    if held:
        say(f"caption: {resources_in_words(manifest['facts']['resources'], held)}")
    columns = own_in_words(carried, listing.told) + own_in_words(left, {}, carried=False)
    say(f"caption: images: {output.counts}; {_in_words(manifest['facts'])}{columns} -> {config.output.path}")
    for each in said_of(manifest["facts"]):
        say(f"caption: {each}")
    return manifest


def _stages(config: CaptionJob) -> list[str]:
    return [CaptionActor.stage, *([RewriteActor.stage] if config.rewriter.share else [])]


def _planned(config: CaptionJob) -> tuple[Passes, float] | None:
    if config.plan is None:
        return None
    return planned_passes(read_manifest(config.plan), config.captioners, stages=_stages(config), origin=config.plan)


def _held(run: CaptionRun, config: CaptionJob) -> dict[str, Stages]:
    """What the actors of each captioner's passes did, and what each of them held."""
    pools = {
        name: {CaptionActor.stage: section.pool, RewriteActor.stage: config.rewriter.pool} for name, section in config.captioners.items()
    }
    return {name: {stage: (facts, pools[name][stage]) for stage, facts in spent.items()} for name, spent in run.spent.items() if spent}


def _replicas(config: CaptionJob) -> dict[str, dict[str, int]]:
    return {
        name: {CaptionActor.stage: section.pool.replicas, RewriteActor.stage: config.rewriter.pool.replicas}
        for name, section in config.captioners.items()
    }


def _publish(run: CaptionRun, config: CaptionJob, output: JobOutput, own: OwnByPlace | None, trusted: TrustedScore | None) -> None:
    """Write the rows of all passes; an image counts once for each captioner.

    Raises:
        DataError: no captioner captioned any image; the ledger keeps what was tried.
    """
    tallies = {name: Tally() for name in run.names}
    check, guesses = PlausibilityCheck(config.plausibility, config.images, run.listing, trusted), GuessCount()
    with TableWriter(output.folder / CAPTIONS_FOLDER, CAPTIONS if own is None else with_own(CAPTIONS, own.own)) as writer:
        for name, tally in tallies.items():
            for table in run.rows(name, own):
                writer.append(table)
                tally.add(table)
                check.samples.add(table)
                guesses.add(table)
            output.counts.read += run.listing.count
            output.counts.written += tally.outcomes["ok"]
            output.counts.unused.update({code: count for code, count in tally.outcomes.items() if code != "ok"})
            if tally.images < run.listing.count:
                output.counts.unused["listed_twice"] += run.listing.count - tally.images
    if output.counts.read and not output.counts.written:
        total = Tally()
        for tally in tallies.values():
            total.merge(tally)
        raise DataError(
            f"{run.listing.origin}: not one image was captioned, so nothing is written: {total.why_none()}; mend that and run the command "
            "again, which tries what failed once more"
        )
    output.facts.update(run_facts(tallies, run.throughput))
    output.facts.update({PLAUSIBILITY: check.judged(), GUESSES: guesses.facts()})


def _due(manifest: dict[str, Any], config: CaptionJob) -> str | None:
    return "some of it failed, and ledger.retry_failed asks for it again" if config.ledger.retry_failed and _failed(manifest) else None


def _failed(manifest: dict[str, Any]) -> bool:
    """Whether a finished run holds failures that another run might mend."""
    captions, rewrites = manifest["facts"]["captions"], manifest["facts"]["rewrites"]
    return bool(rewrites["failed"]) or any(reason.split(": ")[-1] not in DAMAGE for reason in captions["failed"])


def _pinned(config: CaptionJob) -> CaptionJob:
    """With the commit of each hub model that is used."""
    captioners = {name: pinned(captioner, field=f"captioners.{name}.model") for name, captioner in config.captioners.items()}
    sections: dict[str, Any] = {"captioners": captioners}
    if config.rewriter.share:
        sections["rewriter"] = pinned(config.rewriter, field="rewriter.model")
        sections["faithfulness"] = pinned(config.faithfulness, field="faithfulness.model")
    return config.model_copy(update=sections)


def _check_models(config: CaptionJob) -> dict[str, Any]:
    """Name and revision of every model the job loads, captioners by their names; refuses what is not there."""
    captioners = {name: model_facts(captioner, f"captioners.{name}.model") for name, captioner in config.captioners.items()}
    if not config.rewriter.share:
        return {"captioners": captioners}
    return {
        "captioners": captioners,
        "rewriter": model_facts(config.rewriter, "rewriter.model"),
        "faithfulness": model_facts(config.faithfulness, "faithfulness.model"),
    }


def _check_resources(config: CaptionJob) -> None:
    """Each pass by itself: its captioner and the rewriter run at the same time."""
    rewriter = [pool_need("rewriter.pool", config.rewriter.pool)] if config.rewriter.share else []
    for name, captioner in config.captioners.items():
        require_resources([pool_need(f"captioners.{name}.pool", captioner.pool), *rewriter])


def _fetch_models(config: CaptionJob) -> None:
    sections: dict[str, tuple[NamesModel, PoolConfig]] = {f"captioners.{name}": (c, c.pool) for name, c in config.captioners.items()}
    if config.rewriter.share:
        sections |= {"rewriter": (config.rewriter, config.rewriter.pool), "faithfulness": (config.faithfulness, config.rewriter.pool)}
    fetch_models(sections)


def _in_words(facts: dict[str, Any]) -> str:
    rewrites = facts["rewrites"]
    return (
        f"captions: {sum(facts['captions']['ok'].values())}; rewrites: asked {rewrites['asked']}, accepted {rewrites['accepted']}, "
        f"unfaithful {rewrites['unfaithful']}, failed {rewrites['failed']}"
    )
