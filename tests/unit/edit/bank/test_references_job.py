"""The bank holds things of training pictures and of folders, cut out whole, each once; what scores anything gives none."""

from __future__ import annotations

import io
import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from refusals import refused

from reid_ray.attributes.mentions import things_named
from reid_ray.config.common import SyntheticConfig
from reid_ray.data.images import decode_image
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.data.synthetic.sentences import SLOTS
from reid_ray.edit.bank.config import ReferencesJob
from reid_ray.edit.bank.cut_out import cut_out, decode_reference, reference_id
from reid_ray.edit.bank.job import run_references
from reid_ray.errors import ConfigError, DataError
from reid_ray.records import REFERENCES
from reid_ray.storage import read_table

PEOPLE = SyntheticConfig(identities=24, images_per_identity=2, val_share=0.25, test_share=0.25)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder, people = tmp_path_factory.mktemp("tables"), SyntheticPeople(PEOPLE)
    pq.write_table(people.image_table(), folder / "images.parquet")
    pq.write_table(people.segment_table(), folder / "segments.parquet")
    return folder


def run(out, **job):
    manifest = run_references(ReferencesJob.model_validate({**job, "output": {"path": str(out)}}))
    return manifest["counts"], read_table(out / "references", REFERENCES).to_pylist()


def of(tables):
    return {"images": {"source": "parquet", "path": f"{tables}/images.parquet"}, "segments": f"{tables}/segments.parquet"}


@pytest.mark.slow
def test_only_things_of_split_train_are_in_the_bank_with_their_values_and_every_other_one_says_why(tables, tmp_path):
    counts, rows = run(tmp_path / "out", **of(tables))
    people = SyntheticPeople(PEOPLE)
    segments = [row for row in people.segment_table().to_pylist() if row["status"] == "ok"]
    images = {row["image_id"]: row for row in people.image_table().to_pylist()}
    assert len(rows) == len(segments) == counts["read"] == counts["written"] + sum((counts["failed"] | counts["left_out"]).values())
    assert counts["failed"] | counts["left_out"] == Counter((row["reason"]).partition(":")[0] for row in rows if row["status"] != "ok")
    assert Counter(row["status"] for row in rows if row["split"] != "train") == {
        "refused": sum(row["split"] != "train" for row in segments)
    }
    kept = [row for row in rows if row["status"] == "ok"]
    assert len(kept) > 80
    assert len({row["reference_id"] for row in kept}) == len(kept)
    for row in kept:
        truth, slot = json.loads(images[row["source_image_id"]]["attributes"]), row["slot"]
        assert json.loads(row["values"]) == {name: truth[name] for name in SLOTS[slot]}
        thing = decode_reference(row["image"])
        place = next(each for each in segments if (each["image_id"], each["slot"]) == (row["source_image_id"], slot))
        left, top, right, bottom = place["box"]
        picture = np.asarray(decode_image(images[row["source_image_id"]]["image"]))[top:bottom, left:right]
        inside = thing[..., 3] == 255
        assert inside.sum() == round(place["area"] * 64 * 128)
        assert (thing[..., :3][inside] == picture[inside]).all()
        assert not thing[~inside].any()  # nothing of the surroundings is left


