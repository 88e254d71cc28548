"""The edit job: plan -> draw -> verify -> draw again -> describe -> publish: images/, captions/ and edits/ of people who are new.

Knows the order of the steps and what is counted; each step knows the rest. Every edit that was asked for ends in a picture or in a reason,
and the manifest says how many of each.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from reid_ray.caption.engines.protocol import ChatEngine, StreamingEngine
from reid_ray.caption.engines.vllm_engine import model_facts
from reid_ray.caption.ledger.content_keys import digest
from reid_ray.caption.ledger.write_ahead_log import delete_ledger, open_ledger
from reid_ray.data.execution import ray_data_execution
from reid_ray.data.images import DAMAGE
from reid_ray.data.labels.doubted_captions import note_doubted
from reid_ray.data.labels.own_in_words import note_own, own_in_words
from reid_ray.data.sources import ImageListing, image_listing
from reid_ray.edit.changes.edit_plans import PlannedRun, plan_edits
from reid_ray.edit.config import EditJob, EditorConfig, VerifierConfig
from reid_ray.edit.edit_captions import CaptionByModel
from reid_ray.edit.edit_passes import EditRun, listed_keys
from reid_ray.edit.edit_rows import CAPTION, EDIT, EDIT_ROWS, EditRecipe
from reid_ray.edit.edit_work import EditSetting
from reid_ray.edit.edited_tables import EditTables
from reid_ray.edit.page import EditSheet
from reid_ray.edit.picture_check import PictureVerifier
from reid_ray.errors import DataError
from reid_ray.model.editor.edit_request import PictureEditor
from reid_ray.model.hub_models import fetch_models, pinned
from reid_ray.model.model_files import local_folder, model_revision, resolve_model
from reid_ray.runtime import pool_need, ray_session, require_resources
from reid_ray.storage import JobOutput
from reid_ray.terminal.own_lines import say

_EDITOR_FILES = ("*.json", "*.txt", "*.safetensors")  # of one at a hub


def run_edit(
    config: EditJob,
    *,
    editor: PictureEditor | None = None,
    verifier: PictureVerifier | None = None,
    engine: ChatEngine | StreamingEngine | None = None,
) -> dict[str, Any]:
    """Run the job of `config`; returns the manifest of its output folder, which holds images/, captions/ and edits/.

    Rows that the ledger beside the output holds are not made again; see caption.ledger.

    Args:
        config: the job.
        editor: used instead of the one that `config` names; goes to the actors.
        verifier: used instead of the one that `config` names; goes to the actors.
        engine: used instead of a vLLM engine of `config`; goes to the actors.

    Raises:
        ReidRayError: tables, models or resources that the job cannot run with, before any actor starts; or another run of this output is
            alive.
    """
    if config.rewriter.share:
        config = config.model_copy(update={"rewriter": pinned(config.rewriter, field="rewriter.model")})
    setting, recipe = _setting(config, editor, verifier)
    model = model_facts(config.rewriter, "rewriter.model") if config.rewriter.share else None
    captions = CaptionByModel(config.rewriter, revision=model["revision"]) if model is not None else None
    listing = image_listing(config.images, states=True)
    images = listing.digest()
    inputs = _inputs(config, listing, images, recipe) | ({} if model is None else {"rewriter": model})
    output = JobOutput(
        "edit", config.output.path, config, if_exists=config.output.if_exists, inputs=inputs, contents={"images.path": images}
    )
    with output.hold(), open_ledger(output.location, EDIT_ROWS) as ledger:
        if (finished := output.kept(stale=lambda earlier: _due(earlier, config))) is not None:
            return finished
        planned = plan_edits(config, recipe, captions, listed_keys(listing))
        with ray_session(config.ray), output, ray_data_execution(no_progress_timeout_s=config.no_progress_timeout_s, in_order=False):
            note_doubted(output, [config.captions])
            _require(config, rewrites=captions is not None, fetches=engine is None)
            revision = "" if model is None else model["revision"]
            run = EditRun(config, listing, planned, ledger, setting=setting, captions=captions, revision=revision, engine=engine)
            clock = time.perf_counter()
            output.facts["ledger"] = run.make()
            output.timings["pipeline_seconds"] = time.perf_counter() - clock
            _publish(run, planned, listing, output, config)
            note_own(output, listing.further, listing.told, carried=False)
            manifest = output.manifest()
        if not config.ledger.keep:
            delete_ledger(ledger)
    left = own_in_words(listing.further, listing.told, carried=False)
    say(f"edit: edits: {output.counts}; captions: {_in_words(manifest['facts']['captions'])}{left} -> {config.output.path}")
    return manifest


def _inputs(config: EditJob, listing: ImageListing, images_digest: str, recipe: EditRecipe) -> dict[str, Any]:
    """What the edits are made of, for the manifest."""
    return {
        "images": listing.origin,
        "images_digest": images_digest,
        "captions": config.captions,
        "segments": config.segments,
        "references": config.references,
        "editor": {"model": _name_of(config.editor), "revision": recipe.editor},
    }


def _require(config: EditJob, *, rewrites: bool, fetches: bool) -> None:
    """Refuse what the cluster has no room for; have the rewriter's weights where its actors will start.

    Raises:
        ReidRayError: a pool that does not fit, or weights that cannot be had.
    """
    require_resources([pool_need("editor.pool", config.editor.pool)])
    if rewrites:
        require_resources([pool_need("rewriter.pool", config.rewriter.pool)])
        if fetches:
            fetch_models({"rewriter": (config.rewriter, config.rewriter.pool)})


def _publish(run: EditRun, planned: PlannedRun, listing: ImageListing, output: JobOutput, config: EditJob) -> None:
    """Write the tables and the page.

    Raises:
        DataError: not one edit stands; the ledger keeps what was tried.
    """
    sheet = EditSheet(config, planned.table.num_rows)
    with EditTables(output.folder, config.rewriter.model) as tables:
        for rows in run.rows():
            tables.add(rows)
            sheet.see(rows)
    counts = output.counts
    counts.read = listing.count * config.changes.per_image
    counts.written = tables.tally.with_status(EDIT, "ok")
    counts.unused.update(_why_not(run, planned, listing, config, tables))
    if not counts.written:
        raise DataError(
            f"{listing.origin}: not one of {counts.read} edits stands, so nothing is written: {_commonest(counts.unused)}; mend that and "
            "run the command again, which tries what failed once more"
        )
    if config.page_edits:
        sheet.write(output.folder, listing, tables.tally.facts(EDIT))
    output.facts.update(
        edits=tables.tally.facts(EDIT),
        captions=tables.caption_facts(),
        new_people=tables.new_people,
        bank={"references": dict(sorted(planned.bank.items())), "looks": planned.looks},
        throughput={kind: run.tally.facts(kind) for kind in (EDIT, CAPTION)},
    )


def _why_not(run: EditRun, planned: PlannedRun, listing: ImageListing, config: EditJob, tables: EditTables) -> Counter[str]:
    """Of the edits that were asked for, those without a picture, by reason."""
    failed = Counter[str]()
    for (status, code), count in tables.tally.outcomes[EDIT].items():
        if status != "ok":
            failed[code] += count
    failed.update(planned.refused)
    failed["not_in_share"] += planned.not_in_share * config.changes.per_image
    failed["not_among_images"] += int(run.absent.sum())
    # Images that the segments do not tell of are known by number alone.
    failed["not_segmented"] += listing.count * config.changes.per_image - failed.total() - tables.tally.with_status(EDIT, "ok")
    return +failed


def _due(manifest: dict[str, Any], config: EditJob) -> str | None:
    facts = manifest["facts"]
    failed = [
        name.removeprefix("failed: ") for kind in ("edits", "captions") for name in facts[kind]["not_ok"] if name.startswith("failed")
    ]
    again = config.ledger.retry_failed and any(name not in DAMAGE for name in failed)
    return "some of it failed, and ledger.retry_failed asks for it again" if again else None


def _commonest(failed: Counter[str]) -> str:
    (code, count), *_ = failed.most_common(1) or [("unknown", 0)]
    return f"{count} are {code}"


def _in_words(captions: dict[str, Any]) -> str:
    return f"by a language model {captions['by_model']}, by rule {captions['by_rule']}"


def _setting(config: EditJob, editor: PictureEditor | None, verifier: PictureVerifier | None) -> tuple[EditSetting, EditRecipe]:
    """For the actors, and what identifies what they make; nothing is loaded here."""
    if editor is None:
        revision, sampling, opened = _named_editor(config.editor)
    else:
        revision, sampling, opened = editor.revision, editor.sampling, partial(_given, editor)
    judged, judge = (verifier.revision, partial(_given, verifier)) if verifier is not None else _named_verifier(config.verifier)
    recipe = EditRecipe(
        editor=revision,
        sampling=sampling,
        verifier=judged,
        checks=digest("checks", config.changes.tries, config.verifier.limits.model_dump(mode="json")),
    )
    setting = EditSetting(
        editor=(_name_of(config.editor), revision, sampling),
        open_editor=opened,
        open_verifier=judge,
        tells=config.editor.published is not None,
        tries=config.changes.tries,
        seed=config.changes.seed,
        max_pixels=config.images.max_pixels,
    )
    return setting, recipe


def _name_of(config: EditorConfig) -> str:
    return config.model if config.published is None else config.published.model


def _named_editor(config: EditorConfig) -> tuple[str, str, Callable[[], PictureEditor]]:
    """(revision, fingerprint of the sampling, what opens it in an actor); what the sampling leaves to the editor is in its revision."""
    drawing = config.drawing.model_dump(mode="json", exclude={"batch_size"})
    if config.published is not None:
        pipeline = config.published.model_dump(mode="json")
        revision = model_revision(config.published.model, field="editor.published.model")
        return revision, digest("drawing", drawing, pipeline)[:16], partial(_open_published, config)
    field = "editor.model"
    shipped = config.model.startswith("builtin:")
    folder = resolve_model(config.model, field=field) if shipped else str(local_folder(config.model, field=field, patterns=_EDITOR_FILES))
    return model_revision(folder, field=field), digest("drawing", drawing)[:16], partial(_open_editor, folder, config)


def _open_editor(folder: str, config: EditorConfig) -> PictureEditor:
    from reid_ray.model.editor.reference_editor import Editor

    return Editor.open(folder, config.drawing, device=_device(config))


def _open_published(config: EditorConfig) -> PictureEditor:
    from reid_ray.model.editor.published_editor import PublishedEditor

    assert config.published is not None
    return PublishedEditor.open(config.published, config.drawing, device=_device(config))


def _named_verifier(config: VerifierConfig) -> tuple[str, Callable[[], PictureVerifier | None]]:
    """(revision, what opens it in an actor)."""
    if config.model is None:
        return "none", partial(_given, None)
    return _open_verifier(config).revision, partial(_open_verifier, config)


def _open_verifier(config: VerifierConfig) -> PictureVerifier:
    from reid_ray.edit.verify.verifier import Verifier

    assert config.model is not None
    return Verifier.open(config.model, config.limits)


def _device(config: EditorConfig) -> str:
    return "cuda" if config.pool.num_gpus else "cpu"


def _given(part: Any) -> Any:
    return part
