"""One edit's work: what is asked of the editor, what stands, and that every plan ends in one row."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from benchmarks.edit_engines.scripted_parts import FillingEditor, LotVerifier
from benchmarks.edit_engines.small_world import edit_config, write_world
from reid_ray.caption.engines.protocol import Reply
from reid_ray.data.images import BadImageError, decode_image
from reid_ray.data.sources import iter_images
from reid_ray.edit.changes.edit_plans import plan_edits
from reid_ray.edit.changes.new_person import new_person_id
from reid_ray.edit.drawing_engine import DrawingEngine
from reid_ray.edit.edit_rows import EDIT_ROWS, EditRecipe
from reid_ray.edit.edit_work import EditSetting, EditWork, difference_outside
from reid_ray.edit.picture_check import Standing
from reid_ray.records import EDITS, IMAGES, REFERENCES, conform, table_of
from reid_ray.storage import read_table


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """SOURCED rows with their plans, and the bank's crops."""
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    config = edit_config(folder, folder / "out")
    plans = plan_edits(config, EditRecipe("e", "s", "v", "c"), None).table.to_pylist()
    pictures = {row["image_id"]: row for table in iter_images(config.images) for row in table.to_pylist()}
    crops = {row["reference_id"]: row["image"] for row in read_table(folder / "references", REFERENCES).to_pylist()}
    decoded = {name: np.asarray(Image.open(io.BytesIO(data))) for name, data in crops.items()}
    return [pictures[plan["image_id"]] | {"plan": plan} for plan in plans], decoded.__getitem__


class _Verdicts:
    """Lets a drawing stand at its n-th try."""

    revision = "v"

    def __init__(self, at):
        self.at, self.tries = at, 0

    def check(self, source, drawn, masks, wanted):
        self.tries += 1
        assert source.shape == drawn.shape
        assert set(masks) == set(wanted)
        read = {slot: {name: f"read {value}" for name, value in values.items()} for slot, values in wanted.items()}
        return Standing(self.tries >= self.at, None if self.tries >= self.at else "slot_missed: so it is", read)


def run(work, source, answer=None):
    """(rows, requests) of a work whose requests the scripted editor answers."""
    engine, asked = DrawingEngine(FillingEditor(), capacity=2), []
    steps = work.work(source)
    try:
        (request,) = next(steps)
        while True:
            asked.append(request)
            engine.add("r", engine.prepare(request.conversation, request.key))
            ((_, reply),) = engine.step()
            (request,) = steps.send([reply if answer is None else answer])
    except StopIteration as end:
        return end.value, asked


def work_with(crops, verifier=None, tries=3, tells=False):
    setting = EditSetting(
        editor=("editor", "r1", "s1"),
        open_editor=FillingEditor,
        open_verifier=lambda: verifier,
        tells=tells,
        tries=tries,
        seed=5,
        max_pixels=10**6,
    )
    return EditWork(setting, verifier, crops)


@pytest.mark.slow
def test_a_drawing_that_stands_is_a_picture_of_somebody_new(sources):
    rows, crops = sources
    for source in rows[:6]:
        plan = source["plan"]
        (row,), (asked,) = run(work_with(crops, _Verdicts(1)), source)
        edit = asked.conversation[0]["content"][0]["edit"]
        before, after = np.asarray(decode_image(source["image"])), np.asarray(decode_image(row["image"]))
        assert (after[~edit.mask] == before[~edit.mask]).all()
        assert (after[edit.mask] != before[edit.mask]).any()
        assert row["difference_outside"] == 0
        assert row["person_id"] == new_person_id(plan["who"], [(each["slot"], each["references"][0]) for each in plan["changes"]])
        assert [json.loads(each["read"]) for each in row["slots"]]
        conform(table_of(EDIT_ROWS.schema, [row | {"run": "x", "made": 1.0}]), EDITS, origin="edit")
        conform(table_of(EDIT_ROWS.schema, [row | {"run": "x", "made": 1.0}]), IMAGES, origin="edit")
        assert row["synthetic"] is True


