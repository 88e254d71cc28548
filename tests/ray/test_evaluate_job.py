"""The evaluate job embeds through Ray Data actors; its numbers are those of a plain loop over the same encoder."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from bucket import s3_server

from reid_ray.config.common import SyntheticConfig
from reid_ray.model.dual.config import ModelConfig
from reid_ray.retrieval.evaluate.config import EvaluateJob

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Twelve synthetic people, one crop broken, and an untrained encoder whose folder says what it was selected on."""
    import pyarrow as pa

    from reid_ray.data.synthetic.people import SyntheticPeople
    from reid_ray.model.dual.dual_encoder import build_dual_encoder

    root = tmp_path_factory.mktemp("evaluate")
    people = SyntheticPeople(SyntheticConfig(identities=12, images_per_identity=4, cameras=4, val_share=0.0, test_share=0.5))
    images, captions = people.image_table(), people.caption_table()
    broken = images["image"].to_pylist()
    test_rows = [n for n, split in enumerate(images["split"].to_pylist()) if split == "test"]
    broken[test_rows[0]] = broken[test_rows[0]][:80]
    images = images.set_column(images.column_names.index("image"), "image", pa.array(broken, pa.binary()))
    pq.write_table(images, root / "images.parquet")
    pq.write_table(captions, root / "captions.parquet")
    shape = {"vision_width": 32, "vision_layers": 1, "text_width": 32, "text_layers": 1, "embed_dim": 16, "vocab_size": 300, "context": 32}
    encoder = build_dual_encoder(ModelConfig(image_height=64, image_width=32, scratch=shape), captions["text"].to_pylist())
    encoder.save(root / "model", {"selected_on": "val", "selection": "best text-to-image R@1", "step": 7})
    return {"root": root, "encoder": encoder, "images": images, "captions": captions}


@pytest.mark.parametrize("protocol", ["text_to_image", "image_to_image"])
def test_ray_data_actors_score_as_a_plain_loop_does(world, local_ray, protocol):
    from reid_ray.data.images import BadImageError, decode_image
    from reid_ray.retrieval.evaluate.job import run_evaluate
    from reid_ray.retrieval.metrics import GroundTruth
    from reid_ray.retrieval.ranking.exact import rank_queries

    root, encoder = world["root"], world["encoder"]
    output = root / protocol
    captions = str(root / "captions.parquet") if protocol == "text_to_image" else None
    config = {
        "protocol": protocol,
        "encoder": str(root / "model"),
        "images": str(root / "images.parquet"),
        "captions": captions,
        "embed": {"batch_size": 16},
        "sheet_queries": 2,
        "output": {"path": str(output)},
    }
    run_evaluate(EvaluateJob.model_validate(config))
    result = json.loads((output / "result.json").read_text())

    pictures, who = [], []
    for row in world["images"].to_pylist():
        if row["split"] != "test":
            continue
        try:
            pictures.append(decode_image(row["image"]))
            who.append((row["person_id"], row["camera_id"]))
        except BadImageError:
            continue
    person_G, camera_G = np.array(who).T
    gallery_GD = encoder.encode_images(pictures)
    if protocol == "text_to_image":
        asked = [row for row in world["captions"].to_pylist() if row["split"] == "test"]
        truth = GroundTruth.text_to_image([row["person_id"] for row in asked], person_G)
        expected = rank_queries(encoder.encode_texts([row["text"] for row in asked]), gallery_GD, truth).results
    else:
        truth = GroundTruth.image_to_image(person_G, person_G, query_camera_Q=camera_G, gallery_camera_G=camera_G)
        expected = rank_queries(gallery_GD, gallery_GD, truth).results
    assert (result["queries"], result["gallery"]) == (int(expected.counted.sum()), len(pictures))
    for name, value in expected.summary().items():
        assert result[name] == pytest.approx(value, abs=1e-6), name
    assert sum(result["failed"]["gallery"].values()) == 1
    assert result["selection"]["selected_on"] == "val"
    assert result["selected_elsewhere"] is None  # these weights have no record, and the name of a split is none
    assert "not selected on it" not in (output / "report.md").read_text()
    assert (output / "sheet.png").is_file()


@pytest.fixture(scope="module")
def bucket(world):
    """The table images.parquet and, as a folder, the crops of split test, on an S3 server."""
    with s3_server() as s3:
        s3.write("tables/images.parquet", (world["root"] / "images.parquet").read_bytes())
        for row in world["images"].to_pylist():
            if row["split"] == "test":
                s3.write(f"crops/{row['person_id']}/{row['image_id']}.jpg", row["image"])
        yield s3


