"""The caption job: for each captioner, read -> caption -> rewrite -> keep the faithful -> write; all into one table.

Knows the order of the stages and what is counted; each stage knows the rest. Every image ends in a caption or in a failed row with
a reason, and the manifest says how many of each.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from reid_ray.caption.captioning import Captioner
from reid_ray.caption.engine import engine_environment
from reid_ray.caption.identity import digest
from reid_ray.caption.mining import load_templates
from reid_ray.caption.prompts import TEMPLATES
from reid_ray.caption.rewriting import Rewriter
from reid_ray.caption.tally import Tally, run_facts
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
    templates = {name: load_templates(c.templates) for name, c in config.captioners.items() if c.templates is not None}
    listing = image_listing(config.images)
    own = {name: digest(sorted(wordings.items())) for name, wordings in templates.items()}
    inputs = {"images": listing.origin, **models} | ({"templates": own} if own else {})
    output = JobOutput("caption", config.output.path, config, if_exists=config.output.if_exists, inputs=inputs)
    finished = output.finished()
    if finished is not None and finished["inputs"] == inputs:
        print(f"caption: {config.output.path} holds this run already")
        return finished

    with ray_session(config.ray), output, ray_data_execution(no_progress_timeout_s=config.no_progress_timeout_s):
        _check_resources(config)
        # One captioner after the other: each has the whole cluster, so models that do not fit together need not.
        passes = {name: _pass(name, config, listing, revisions=models, templates=templates.get(name)) for name in config.captioners}
        output.facts["templates"] = sorted({id for name in config.captioners for id in templates.get(name, TEMPLATES)})
        _write(passes, output, listing)
        manifest = output.manifest()
    print(f"caption: {output.counts} images; {_in_words(manifest['facts'])} -> {config.output.path}")
    return manifest


def _pass(
    name: str, config: CaptionJob, listing: ImageListing, *, revisions: dict[str, Any], templates: dict[str, str] | None
) -> ray.data.Dataset:
    """All images through one captioner and the rewriter; lazy: nothing starts before it is read."""
    captioner = config.captioners[name]
    captions = read_images(config.images, listing=listing).map_batches(
        Captioner,
        fn_constructor_args=(name, captioner),
        fn_constructor_kwargs={
            "revision": revisions["captioners"][name]["revision"],
            "max_pixels": config.images.max_pixels,
            "templates": templates,
        },
        runtime_env=_environment(captioner, f"captioners.{name}.model"),
        **actor_pool(captioner.pool),
    )
    return _rewrite(captions, config, revisions["rewriter"]["revision"]) if config.rewriter.share else captions


def _rewrite(captions: ray.data.Dataset, config: CaptionJob, revision: str) -> ray.data.Dataset:
    """Rewriting and keeping the faithful are one stage: an unfaithful rewrite is drawn again on the spot."""
    return captions.map_batches(
        Rewriter,
        fn_constructor_args=(config.rewriter, config.faithfulness),
        fn_constructor_kwargs={"revision": revision},
        runtime_env=_environment(config.rewriter, "rewriter.model"),
        **actor_pool(config.rewriter.pool),
    )


def _write(passes: dict[str, ray.data.Dataset], output: JobOutput, listing: ImageListing) -> None:
    """Run the passes in their order and write their rows; an image counts once for each captioner."""
    tallies = {name: Tally() for name in passes}
    clock = time.perf_counter()
    with (
        TableWriter(output.folder / CAPTIONS_FOLDER, CAPTIONS) as writer,
        progress_bar("caption", listing.count * len(passes)) as bar,
    ):
        for name, captions in passes.items():
            tally = tallies[name]
            for table in captions.iter_batches(batch_size=None, batch_format="pyarrow"):
                writer.append(table)
                bar.update(tally.add(table))
                bar.set_postfix_str(f"{name}: {tally.images - tally.outcomes['ok']} failed, {tally.kinds['rewrite ok']} rewrites")
            if tally.images != listing.count:
                raise DataError(
                    f"{listing.origin}: {listing.count} images were listed but {tally.images} came through; it changed while being read"
                )
    output.timings["pipeline_seconds"] = time.perf_counter() - clock
    for tally in tallies.values():
        output.counts.read += tally.images
        output.counts.written += tally.outcomes["ok"]
        output.counts.failed.update({code: count for code, count in tally.outcomes.items() if code != "ok"})
    output.facts.update(run_facts(tallies))


def _check_models(config: CaptionJob) -> dict[str, Any]:
    """Name and revision of every model the job loads, captioners by their names; refuses what is not there."""
    captioners = {name: _checked(captioner, f"captioners.{name}.model") for name, captioner in config.captioners.items()}
    if not config.rewriter.share:
        return {"captioners": captioners}
    return {
        "captioners": captioners,
        "rewriter": _checked(config.rewriter, "rewriter.model"),
        "faithfulness": _checked(config.faithfulness, "faithfulness.model"),
    }


def _checked(section: CaptionerConfig | RewriterConfig | FaithfulnessConfig, field: str) -> dict[str, str]:
    resolved = resolve_model(section.model, field=field)
    return {"model": section.model, "revision": model_revision(resolved, revision=section.revision, field=field)}


def _check_resources(config: CaptionJob) -> None:
    """Each pass by itself: its captioner and the rewriter run at the same time."""
    rewriter = [pool_need("rewriter.pool", config.rewriter.pool)] if config.rewriter.share else []
    for name, captioner in config.captioners.items():
        require_resources([pool_need(f"captioners.{name}.pool", captioner.pool), *rewriter])


def _environment(section: CaptionerConfig | RewriterConfig, field: str) -> dict[str, Any]:
    return {"env_vars": engine_environment(resolve_model(section.model, field=field), section.engine, section.pool)}


def _in_words(facts: dict[str, Any]) -> str:
    rewrites = facts["rewrites"]
    return (
        f"{sum(facts['captions']['ok'].values())} captions, {rewrites['accepted']} of {rewrites['asked']} rewrites accepted, "
        f"{rewrites['unfaithful']} unfaithful, {rewrites['failed']} failed"
    )