@pytest.mark.slow
def test_an_image_that_scores_is_refused_even_where_its_twin_trains_or_its_segments_say_train(tables, tmp_path):
    images, segments = (pq.read_table(tables / f"{name}.parquet") for name in ("images", "segments"))
    splits = images["split"].to_pylist()
    held, trained = splits.index("test"), splits.index("train")
    for column in ("image", "image_sha256"):  # a training image with a test image's content
        values = images[column].to_pylist()
        values[trained] = values[held]
        images = images.set_column(images.column_names.index(column), images.schema.field(column), pa.array(values, images[column].type))
    digests = dict(zip(images["image_id"].to_pylist(), images["image_sha256"].to_pylist(), strict=True))
    place = segments.column_names.index("image_sha256")
    parsed = pa.array([digests[image_id] for image_id in segments["image_id"].to_pylist()], pa.string())
    segments = segments.set_column(place, segments.schema.field(place), parsed)
    lying = segments.set_column(segments.column_names.index("split"), "split", pa.array(["train"] * segments.num_rows))
    pq.write_table(images, tmp_path / "images.parquet")
    pq.write_table(lying.cast(segments.schema), tmp_path / "segments.parquet")
    _, rows = run(tmp_path / "out", **of(tmp_path))
    ids = images["image_id"].to_pylist()
    allowed = {image_id for image_id, split in zip(ids, splits, strict=True) if split == "train"} - {ids[trained]}
    assert {row["source_image_id"] for row in rows if row["status"] == "ok"} == allowed
    assert {row["status"] for row in rows if row["source_image_id"] not in allowed} <= {"refused", "failed"}


def test_of_many_as_many_as_asked_are_drawn_of_each_slot_whatever_their_order(tables, tmp_path):
    _, rows = run(tmp_path / "out", **of(tables), most_per_slot=5)
    segments = pq.read_table(tables / "segments.parquet")
    (tmp_path / "turned").mkdir()
    pq.write_table(segments.take(pa.array(range(segments.num_rows - 1, -1, -1))), tmp_path / "turned" / "segments.parquet")
    _, turned = run(tmp_path / "again", **{**of(tables), "segments": f"{tmp_path}/turned/segments.parquet"}, most_per_slot=5)
    drawn = [{row["reference_id"] for row in each if row["status"] == "ok"} for each in (rows, turned)]
    assert drawn[0] == drawn[1]
    assert Counter(row["slot"] for row in rows if row["status"] == "ok") == dict.fromkeys(SLOTS, 5)


@pytest.mark.slow
def test_values_come_from_a_caption_where_the_truth_is_not_known(tables, tmp_path):
    people = SyntheticPeople(PEOPLE)
    images = pq.read_table(tables / "images.parquet")
    place = images.column_names.index("attributes")
    pq.write_table(
        images.set_column(place, images.schema.field(place), pa.nulls(images.num_rows, pa.string())), tmp_path / "images.parquet"
    )
    captions, rows = people.caption_table().to_pylist(), []
    for row in people.segment_table().to_pylist():
        caption = next(each for each in captions if each["image_id"] == row["image_id"])
        noun = things_named(caption["text"]).nouns.get(row["slot"])
        rows.append({**row, "caption_id": caption["caption_id"], "noun_start": None if noun is None else noun.start})
    linked = pa.Table.from_pylist([row for row in rows if row["noun_start"] is not None], schema=people.segment_table(0, 1).schema)
    pq.write_table(linked, tmp_path / "segments.parquet")
    pq.write_table(people.caption_table(), tmp_path / "captions.parquet")
    _, found = run(tmp_path / "out", **of(tmp_path), captions=f"{tmp_path}/captions.parquet")
    truth = {row["image_id"]: json.loads(row["attributes"]) for row in people.image_table().to_pylist()}
    said = [(row, json.loads(row["values"])) for row in found if row["status"] == "ok" and row["values"]]
    assert len(said) > 60
    shades = {"blond": {"blond", "yellow"}}
    for row, values in said:
        own = truth[row["source_image_id"]]
        assert all(own[name] in shades.get(value, {value}) for name, value in values.items()), (values, own)


def _png(color, *, alpha=True, size=(30, 40)):
    picture = np.zeros((*size[::-1], 4), np.uint8)
    picture[8:32, 6:24] = (*color, 255)
    picture[:8] = (9, 9, 9, 0)
    file = io.BytesIO()
    Image.fromarray(picture if alpha else picture[..., :3]).save(file, "PNG")
    return file.getvalue()


