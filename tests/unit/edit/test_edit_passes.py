"""An edit run without Ray: the same actors, filters and tables in this process, from the plan to the page."""

import json

import numpy as np
import pyarrow as pa
import pytest
from refusals import refused

from benchmarks.edit_engines.scripted_parts import FillingEditor, LotVerifier, RuleWriter
from benchmarks.edit_engines.small_world import edit_config, write_world
from reid_ray.caption.actors.engine_actor import PassPlace
from reid_ray.caption.ledger.attempt_board import AttemptBoard
from reid_ray.caption.ledger.write_ahead_log import as_keys, open_ledger, read_index
from reid_ray.data.sources import image_listing
from reid_ray.edit.changes.edit_plans import plan_edits, used_references
from reid_ray.edit.edit_actors import DescribeActor, EditActor
from reid_ray.edit.edit_captions import CaptionByModel
from reid_ray.edit.edit_passes import EditRun, PlannedImages, edits_of_file
from reid_ray.edit.edit_rows import CAPTION, EDIT, EDIT_ROWS, EditRecipe
from reid_ray.edit.edit_work import EditSetting
from reid_ray.edit.edited_tables import EditTables
from reid_ray.edit.page import EditSheet
from reid_ray.errors import DataError
from reid_ray.records import CAPTIONS, EDITS, IMAGES
from reid_ray.storage import read_table


class _Here:
    """An object that needs no fetching."""

    def __init__(self, held):
        self._held = held

    def get(self):
        return self._held


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder with the three tables and the page, the plans, the world, the tables' writer) of two edits of each image."""
    world, out = tmp_path_factory.mktemp("world"), tmp_path_factory.mktemp("out")
    write_world(world)
    config = edit_config(world, out / "run", changes__per_image=2, rewriter__share=1)
    captions = CaptionByModel(config.rewriter, revision="r")
    planned = plan_edits(config, EditRecipe("e", "s", "v", "c"), captions)
    listing = image_listing(config.images)
    verifier = LotVerifier(0.4)
    setting = EditSetting(("tiny", "r", "s"), FillingEditor, lambda: verifier, tells=False, tries=3, seed=0, max_pixels=10**7)
    with open_ledger(out / "run", EDIT_ROWS) as ledger:
        run = EditRun(config, listing, planned, ledger, setting=setting, captions=captions, revision="r", engine=None)
        actor = EditActor(
            setting,
            config.editor,
            place=PassPlace(ledger, AttemptBoard(), config.ledger, "editor"),
            references=_Here(used_references(config.references, planned.table)),
        )
        claim = PlannedImages(_Here(planned.table.sort_by("image_key")))
        rows = [actor(table) for piece in listing.pieces for table in claim(piece)]
        assert all(not table["image"].drop_null().to_pylist() for table in rows)  # pictures are in the ledger alone
        describer = DescribeActor(
            config.rewriter,
            recipe=captions,
            revision="r",
            place=PassPlace(ledger, AttemptBoard(), config.ledger, "rewriter"),
            engine=RuleWriter(),
        )
        todo = _Here(run.to_describe(np.unique(as_keys([key for key in run.caption_keys() if key is not None]))))
        for file in ledger.row_files():
            describer(edits_of_file(pa.table({"file": [file]}), todo))
        index = read_index(ledger, retry_failed=True)
        sheet = EditSheet(config, planned.table.num_rows)
        with EditTables(out, "writer") as tables:
            for table in run.rows():
                tables.add(table)
                sheet.see(table)
        sheet.write(out, listing, tables.tally.facts(EDIT))
        assert len(index.ok) == planned.table.num_rows + tables.tally.facts(CAPTION)["rows"]
    return out, planned.table, world, tables


@pytest.mark.slow
def test_every_plan_has_one_row_in_the_plans_order(made):
    out, plans, _, _ = made
    edits = read_table(out / "edits", EDITS)
    assert edits["edit_id"].to_pylist() == plans["edit_id"].to_pylist()
    assert set(edits["status"].to_pylist()) == {"ok", "rejected"}


@pytest.mark.slow
def test_a_picture_that_stands_has_one_caption_and_the_language_models_if_it_agrees(made):
    out, plans, _, tables = made
    images, captions = (read_table(out / name, schema).to_pylist() for name, schema in (("images", IMAGES), ("captions", CAPTIONS)))
    rule = dict(zip(plans["edit_id"].to_pylist(), plans["text"].to_pylist(), strict=True))
    edits = {row["image_id"]: row for row in read_table(out / "edits", EDITS).to_pylist() if row["status"] == "ok"}
    assert [row["image_id"] for row in images] == [row["image_id"] for row in captions] == list(edits)
    by_rule = [row for row in captions if row["instruction_id"] == "edit/rule"]
    assert all(row["text"] == rule[edits[row["image_id"]]["edit_id"]] for row in by_rule)
    assert all(row["model"] == "writer" and row["agreement"] >= 0.75 for row in captions if row["instruction_id"] == "edit/model")
    facts = tables.caption_facts()
    assert (facts["by_rule"], facts["by_model"]) == (len(by_rule), len(captions) - len(by_rule))
    assert facts["by_model"] > facts["by_rule"] > 0
    assert sum(facts["rule_because"].values()) == len(by_rule)


def test_new_people_have_several_pictures_and_no_real_persons_id(made):
    out, _, world, tables = made
    images = read_table(out / "images", IMAGES).to_pylist()
    people = {row["person_id"] for row in images}
    assert tables.new_people == len(people) < len(images)
    assert not people & {row["person_id"] for row in read_table(world / "images", IMAGES).to_pylist()}
    assert all(row["synthetic"] and row["split"] == "train" for row in images)


def test_the_page_shows_before_reference_after_and_what_was_read_and_escapes_what_it_shows(made):
    out, plans, _, _ = made
    page = (out / "edits.html").read_text()
    edits = read_table(out / "edits", EDITS).to_pylist()
    assert page.count('<section class="edit">') == plans.num_rows
    assert page.count('alt="before"') == plans.num_rows
    assert page.count('alt="after"') == sum(row["status"] == "ok" for row in edits)
    assert page.count('alt="reference"') == sum(len(row["slots"]) for row in edits)
    assert all(value in page for row in edits for slot in row["slots"] for value in json.loads(slot["read"]).values())
    assert "http" not in page


def test_a_ledger_of_captions_is_not_taken_for_one_of_edits(tmp_path):
    with open_ledger(tmp_path / "out") as ledger:
        row = {"caption_id": "c", "image_id": "i", "kind": "static", "status": "ok", "tries": 1, "key": bytes(16)}
        ledger.commit("0", ledger.form.table([row], ledger.run))
    with refused(DataError, "another kind of job"), open_ledger(tmp_path / "out", EDIT_ROWS):
        pass
    with open_ledger(tmp_path / "out") as ledger:
        assert len(read_index(ledger, retry_failed=True).ok) == 1
