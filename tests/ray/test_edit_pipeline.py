"""The edit job in real actors: every edit accounted for, nothing made twice, and a picture that kills its editor found out.

The editor here fills masks, so that two runs can be compared bit by bit; the last test runs the editor and the verifier that ship.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from difflib import SequenceMatcher
from functools import partial

import numpy as np
import pytest
import ray.cloudpickle

from benchmarks.edit_engines.scripted_parts import FillingEditor, LotVerifier, RuleWriter
from benchmarks.edit_engines.small_world import WORLD, edit_config, write_world
from reid_ray.caption.filters.agreement import compare_attributes
from reid_ray.config.base import load_config
from reid_ray.data.images import decode_image
from reid_ray.edit.capacity.config import PlanEditsJob
from reid_ray.edit.capacity.job import run_plan_edits
from reid_ray.edit.changes.new_person import is_new
from reid_ray.edit.job import run_edit
from reid_ray.model.pretrained import load_encoder
from reid_ray.records import CAPTIONS, EDITS, IMAGES
from reid_ray.retrieval.index.config import IndexJob
from reid_ray.retrieval.index.job import run_index
from reid_ray.retrieval.query import Query
from reid_ray.retrieval.searched_folder import SearchedGallery
from reid_ray.storage import read_table

pytestmark = pytest.mark.slow
for module in ("benchmarks.edit_engines.scripted_parts", "benchmarks.edit_engines.small_world"):
    ray.cloudpickle.register_pickle_by_value(sys.modules[module])


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    return folder


def tables(folder):
    return [
        read_table(folder / name, schema).to_pylist() for name, schema in (("images", IMAGES), ("captions", CAPTIONS), ("edits", EDITS))
    ]


def drawn(log):
    return sum(map(int, log.read_text().split())) if log.exists() else 0


def test_every_edit_ends_in_a_picture_of_somebody_new_or_in_a_reason_and_is_made_once(local_ray, world, tmp_path):
    log = tmp_path / "log"
    parts = {"editor": FillingEditor(log=str(log)), "verifier": LotVerifier(never=0.4), "engine": RuleWriter()}
    config = edit_config(world, tmp_path / "out", rewriter__share=0.7, changes__per_image=2, output__if_exists="reuse")
    manifest = run_edit(config, **parts)
    images, captions, edits = tables(tmp_path / "out")
    counts = manifest["counts"]
    assert counts["read"] == counts["written"] + sum(counts["failed"].values())
    assert counts["written"] == len(images) == len(captions) > 4
    assert counts["failed"]["slot_missed"] == sum(row["status"] == "rejected" for row in edits) > 0
    assert drawn(log) == sum(row["tries"] for row in edits)
    sources = {row["image_id"]: row for row in read_table(world / "images", IMAGES).to_pylist()}
    real = {row["person_id"] for row in sources.values()}
    of_edit = {row["image_id"]: row for row in edits if row["status"] == "ok"}
    for image, caption in zip(images, captions, strict=True):
        edit = of_edit[image["image_id"]]
        source = sources[edit["source_image_id"]]
        assert image["synthetic"] is caption["synthetic"] is True
        assert is_new(image["person_id"])
        assert image["person_id"] == caption["person_id"] == edit["person_id"] not in real
        assert (image["split"], image["camera_id"]) == ("train", source["camera_id"])
        assert caption["image_id"] == image["image_id"]
        before, after = (np.asarray(decode_image(row["image"])) for row in (source, image))
        assert before.shape == after.shape
        assert (before != after).any()
        assert edit["difference_outside"] == 0
        for slot in edit["slots"]:
            assert json.loads(slot["read"]) == json.loads(slot["new"])
    by = Counter(row["instruction_id"] for row in captions)
    assert by["edit/rule"] + by["edit/model"] == len(captions)
    assert (by["edit/model"], by["edit/rule"]) == (manifest["facts"]["captions"]["by_model"], manifest["facts"]["captions"]["by_rule"])
    assert by["edit/model"] > 1
    assert all("So it is." in row["text"] for row in captions if row["instruction_id"] == "edit/model")
    assert set(manifest["facts"]["captions"]["rule_because"]) <= {"not_asked", "unfaithful", "too_short"}
    page = (tmp_path / "out" / "edits.html").read_text()
    assert page.count('<section class="edit">') == min(60, len(edits))

    plan = run_plan_edits(PlanEditsJob(run=str(tmp_path / "out"), wanted=(1000,), replicas=(1, 4), output={"path": str(tmp_path / "plan")}))
    one, four = plan["facts"]["plans"]
    assert one["drawings"] == round(1000 * sum(row["tries"] for row in edits) / len(images)) == four["drawings"]
    assert one["gpu_hours"] == 0
    assert four["hours"] < one["hours"]

    before = log.read_text()
    assert run_edit(config, **parts)["run_id"] == manifest["run_id"]  # finished already
    other = edit_config(world, tmp_path / "out", changes__per_image=2, output__if_exists="replace")
    by_rule = run_edit(other, **parts)
    assert log.read_text() == before  # another way to caption: no picture is drawn again
    assert by_rule["facts"]["ledger"]["rows_made"] == 0
    assert by_rule["facts"]["captions"]["by_model"] == 0
    again, texts, _ = tables(tmp_path / "out")
    assert [row["image_sha256"] for row in again] == [row["image_sha256"] for row in images]
    rule = {row["image_id"]: row["text"] for row in texts}
    assert all(compare_attributes(rule[row["image_id"]], row["text"]).score >= 0.75 for row in captions)


def test_an_edit_that_ends_its_editor_is_found_out_and_its_neighbours_are_made(local_ray, world, tmp_path):
    undisturbed = run_edit(edit_config(world, tmp_path / "calm"), editor=FillingEditor(), verifier=LotVerifier(never=0.4))
    images, _, edits = tables(tmp_path / "calm")
    assert undisturbed["counts"]["written"] == len(images)
    config = edit_config(world, tmp_path / "out", ledger__group_seconds=0.2)
    victim = edits[len(edits) // 2]
    deadly = FillingEditor(dies_at=_prompt_of(victim, world))
    manifest = run_edit(config, editor=deadly, verifier=LotVerifier(never=0.4))
    _, _, after = tables(tmp_path / "out")
    assert manifest["counts"]["failed"]["quarantined"] >= 1
    for was, now in zip(edits, after, strict=True):
        if now["reason"] is not None and now["reason"].startswith("quarantined"):
            assert now["tries"] == 0
        else:
            assert now == was


def test_the_real_editor_and_verifier_draw_inside_the_masks_alone_and_account_for_every_edit(local_ray, world, tmp_path):
    values = {"editor__model": "builtin:tiny-editor", "changes__most_slots": 1, "changes__per_image": 2}
    manifest = run_edit(edit_config(world, tmp_path / "out", **values))
    images, captions, edits = tables(tmp_path / "out")
    counts = manifest["counts"]
    assert counts["written"] == len(images) == len(captions) > 0
    assert counts["read"] == counts["written"] + sum(counts["failed"].values())
    assert all(row["difference_outside"] == 0 and 1 <= row["tries"] <= 3 for row in edits)
    for row in edits:
        wanted = {name: value for slot in row["slots"] for name, value in json.loads(slot["new"]).items()}
        read = {name: value for slot in row["slots"] for name, value in json.loads(slot["read"]).items()}
        if row["status"] == "ok":
            assert wanted.items() <= read.items()


def test_an_edited_person_is_found_by_the_new_description_and_not_by_the_old_one(local_ray, tmp_path):
    """As docs/editing.md has it: edited pictures alone are indexed, and asked for in new words and in old ones."""
    write_world(tmp_path, WORLD.model_copy(update={"identities": 18, "test_share": 0.1}))
    run_edit(edit_config(tmp_path, tmp_path / "out", editor__model="builtin:tiny-editor", changes__slots="[upper]"))
    images, captions, edits = tables(tmp_path / "out")
    job = ["images.source=parquet", f"images.path={tmp_path}/out/images", "encoder=builtin:tiny-encoder", f"output.path={tmp_path}/index"]
    run_index(load_config(IndexJob, None, [*job, "include_synthetic=true"]))
    index, encoder = SearchedGallery(tmp_path / "index"), load_encoder("builtin:tiny-encoder")
    source_of = {row["image_id"]: row["source_image_id"] for row in edits if row["status"] == "ok"}
    said: dict[str, list[str]] = {}
    for row in read_table(tmp_path / "captions", CAPTIONS).to_pylist():
        said.setdefault(row["image_id"], []).append(row["text"])
    new = [row["text"] for row in captions]
    old = [max(said[source_of[row["image_id"]]], key=partial(likeness, row["text"])) for row in captions]

    def mean_rank(texts):
        found = [page.hits for page in index.pages(encoder.encode_texts(texts), Query((), len(images)))]
        return np.mean([[hit.item_id for hit in hits].index(row["image_id"]) for row, hits in zip(captions, found, strict=True)])

    assert len(images) > 15
    assert mean_rank(new) < 0.75 * mean_rank(old)


def likeness(text: str, other: str) -> float:
    return SequenceMatcher(None, text.split(), other.split()).ratio()


def _prompt_of(edit, world):
    from reid_ray.attributes.substitution import substitute
    from reid_ray.edit.changes.edit_plans import plan_edits
    from reid_ray.edit.edit_rows import EditRecipe

    plans = plan_edits(edit_config(world, "/nowhere"), EditRecipe("e", "s", "v", "c"), None).table.to_pylist()
    (plan,) = [each for each in plans if each["image_id"] == edit["source_image_id"]]
    return substitute(plan["original"], {each["noun_start"]: {} for each in plan["changes"]}).text
