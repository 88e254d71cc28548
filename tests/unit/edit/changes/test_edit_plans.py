"""Tables in, plans out: which images are planned, why others are not, and what changes a plan's keys."""

import json

import pyarrow as pa
import pytest
from refusals import refused

from benchmarks.edit_engines.small_world import edit_config, write_world
from reid_ray.data.sources import image_listing, iter_images
from reid_ray.edit.changes.edit_plans import plan_edits, read_bank, used_references
from reid_ray.edit.changes.new_person import FIRST_NEW
from reid_ray.edit.edit_captions import CaptionByModel
from reid_ray.edit.edit_passes import listed_keys
from reid_ray.edit.edit_rows import EditRecipe
from reid_ray.errors import DataError
from reid_ray.records import REFERENCES, SEGMENTS, table_of
from reid_ray.storage import TableWriter, read_table

RECIPE = EditRecipe(editor="e1", sampling="s1", verifier="v1", checks="c1")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    return folder


def plans(world, tmp_path, recipe=RECIPE, **values):
    return plan_edits(edit_config(world, tmp_path / "out", **values), recipe, None)


@pytest.mark.slow
def test_every_image_of_the_segments_is_planned_or_has_a_reason(world, tmp_path):
    segments = read_table(world / "segments", SEGMENTS)
    images = {(row["image_id"], row["split"]) for row in segments.to_pylist()}
    every = plan_edits(edit_config(world, tmp_path / "out", images__split="null"), RECIPE, None)
    tests = {name for name, split in images if split == "test"}
    assert every.refused["not_for_training"] == len(tests) > 0
    assert every.table.num_rows + every.refused.total() == len(images)
    assert not tests & set(every.table["image_id"].to_pylist())
    twice = plans(world, tmp_path, changes__per_image=2)
    assert twice.table.num_rows + twice.refused.total() == 2 * (len(images) - len(tests))
    assert len(set(twice.table["key"].to_pylist())) == twice.table.num_rows
    some = plans(world, tmp_path, changes__share=0.5)
    assert 0 < some.not_in_share < len(images)
    assert some.table.num_rows + some.refused.total() + some.not_in_share == len(images) - len(tests)


@pytest.mark.parametrize("limit", [1, 5])
def test_what_the_segments_tell_of_images_that_are_not_asked_for_is_passed_over(world, tmp_path, limit):
    config = edit_config(world, tmp_path / "out", images__limit=limit)
    planned = plan_edits(config, RECIPE, None, listed_keys(image_listing(config.images)))
    assert planned.table.num_rows + planned.refused.total() == limit
    names = [name for table in iter_images(config.images) for name in table["image_id"].to_pylist()]
    assert set(planned.table["image_id"].to_pylist()) <= set(names)


def test_a_plan_names_masks_and_references_that_there_are(world, tmp_path):
    table = plans(world, tmp_path).table
    held = {row["reference_id"]: row for row in read_table(world / "references", REFERENCES).to_pylist()}
    masks = {row["mask"] for row in read_table(world / "segments", SEGMENTS).to_pylist()}
    for row in table.to_pylist():
        for change in row["changes"]:
            assert change["mask"] in masks
            for name in change["references"]:
                assert held[name]["slot"] == change["slot"]
                assert held[name]["split"] == "train"
                assert json.loads(change["new"]).items() <= json.loads(held[name]["values"]).items()
    used = used_references(str(world / "references"), table)
    named = {name for row in table.to_pylist() for change in row["changes"] for name in change["references"]}
    assert sorted(used["reference_id"].to_pylist()) == sorted(named)


@pytest.mark.parametrize(
    "change", [{"editor": "e2"}, {"sampling": "s2"}, {"verifier": "v2"}, {"checks": "c2"}], ids=lambda change: next(iter(change))
)
def test_another_editor_sampling_or_verifier_makes_every_edit_anew(world, tmp_path, change):
    other = EditRecipe(**{"editor": "e1", "sampling": "s1", "verifier": "v1", "checks": "c1", **change})
    before, after = (set(plans(world, tmp_path, recipe).table["key"].to_pylist()) for recipe in (RECIPE, other))
    assert not before & after


