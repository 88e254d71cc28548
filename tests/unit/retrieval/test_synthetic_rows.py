"""People whom an editor made say so in every table, and are nobody's gallery, query or test unless somebody asks for them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from refusals import refused
from small_galleries import make_gallery

from reid_ray.data.export.config import ExportJob
from reid_ray.data.export.job import run_export
from reid_ray.data.images import encode_jpeg
from reid_ray.data.ingest.config import IngestJob
from reid_ray.data.ingest.job import run_ingest
from reid_ray.errors import DataError
from reid_ray.records import CAPTIONS, EMBEDDINGS, IDENTITY_COLUMNS, IMAGES, table_of
from reid_ray.retrieval.embed.features import collect_features, read_features
from reid_ray.retrieval.embed_stream import ImageEmbedder, TextEmbedder, read_captions
from reid_ray.retrieval.searched_folder import refuse_unfit
from reid_ray.storage import read_table

MARKS = {"a": True, "b": False, "c": None, "d": True}
PHOTOGRAPHS = ["b", "c"]


class Brightness:
    """One number a picture or text, beside a constant."""

    dim, fingerprint, context = 2, "brightness", 99

    def encode_images(self, pictures):
        return self._unit([np.asarray(picture).mean() for picture in pictures])

    def encode_and_measure(self, texts):
        return self._unit([len(text) for text in texts]), np.array([len(text) for text in texts])

    def _unit(self, numbers):
        vectors = np.array([[number, 100.0] for number in numbers])
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def images() -> pa.Table:
    who = [{"image_id": name, "person_id": n, "camera_id": 1, "split": "test"} for n, name in enumerate(MARKS)]
    jpegs = [encode_jpeg(Image.new("RGB", (16, 32), (40 * n, 90, 90))) for n in range(len(who))]
    return table_of(IMAGES, [row | {"image": jpeg, "synthetic": MARKS[row["image_id"]]} for row, jpeg in zip(who, jpegs, strict=True)])


@pytest.fixture
def captions() -> pa.Table:
    rows = [{"caption_id": name, "image_id": name, "kind": "human", "status": "ok", "text": name, "person_id": 1} for name in MARKS]
    return table_of(CAPTIONS, [row | {"split": "test", "synthetic": MARKS[row["image_id"]]} for row in rows])


def test_vectors_say_of_whom_they_are_for_pictures_and_for_captions(images, captions, tmp_path):
    pq.write_table(captions, tmp_path / "captions.parquet")
    read = read_captions(str(tmp_path / "captions.parquet"), kinds=["human"], split="test")
    for table in (ImageEmbedder(Brightness())(images), TextEmbedder(Brightness())(read)):
        assert dict(zip(table["item_id"].to_pylist(), table["synthetic"].to_pylist(), strict=True)) == MARKS
        assert set(table["status"].to_pylist()) == {"ok"}


def test_an_index_takes_photographs_and_gives_a_reason_for_each_other(images):
    rows = ImageEmbedder(Brightness(), include_synthetic=False)(images).to_pylist()
    assert [row["item_id"] for row in rows if row["status"] == "ok"] == PHOTOGRAPHS
    assert {row["reason"].partition(":")[0] for row in rows if row["status"] == "failed"} == {"synthetic"}
    assert len(rows) == len(MARKS)


@pytest.mark.parametrize("kind", ["image", "text"])
def test_a_score_leaves_edited_people_out_counted_and_keeps_them_if_asked(images, captions, tmp_path, kind):
    table = ImageEmbedder(Brightness())(images) if kind == "image" else TextEmbedder(Brightness())(captions)
    pq.write_table(table, tmp_path / "embeddings.parquet")
    for included, ids in ((False, PHOTOGRAPHS), (True, list(MARKS))):
        for features in (
            collect_features([table.slice(0, 1), table.slice(1)], origin="t", capacity=4, include_synthetic=included),
            read_features(str(tmp_path / "embeddings.parquet"), kind=kind, split=None, include_synthetic=included),
        ):
            assert features.ids == ids
            assert features.unused["synthetic"] == len(MARKS) - len(ids)


def test_vectors_of_an_older_version_are_all_of_photographs(images, tmp_path):
    table = ImageEmbedder(Brightness())(images).drop_columns(["synthetic"]).replace_schema_metadata({b"reid_ray.format": b"embeddings 1"})
    pq.write_table(table, tmp_path / "old.parquet")
    assert read_features(str(tmp_path / "old.parquet"), kind="image", split=None).ids == list(MARKS)


def test_the_service_refuses_a_gallery_with_edited_people_and_no_other(images, tmp_path):
    rows = ImageEmbedder(Brightness())(images).to_pylist()
    for name, chosen, edited in (("both", rows, 2), ("photographs", rows[1:3], 0)):
        vectors = np.array([row["embedding"] for row in chosen], np.float32)
        items = [{"item_id": row["item_id"], "synthetic": row["synthetic"]} for row in chosen]
        gallery = str(make_gallery(tmp_path / name, vectors, items))
        refuse_unfit(gallery, dim=vectors.shape[1], fingerprint="e")
        if edited:
            with refused(DataError, name, "2", "include_synthetic"):
                refuse_unfit(gallery, dim=vectors.shape[1], fingerprint="e", include_synthetic=False)
        else:
            refuse_unfit(gallery, dim=vectors.shape[1], fingerprint="e", include_synthetic=False)


@pytest.mark.slow
def test_tables_go_round_through_ingest_with_the_mark_and_layouts_without_a_place_for_it_leave_them_out(images, captions, tmp_path):
    for name, table in (("images", images), ("captions", captions)):
        (tmp_path / "tables" / name).mkdir(parents=True)
        pq.write_table(table, tmp_path / "tables" / name / "part.parquet")

    def ingested(format, path, out):
        source = {"format": format, "path": str(path)}
        output = {"path": str(tmp_path / out)}
        run_ingest(IngestJob.model_validate({"source": source, "output": output, "load": {"processes": 0}}))
        return tmp_path / out

    def exported(format, out, **options):
        config = {"tables": str(again), "format": format, "output": {"path": str(tmp_path / out)}, "processes": 0, **options}
        return run_export(ExportJob.model_validate(config))["counts"]

    again = ingested("parquet", tmp_path / "tables", "again")
    for schema, name in ((IMAGES, "images"), (CAPTIONS, "captions")):
        table = read_table(again / name, schema)
        assert dict(zip(table["image_id"].to_pylist(), table["synthetic"].to_pylist(), strict=True)) == MARKS
    assert exported("webdataset", "shards")["failed"] == {}
    shards = read_table(ingested("webdataset", tmp_path / "shards", "from_shards") / "images", IMAGES)
    assert dict(zip(shards["image_id"].to_pylist(), shards["synthetic"].to_pylist(), strict=True)) == MARKS
    assert exported("cuhk_pedes", "published") == {"read": 4, "written": 2, "failed": {}, "left_out": {"synthetic": 2}}
    assert exported("cuhk_pedes", "all", include_synthetic=True)["written"] == 4


def test_whatever_hands_labels_on_hands_the_mark_on():
    assert "synthetic" in IDENTITY_COLUMNS
    for schema in (IMAGES, CAPTIONS, EMBEDDINGS):
        assert set(IDENTITY_COLUMNS) <= set(schema.names)