def test_the_editor_sees_a_prompt_without_the_looks_and_the_nouns_in_it(sources):
    rows, crops = sources
    for source in rows:
        _, (asked,) = run(work_with(crops), source)
        edit = asked.conversation[0]["content"][0]["edit"]
        for change, reference in zip(source["plan"]["changes"], edit.references, strict=True):
            noun = source["plan"]["original"][change["noun_start"] : change["noun_end"]]
            assert edit.prompt[reference.start : reference.end].lower() == noun.lower()
            old = json.loads(change["old"])
            before = edit.prompt[: reference.start].split()[-1:]
            assert not set(old.values()) & set(before)


def test_an_editor_that_reads_words_alone_is_told_the_new_look(sources):
    rows, crops = sources
    for source in rows[:6]:
        _, (asked,) = run(work_with(crops, tells=True), source)
        assert asked.conversation[0]["content"][0]["edit"].prompt == source["plan"]["text"]


@pytest.mark.parametrize("stands_at", [2, 3])
def test_another_try_has_another_seed_and_another_reference_of_the_same_look(sources, stands_at):
    rows, crops = sources
    source = next(each for each in rows if len(set(each["plan"]["changes"][0]["references"])) == 3)
    (row,), asked = run(work_with(crops, _Verdicts(stands_at)), source)
    edits = [each.conversation[0]["content"][0]["edit"] for each in asked]
    assert row["tries"] == len(edits) == stands_at
    assert len({edit.seed for edit in edits}) == stands_at
    assert len({edit.references[0].crop.tobytes() for edit in edits}) == stands_at
    assert row["seed"] == edits[-1].seed
    assert row["slots"][0]["reference_id"] == source["plan"]["changes"][0]["references"][stands_at - 1]
    assert row["status"] == "ok"


def test_what_never_stands_is_rejected_with_the_verifiers_reason_and_no_picture(sources):
    rows, crops = sources
    (row,), asked = run(work_with(crops, _Verdicts(9)), rows[0])
    assert len(asked) == 3
    assert (row["status"], row["reason"]) == ("rejected", "slot_missed: so it is")
    assert row.get("image") is None
    assert row["person_id"] is None


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"image": b"no picture"}, "not_an_image"),
        ({"image": None, "unread": "missing_file: gone"}, "missing_file"),
        ({"image_sha256": "0" * 64}, "changed_image"),
    ],
)
def test_a_source_that_cannot_be_edited_is_a_failed_row_and_nobody_is_asked(sources, change, code):
    rows, crops = sources
    (row,), asked = run(work_with(crops), rows[0] | change)
    assert (row["status"], row["reason"].partition(":")[0], row["tries"]) == ("failed", code, 0)
    assert not asked


def test_masks_of_another_size_and_references_that_are_gone_are_failed_rows(sources):
    rows, crops = sources
    plan = rows[0]["plan"]
    small = io.BytesIO()
    Image.new("1", (3, 3), 1).save(small, "PNG")
    other = plan | {"changes": [plan["changes"][0] | {"mask": small.getvalue()}]}
    (row,), _ = run(work_with(crops), rows[0] | {"plan": other})
    assert row["reason"].startswith("mask_size")

    def gone(name):
        raise BadImageError("missing", name)

    (row,), asked = run(work_with(gone), rows[0])
    assert row["reason"].startswith("bad_reference")
    assert not asked


def test_an_editor_that_refuses_leaves_its_words(sources):
    rows, crops = sources
    (row,), asked = run(work_with(crops), rows[0], Reply(None, error="timed out after 3 s"))
    assert row["reason"] == "rejected_by_editor: timed out after 3 s"
    assert len(asked) == 3
    (row,) = work_with(crops).given_up(rows[0]["plan"], "quarantined: it died")
    assert (row["status"], row["reason"], row["tries"]) == ("failed", "quarantined: it died", 0)


def test_the_scripted_verifier_judges_a_drawing_and_not_its_neighbours(sources):
    rows, crops = sources
    verdicts = {run(work_with(crops, LotVerifier(never=0.5), tries=1), rows[0])[0][0]["status"] for _ in range(3)}
    assert len(verdicts) == 1


def test_the_difference_outside_is_the_mean_of_what_the_masks_leave():
    source = np.zeros((4, 4, 3), np.uint8)
    drawn, mask = source.copy(), np.zeros((4, 4), bool)
    mask[:2] = True
    drawn[0], drawn[3] = 200, 10
    assert difference_outside(source, drawn, mask) == 5
    assert difference_outside(source, drawn, ~np.zeros((4, 4), bool)) is None