@pytest.mark.slow
def test_another_mask_text_or_picture_makes_its_edits_anew_and_no_others(world, tmp_path):
    rows = read_table(world / "segments", SEGMENTS).to_pylist()
    victim = plans(world, tmp_path).table["image_id"][0].as_py()
    other = [row | ({"image_sha256": "0" * 64} if row["image_id"] == victim else {}) for row in rows]
    with TableWriter(tmp_path / "segments", SEGMENTS) as writer:
        writer.append(table_of(SEGMENTS, other))
    before = plans(world, tmp_path).table
    after = plans(world, tmp_path, segments=str(tmp_path / "segments")).table
    changed = {a["image_id"] for a, b in zip(before.to_pylist(), after.to_pylist(), strict=True) if a["key"] != b["key"]}
    assert changed == {victim}


def test_a_language_models_caption_has_a_key_of_its_own(world, tmp_path):
    config = edit_config(world, tmp_path / "out", rewriter__share=0.5)
    recipes = [CaptionByModel(config.rewriter, revision=name) for name in ("r1", "r2")]
    first, second = (plan_edits(config, RECIPE, recipe).table for recipe in recipes)
    assert first["key"] == second["key"]
    keys = [{key for key in table["caption_key"].to_pylist() if key is not None} for table in (first, second)]
    assert not keys[0] & keys[1]
    assert 0 < len(keys[0]) == len(keys[1]) < first.num_rows


def test_references_that_are_not_for_training_are_not_used(world, tmp_path):
    rows = read_table(world / "references", REFERENCES).to_pylist()
    kinds = [{"split": "test"}, {"status": "refused"}, {"values": None}, {}]
    with TableWriter(tmp_path / "references", REFERENCES) as writer:
        writer.append(table_of(REFERENCES, [row | kinds[at % 4] for at, row in enumerate(rows)]))
    bank, outcomes = read_bank(str(tmp_path / "references"))
    assert outcomes.total() == len(rows)
    assert set(outcomes) == {"not_for_training", "refused", "look_unknown", "usable"}
    table = plans(world, tmp_path, references=str(tmp_path / "references")).table
    usable = {row["reference_id"] for at, row in enumerate(rows) if at % 4 == 3}
    assert {name for row in table.to_pylist() for change in row["changes"] for name in change["references"]} <= usable
    assert bank.slots


def test_tables_that_give_nothing_to_edit_are_refused_by_name(world, tmp_path):
    rows = read_table(world / "segments", SEGMENTS).to_pylist()
    with TableWriter(tmp_path / "segments", SEGMENTS) as writer:
        writer.append(table_of(SEGMENTS, [row | {"caption_id": None} for row in rows]))
    with refused(DataError, "no segment is linked to a noun"):
        plans(world, tmp_path, segments=str(tmp_path / "segments"))
    with TableWriter(tmp_path / "references", REFERENCES) as writer:
        writer.append(REFERENCES.empty_table())
    with refused(DataError, "none of its 0 references can be used"):
        plans(world, tmp_path, references=str(tmp_path / "references"))


def test_people_who_are_edited_already_are_left_alone(world, tmp_path):
    rows = read_table(world / "segments", SEGMENTS).to_pylist()
    with TableWriter(tmp_path / "segments", SEGMENTS) as writer:
        writer.append(table_of(SEGMENTS, [row | {"person_id": FIRST_NEW + row["person_id"]} for row in rows]))
    planned = plans(world, tmp_path, segments=str(tmp_path / "segments"))
    assert planned.table.num_rows == 0
    assert set(planned.refused) == {"edited_already"}
    assert isinstance(planned.table, pa.Table)
