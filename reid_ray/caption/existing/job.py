"""The rewrite job: captions that exist -> a language model's rewrites of them, filtered by faithfulness; all into one table.

Knows what is checked, counted and published; each step knows the rest. The output holds every caption of the table that it read, unchanged
and in its order, each rewritten one followed by its rewrites, so that training, report and refilter take it alone. Rewrites that the table
held are left out of it, and counted.
"""

from __future__ import annotations

import time
from typing import Any

from reid_ray.caption.actors.rewrite_actor import RewriteActor
from reid_ray.caption.engines.protocol import ChatEngine, StreamingEngine
from reid_ray.caption.engines.vllm_engine import model_facts
from reid_ray.caption.existing.asked import ASKED
from reid_ray.caption.existing.config import RewriteJob
from reid_ray.caption.existing.table_pass import TablePass
from reid_ray.caption.ledger.write_ahead_log import delete_ledger, open_ledger
from reid_ray.caption.plan.spent import resources, resources_in_words
from reid_ray.caption.plausibility.job import TextCheck, said_of
from reid_ray.caption.tally import Tally
from reid_ray.data.execution import ray_data_execution
from reid_ray.data.labels.doubted_captions import note_doubted
from reid_ray.data.labels.own_in_words import note_own, own_in_words
from reid_ray.data.labels.own_of_files import names_beside
from reid_ray.errors import DataError
from reid_ray.model.hub_models import fetch_models, pinned
from reid_ray.records import CAPTIONS
from reid_ray.runtime import pool_need, ray_session, require_resources
from reid_ray.storage import JobOutput, TableWriter, parquet_files
from reid_ray.terminal.own_lines import say

CAPTIONS_FOLDER = "captions"


def run_rewrite(config: RewriteJob, *, engine: ChatEngine | StreamingEngine | None = None) -> dict[str, Any]:
    """Run the job of `config`; returns the manifest of its output folder, which holds captions/*.parquet.

    Rewrites that the ledger beside the output holds are not made again; see caption.ledger.

    Args:
        config: the job.
        engine: used instead of a vLLM engine of `config`; goes to the actors.

    Raises:
        ReidRayError: a table, models or resources that the job cannot run with, before any actor starts; no caption of the table is
            asked for, or no rewrite could be made; or another run of this output is alive.
    """
    parquet_files(config.captions.path)
    sections = {
        "rewriter": pinned(config.rewriter, field="rewriter.model"),
        "faithfulness": pinned(config.faithfulness, field="faithfulness.model"),
    }
    config = config.model_copy(update=sections)
    models = {
        "rewriter": model_facts(config.rewriter, "rewriter.model"),
        "faithfulness": model_facts(config.faithfulness, "faithfulness.model"),
    }
    inputs = {"captions": config.captions.path, **models}
    output = JobOutput("rewrite", config.output.path, config, if_exists=config.output.if_exists, inputs=inputs)
    with output.hold(), open_ledger(output.location) as ledger:
        if (finished := output.kept(stale=lambda earlier: _due(earlier, config))) is not None:
            return finished
        with ray_session(config.ray), output, ray_data_execution(no_progress_timeout_s=config.no_progress_timeout_s, in_order=False):
            note_doubted(output, [config.captions.path])
            require_resources([pool_need("rewriter.pool", config.rewriter.pool)])
            fetch_models({"rewriter": (config.rewriter, config.rewriter.pool), "faithfulness": (config.faithfulness, config.rewriter.pool)})
            run = TablePass(config, ledger, models=models, engine=engine)
            _refuse_nothing_asked(run, config)
            clock = time.perf_counter()
            output.facts["ledger"] = run.make()
            output.timings["pipeline_seconds"] = time.perf_counter() - clock
            _publish(run, output, config)
            held = {"rewrite": {RewriteActor.stage: (run.spent, config.rewriter.pool)}} if run.spent.actor_seconds else {}
            output.facts["resources"] = resources(held, None)
            own = names_beside(config.captions.path, CAPTIONS)
            note_own(output, own, {}, carried=False)
            manifest = output.manifest()
        if not config.ledger.keep:
            delete_ledger(ledger)
    if held:
        say(f"rewrite: {resources_in_words(manifest['facts']['resources'], held)}")
    say(f"rewrite: captions: {output.counts}; {_in_words(manifest['facts'])}{own_in_words(own, {}, carried=False)} -> {config.output.path}")
    for each in said_of(manifest["facts"]):
        say(f"rewrite: {each}")
    return manifest


def _publish(run: TablePass, output: JobOutput, config: RewriteJob) -> None:
    """Write the table's captions and their rewrites.

    Raises:
        DataError: not one rewrite has a text; the ledger keeps what was tried.
    """
    tally, check = Tally(), TextCheck(config.plausibility)
    with TableWriter(output.folder / CAPTIONS_FOLDER, CAPTIONS) as writer:
        for table in run.rows():
            writer.append(table)
            tally.add_rewrites(table)
            check.add(table)
    output.counts.read = run.count
    output.counts.written = writer.rows - tally.rewrites_asked
    if (left_out := run.outcomes["earlier_rewrite"]) > 0:
        output.counts.unused["earlier_rewrite"] = left_out
    rewrites = tally.rewrites()
    if not rewrites["accepted"] and not rewrites["unfaithful"]:
        raise DataError(
            f"{config.captions.path}: not one of {rewrites['asked']} rewrites could be made, so nothing is written: "
            f"{tally.why_no_rewrite()}; mend that and run the command again, which tries what failed once more"
        )
    not_asked = {code: count for code, count in sorted(run.outcomes.items()) if code not in (ASKED, "earlier_rewrite")}
    output.facts.update(
        check.facts(),
        captions={"asked": run.outcomes[ASKED], "not_asked": not_asked},
        rewrites=rewrites,
        passes={"rewrite": {"captioner": None, "rewriter": tally.pass_facts()["rewriter"], "throughput": None}},
    )


def _refuse_nothing_asked(run: TablePass, config: RewriteJob) -> None:
    if not run.outcomes[ASKED]:
        why = ", ".join(f"{code} {count}" for code, count in sorted(run.outcomes.items())) or "it has no row"
        raise DataError(
            f"{config.captions.path}: holds no caption of splits {config.captions.splits} and kinds {config.captions.kinds} ({why}); set "
            "captions.splits, in which null stands for captions without a split, and captions.kinds to what the table holds"
        )


def _due(manifest: dict[str, Any], config: RewriteJob) -> str | None:
    failed = manifest["facts"]["rewrites"]["failed"]
    return "some of it failed, and ledger.retry_failed asks for it again" if config.ledger.retry_failed and failed else None


def _in_words(facts: dict[str, Any]) -> str:
    rewrites = facts["rewrites"]
    return (
        f"rewrites: asked {rewrites['asked']}, generated {rewrites['generated']}, accepted {rewrites['accepted']}, "
        f"unfaithful {rewrites['unfaithful']}, failed {rewrites['failed']}"
    )
