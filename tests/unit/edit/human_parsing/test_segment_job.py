"""The segment job over segments that are there: the truth's masks reach the captions' nouns, and every row is accounted for."""

from __future__ import annotations

import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from refusals import refused

from reid_ray.config.common import SyntheticConfig
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.edit.human_parsing.config import SegmentJob
from reid_ray.edit.human_parsing.job import run_segment
from reid_ray.errors import ConfigError, DataError
from reid_ray.records import SEGMENTS
from reid_ray.storage import read_table

PEOPLE = SyntheticConfig(identities=20, images_per_identity=2, test_share=0.25)
SLOTS = ["hair", "upper", "lower", "shoes", "bag", "hat"]


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Truth and captions of a few people; the last image has no caption, and one caption is of an image that is not there."""
    folder, people = tmp_path_factory.mktemp("tables"), SyntheticPeople(PEOPLE)
    captions = people.caption_table()
    strange = captions.slice(0, 1).set_column(1, "image_id", pa.array(["elsewhere"]))
    strange = strange.set_column(0, "caption_id", pa.array(["elsewhere"]))
    pq.write_table(people.segment_table(), folder / "segments.parquet")
    pq.write_table(pa.concat_tables([captions.slice(0, 78), strange.cast(captions.schema)]), folder / "captions.parquet")
    return folder


def run(tables, out, **changes):
    job = {"segments": f"{tables}/segments.parquet", "captions": {"path": f"{tables}/captions.parquet"}, "slots": SLOTS}
    manifest = run_segment(SegmentJob.model_validate({**job, "output": {"path": str(out)}, **changes}))
    return manifest, read_table(out / "segments", SEGMENTS).to_pylist()


@pytest.mark.slow
def test_truth_is_linked_to_each_caption_and_every_row_is_counted(tables, tmp_path):
    manifest, rows = run(tables, tmp_path / "out")
    people, counts = SyntheticPeople(PEOPLE), manifest["counts"]
    assert len(rows) == (39 * 2 + 1) * len(SLOTS) == counts["read"]
    assert counts["read"] == counts["written"] + sum((counts["failed"] | counts["left_out"]).values())
    assert counts["failed"] | counts["left_out"] == Counter(row["reason"] for row in rows if row["status"] != "ok")
    assert counts["failed"]["no_caption"] > 0
    assert manifest["facts"] == {**manifest["facts"], "images": 40, "captions_without_an_image": 1}
    texts = {row["caption_id"]: row["text"] for row in people.caption_table().to_pylist()}
    masks = {(row["image_id"], row["slot"]): row["mask"] for row in people.segment_table().to_pylist()}
    linked = [row for row in rows if row["status"] == "ok"]
    assert len(linked) > 150
    for row in linked:
        assert texts[row["caption_id"]][row["noun_start"] : row["noun_end"]] == row["noun"]
        assert row["mask"] == masks[row["image_id"], row["slot"]]
    assert max(Counter(row["caption_id"] for row in linked).values()) == 3


@pytest.mark.slow
def test_linking_again_from_a_result_keeps_its_masks_and_takes_other_captions(tables, tmp_path):
    _, rows = run(tables, tmp_path / "out")
    _, again = run(tables, tmp_path / "again", segments=f"{tmp_path}/out/segments")
    linked = {(row["caption_id"], row["slot"]) for row in rows if row["status"] == "ok"}
    assert linked <= {(row["caption_id"], row["slot"]) for row in again} | set()
    assert {row["reason"] for row in again} <= {
        None,
        "not_named",
        "too_many_slots",
        "not_worn",
        "out_of_sight",
        "no_caption",
        "several_named",
    }


def test_without_captions_each_image_and_slot_has_one_row(tables, tmp_path):
    manifest, rows = run(tables, tmp_path / "out", captions=None, slots=["upper", "hat"])
    assert len(rows) == 80
    truth = [json.loads(row["attributes"]) for row in SyntheticPeople(PEOPLE).image_table().to_pylist()]
    hats = [row["status"] == "ok" for row in rows if row["slot"] == "hat"]
    assert hats == [each["hat"] != "none" for each in truth]
    assert manifest["counts"]["written"] == 40 + sum(hats)


@pytest.mark.parametrize(
    ("changes", "error", "named"),
    [
        ({"segments": None}, ConfigError, "exactly one"),
        ({"parser": {"model": "builtin:tiny-parser"}}, ConfigError, "segments is given"),
        ({"slots": ["upper", "upper"]}, ConfigError, "slots names one twice"),
        ({"segments": "/nowhere"}, DataError, "/nowhere"),
    ],
)
def test_a_configuration_that_contradicts_itself_is_refused(tables, tmp_path, changes, error, named):
    from reid_ray.config import load_config

    job = {"segments": f"{tables}/segments.parquet", "output": {"path": str(tmp_path / "out")}, **changes}
    with refused(error, named):
        run_segment(load_config(SegmentJob, None, [f"{key}={json.dumps(value)}" for key, value in job.items()]))
