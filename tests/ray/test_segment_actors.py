"""The segment job parses in Ray Data actors; its masks are those of the parser called here, and every image and slot is accounted for."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reid_ray.config.common import ImagesConfig, SyntheticConfig
from reid_ray.data.sources import iter_images
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.edit.human_parsing.config import HumanParserConfig, SegmentJob
from reid_ray.edit.human_parsing.found import SegmentFinder
from reid_ray.edit.human_parsing.job import run_segment
from reid_ray.edit.human_parsing.parsed import HumanParser
from reid_ray.records import SEGMENTS
from reid_ray.storage import read_table

pytestmark = pytest.mark.slow
SLOTS = ["upper", "lower", "shoes"]


def test_actors_find_what_the_parser_finds_here_and_link_the_captions_nouns(local_ray, tmp_path):
    people = SyntheticPeople(SyntheticConfig(identities=10, images_per_identity=2))
    images = people.image_table()
    data = images["image"].to_pylist()
    data[3] = data[3][:90]
    images = images.set_column(images.column_names.index("image"), images.schema.field("image"), pa.array(data, pa.binary()))
    pq.write_table(images, tmp_path / "images.parquet")
    pq.write_table(people.caption_table(), tmp_path / "captions.parquet")
    source = {"source": "parquet", "path": f"{tmp_path}/images.parquet"}
    job = {"images": source, "slots": SLOTS, "pool": {"replicas": 2, "batch_size": 7}}
    manifest = run_segment(SegmentJob.model_validate({**job, "output": {"path": f"{tmp_path}/plain"}}))
    rows = read_table(tmp_path / "plain" / "segments", SEGMENTS)
    find = SegmentFinder(HumanParser.open(HumanParserConfig()), None, slots=SLOTS, min_area=0.003, max_pixels=10**6)
    here = [row for table in iter_images(ImagesConfig.model_validate(source)) for row in find(table).to_pylist()]
    assert rows.to_pylist() == here
    assert manifest["counts"]["read"] == len(here) == 60
    assert [row["status"] for row in here[9:12]] == ["failed"] * 3
    assert sum(row["status"] == "ok" for row in here) > 25

    run_segment(
        SegmentJob.model_validate({**job, "captions": {"path": f"{tmp_path}/captions.parquet"}, "output": {"path": f"{tmp_path}/out"}})
    )
    masks = {(row["image_id"], row["slot"]): row["mask"] for row in here}
    texts = {row["caption_id"]: row["text"] for row in people.caption_table().to_pylist()}
    linked = [row for row in read_table(tmp_path / "out" / "segments", SEGMENTS).to_pylist() if row["status"] == "ok"]
    assert len({row["caption_id"] for row in linked}) > 30
    for row in linked:
        assert row["mask"] == masks[row["image_id"], row["slot"]]
        assert texts[row["caption_id"]][row["noun_start"] : row["noun_end"]] == row["noun"]