def test_an_index_of_a_bucket_holds_the_vectors_of_its_images(world, bucket, local_ray):
    from reid_ray.data.images import BadImageError, decode_image
    from reid_ray.gallery.gallery_view import GalleryView
    from reid_ray.retrieval.index.config import IndexJob
    from reid_ray.retrieval.index.job import run_index

    images, output = {"source": "folder", "path": bucket.address("crops")}, {"path": str(world["root"] / "index"), "if_exists": "reuse"}
    config = IndexJob.model_validate({"images": images, "encoder": str(world["root"] / "model"), "output": output})
    manifest = run_index(config)
    expected = {}
    for row in world["images"].to_pylist():
        if row["split"] == "test":
            try:
                expected[f"{row['person_id']}/{row['image_id']}.jpg"] = decode_image(row["image"])
            except BadImageError:
                continue
    assert manifest["counts"] == {"read": len(expected) + 1, "written": len(expected), "failed": {"unreadable": 1}, "left_out": {}}
    best = [hits[0] for hits in GalleryView(world["root"] / "index").search(world["encoder"].encode_images(list(expected.values())), 1)]
    assert [hit.item["image_id"] for hit in best] == list(expected)
    assert min(hit.score for hit in best) > 1 - 1e-5
    bucket.requests.clear()
    assert run_index(config) == manifest  # kept: one listing says that nothing changed
    assert bucket.requests["GET"] == 0


def test_vectors_that_the_embed_job_wrote_from_a_bucket_score_as_the_job_that_embeds_itself(world, bucket, local_ray):
    from reid_ray.retrieval.embed.config import EmbedJob
    from reid_ray.retrieval.embed.job import run_embed
    from reid_ray.retrieval.evaluate.job import run_evaluate

    root = world["root"]
    common = {"encoder": str(root / "model"), "embed": {"replicas": 2, "batch_size": 4}, "rows_per_file": 8}
    images = {"source": "parquet", "path": bucket.address("tables"), "split": "test"}
    made = run_embed(EmbedJob.model_validate({**common, "images": images, "output": {"path": str(root / "vectors_images")}}))
    captions = {"captions": str(root / "captions.parquet"), "split": "test"}
    one = {**common, "embed": {"replicas": 1, "batch_size": 4}}
    texts = run_embed(EmbedJob.model_validate({**one, **captions, "output": {"path": str(root / "vectors_texts")}}))
    assert texts["facts"]["texts_cut"]["of"] == texts["counts"]["written"]
    assert made["counts"]["read"] == made["counts"]["written"] + 1 == world["images"]["split"].to_pylist().count("test")
    itself = {"encoder": common["encoder"], "images": str(root / "images.parquet"), "captions": captions["captions"]}
    tables = {"query_embeddings": str(root / "vectors_texts"), "gallery_embeddings": str(root / "vectors_images")}
    results = []
    for name, sides in (("by_itself", itself), ("from_tables", tables)):
        run_evaluate(EvaluateJob.model_validate({**sides, "sheet_queries": 0, "output": {"path": str(root / name)}}))
        results.append(json.loads((root / name / "result.json").read_text()))
    for name in ("queries", "gallery", "r1", "r5", "r10", "map", "minp", "failed", "texts_cut"):
        assert results[1][name] == results[0][name]
    assert results[0]["texts_cut"]["of"] >= results[0]["queries"]
    with pytest.raises(ValueError, match="give exactly one of them"):
        EmbedJob.model_validate({"encoder": "e", "output": {"path": "o"}})


def test_in_this_process_the_same_rows_are_made_as_by_actors(world, local_ray):
    """Vectors to the last bit, pictures, reasons, and scores: the jobs call the same classes with the same batches."""
    from reid_ray.gallery.gallery_view import GalleryView
    from reid_ray.retrieval.embed.config import EmbedJob
    from reid_ray.retrieval.embed.job import run_embed
    from reid_ray.retrieval.evaluate.job import run_evaluate
    from reid_ray.retrieval.index.config import IndexJob
    from reid_ray.retrieval.index.job import run_index

    root = world["root"]
    images = {"source": "parquet", "path": str(root / "images.parquet")}
    common = {"encoder": str(root / "model"), "embed": {"batch_size": 10}}
    found = {}
    for execution in ("ray", "in_process"):
        place, how = root / execution, {**common, "ray": {"execution": execution}}
        index = run_index(IndexJob.model_validate({**how, "images": images, "output": {"path": str(place / "index")}}))
        view = GalleryView(place / "index")
        rows = run_embed(EmbedJob.model_validate({**how, "images": images, "rows_per_file": 20, "output": {"path": str(place / "images")}}))
        texts = {**how, "captions": str(root / "captions.parquet"), "rows_per_file": 20, "output": {"path": str(place / "texts")}}
        told = run_embed(EmbedJob.model_validate(texts))
        sides = {"images": images["path"], "captions": texts["captions"], "sheet_queries": 0, "output": {"path": str(place / "scores")}}
        run_evaluate(EvaluateJob.model_validate({**how, **sides}))
        found[execution] = {
            "ids": view.ids(),
            "items": [{name: value for name, value in item.items() if name != "added_s"} for item in view.get(view.ids())],
            "vectors": view.vectors(view.ids()).tolist(),
            "thumbnails": [view.thumbnail(item) for item in view.ids()],
            "left out": pq.read_table(place / "index" / "failed").to_pylist(),
            "counts": [index["counts"], rows["counts"], told["counts"]],
            "facts": [{**made["facts"], "encoder_path": None} for made in (index, rows, told)],
            "tables": [pq.read_table(place / name / "embeddings").to_pylist() for name in ("images", "texts")],
            "queries": pq.read_table(place / "scores" / "queries.parquet").to_pylist(),
        }
    assert sum(found["ray"]["counts"][0]["failed"].values()) == 1
    for name, rows in found["ray"].items():
        assert found["in_process"][name] == rows, name