@pytest.mark.slow
def test_a_folder_gives_what_is_opaque_or_masked_each_content_once_and_says_what_it_cannot_use(tables, tmp_path):
    clothes = tmp_path / "clothes"
    for name, data in {
        "upper/red.png": _png((200, 0, 0)),
        "upper/again/red.png": _png((200, 0, 0)) + b"\0",  # another file of the same picture
        "upper/opaque.png": _png((0, 200, 0), alpha=False),
        "shoes/broken.png": _png((0, 0, 200))[:50],
        "shoes/tested.jpg": pq.read_table(tables / "images.parquet", filters=[("split", "=", "test")])["image"][0].as_py(),
        "notes/other.png": _png((1, 2, 3)),
    }.items():
        (clothes / name).parent.mkdir(parents=True, exist_ok=True)
        (clothes / name).write_bytes(data)
    folder = {"path": str(clothes), "values": {"upper/red.png": {"upper": "coat", "upper_color": "red"}}}
    counts, rows = run(tmp_path / "out", **of(tables), folders={"shop": folder})
    own = {row["source_image_id"]: row for row in rows if row["source"] == "shop"}
    assert {name: (row["status"], (row["reason"] or "").partition(":")[0]) for name, row in own.items()} == {
        "upper/again/red.png": ("ok", ""),
        "upper/red.png": ("refused", "repeated_content"),
        "upper/opaque.png": ("failed", "no_mask"),
        "shoes/broken.png": ("failed", "truncated"),
        "shoes/tested.jpg": ("refused", "other_split"),
    } or own["upper/red.png"]["status"] == "ok"
    assert counts["read"] == len(rows)
    red = next(row for name, row in own.items() if row["status"] == "ok")
    assert (decode_reference(red["image"]) == (200, 0, 0, 255)).all()
    assert decode_reference(red["image"]).shape == (24, 18, 4)
    masks = tmp_path / "masks" / "upper"
    masks.mkdir(parents=True)
    Image.fromarray(np.pad(np.full((24, 18), 255, np.uint8), ((8, 8), (6, 6)))).save(masks / "opaque.png")
    _, rows = run(tmp_path / "masked", folders={"shop": {"path": str(clothes), "masks": str(tmp_path / "masks")}}, slots=["upper"])
    (green,) = [row for row in rows if row["source_image_id"] == "upper/opaque.png"]
    assert (decode_reference(green["image"]) == (0, 200, 0, 255)).all()


@pytest.mark.parametrize(
    ("job", "error", "named"),
    [
        ({"folders": {"shop": {"path": "/nowhere"}}}, DataError, "/nowhere"),
        ({"folders": {"shop": {"path": "CLOTHES", "values": {"upper/no.png": {}}}}}, ConfigError, "folders.shop.values"),
        ({"folders": {"shop": {"path": "CLOTHES"}}, "slots": ["hat"]}, DataError, "folders.shop.path"),
    ],
)
def test_a_folder_that_cannot_be_read_is_refused_by_its_field(tmp_path, job, error, named):
    (tmp_path / "clothes" / "upper").mkdir(parents=True)
    (tmp_path / "clothes" / "upper" / "red.png").write_bytes(_png((200, 0, 0)))
    job = json.loads(json.dumps(job).replace("CLOTHES", str(tmp_path / "clothes")))
    with refused(error, named):
        run(tmp_path / "out", **job)


def test_a_large_thing_is_made_smaller_without_its_surroundings_bleeding_in():
    picture, mask = np.full((400, 200, 3), 255, np.uint8), np.zeros((400, 200), bool)
    picture[50:350, 40:160], mask[50:350, 40:160] = (10, 20, 30), True
    mask[100:120, 60:80] = False
    picture[100:120, 60:80] = (255, 0, 255)
    thing = cut_out(picture, mask, min_side=4, max_side=100)
    assert thing.shape == (100, 40, 4)
    assert (thing[thing[..., 3] == 255][:, :3] == (10, 20, 30)).all()
    assert reference_id("upper", thing) != reference_id("lower", thing)
