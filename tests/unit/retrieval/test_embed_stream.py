"""One embedding row for every input row, whatever is wrong with it: the plain classes that the Ray actors wrap."""

import io

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from refusals import refused

from reid_ray.data.images import encode_jpeg
from reid_ray.errors import DataError
from reid_ray.model.plain_text import TruncationCounts
from reid_ray.records import CAPTIONS, EMBEDDINGS, IMAGES, conform, table_of
from reid_ray.retrieval.embed.features import collect_features, read_features
from reid_ray.retrieval.embed_stream import ImageEmbedder, TextEmbedder, add_truncation_counts


class MeanColour:
    """An encoder one can compute by hand: the mean colour, normalised; a text's letters r, g and b, counted."""

    dim, fingerprint, context = 3, "mean-colour", 5

    def encode_images(self, pictures):
        return _normalise([np.asarray(p, np.float64).mean(axis=(0, 1)) for p in pictures])

    def encode_and_measure(self, texts):
        return _normalise([[text.count(letter) for letter in "rgb"] for text in texts]), np.array([len(text) for text in texts])


def _normalise(vectors):
    vectors = np.array(vectors, np.float64)
    with np.errstate(invalid="ignore"):
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def jpeg(colour, size=(32, 64)):
    return encode_jpeg(Image.new("RGB", size, colour))


NOISE = encode_jpeg(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 32, 3), np.uint8)))


def images_of(**pictures):
    rows = [{"image_id": name, "image": data, "person_id": 7, "camera_id": 2, "split": "test"} for name, data in pictures.items()]
    return table_of(IMAGES, rows)


def test_every_image_row_becomes_one_row_in_order_with_its_vector_or_a_reason():
    images = images_of(
        red=jpeg((250, 0, 0)),
        empty=b"",
        text=b"not an image",
        gone=None,
        cut=NOISE[: len(NOISE) // 2],
        green=jpeg((0, 250, 0)),
        black=jpeg(0),
    )
    table = ImageEmbedder(MeanColour())(images)
    rows = {row["item_id"]: row for row in conform(table, EMBEDDINGS, origin="test").to_pylist()}
    assert table["item_id"].to_pylist() == images["image_id"].to_pylist()
    np.testing.assert_allclose(rows["red"]["embedding"], [1, 0, 0], atol=0.02)
    np.testing.assert_allclose(rows["green"]["embedding"], [0, 1, 0], atol=0.02)
    reasons = {name: row["reason"].partition(":")[0] for name, row in rows.items() if row["status"] == "failed"}
    assert reasons == {"empty": "empty", "text": "not_an_image", "gone": "missing", "cut": "truncated", "black": "not_finite"}
    assert all((row["embedding"] is None) == (row["status"] == "failed") for row in rows.values())
    assert rows["red"]["person_id"] == 7
    assert rows["red"]["camera_id"] == 2
    assert set(table["encoder_fingerprint"].to_pylist()) == {"mean-colour"}


def test_the_zero_vector_is_a_failed_row_and_no_gallery_is_refused_for_it():
    class Clamped(MeanColour):
        def encode_images(self, pictures):
            return np.nan_to_num(super().encode_images(pictures))

    table = ImageEmbedder(Clamped())(images_of(red=jpeg((250, 0, 0)), black=jpeg(0)))
    assert table["status"].to_pylist() == ["ok", "failed"]
    assert table["reason"][1].as_py().startswith("zero_vector: ")


def test_thumbnails_are_shrunk_never_enlarged_and_absent_where_the_image_failed():
    images = images_of(tall=jpeg(99, size=(200, 400)), wide=jpeg(99, size=(4000, 100)), small=jpeg(99, size=(8, 16)), bad=b"x")
    table = ImageEmbedder(MeanColour(), thumbnail_height=100)(images)
    sizes = [data and Image.open(io.BytesIO(data)).size for data in table["thumbnail"].to_pylist()]
    assert sizes == [(50, 100), (400, 10), (8, 16), None]


def test_a_batch_without_any_good_image_is_all_failed_rows():
    table = ImageEmbedder(MeanColour(), thumbnail_height=64)(images_of(a=b"", b=b"?"))
    assert table["status"].to_pylist() == ["failed", "failed"]


def test_captions_without_text_are_failed_rows():
    texts = {"c0": ("rrr", "ok"), "c1": ("  ", "ok"), "c2": (None, "failed"), "c3": ("bb", "unfaithful"), "c4": ("xyz", "ok")}
    rows = [{"caption_id": i, "image_id": f"i{i}", "kind": "human", "text": t, "status": s} for i, (t, s) in texts.items()]
    table = TextEmbedder(MeanColour())(table_of(CAPTIONS, rows))
    assert table["status"].to_pylist() == ["ok", "failed", "failed", "ok", "failed"]
    assert [r and r.partition(":")[0] for r in table["reason"].to_pylist()] == [None, "empty_text", "caption_failed", None, "not_finite"]
    assert table["embedding"][3].as_py() == pytest.approx([0, 0, 1])
    assert table["image_id"].to_pylist() == [f"ic{n}" for n in range(5)]
    assert table["text"][0].as_py() == "rrr"


def test_texts_that_the_encoder_cuts_are_counted_from_the_table_and_again_from_disk(tmp_path):
    texts = [("rrrrr", "ok", "test"), ("rgbrgb", "ok", "test"), ("  ", "ok", "test"), ("b" * 40, "ok", "val"), ("x" * 90, "ok", "test")]
    rows = [
        {"caption_id": f"c{n}", "image_id": "i", "kind": "human", "text": text, "status": status, "split": split, "person_id": n}
        for n, (text, status, split) in enumerate(texts)
    ]
    table = TextEmbedder(MeanColour())(table_of(CAPTIONS, rows))
    assert table["text_tokens"].to_pylist() == [5, 6, None, 40, None]  # c4 has no vector, so it was not read at all
    assert table["text_truncated"].to_pylist() == [False, True, None, True, None]
    cut = TruncationCounts()
    for row in range(table.num_rows):
        add_truncation_counts(cut, table.slice(row, 1))
    assert cut.facts() == {"truncated": 2, "of": 3, "longest": 40}
    of_test = {"truncated": 1, "of": 2, "longest": 6}
    assert collect_features([table], origin="t", capacity=5, split="test").texts_cut.facts() == of_test
    pq.write_table(table, tmp_path / "new.parquet")
    assert read_features(str(tmp_path / "new.parquet"), kind="text", split="test").texts_cut.facts() == of_test
    pq.write_table(table.select(EMBEDDINGS.names), tmp_path / "old.parquet")
    assert read_features(str(tmp_path / "old.parquet"), kind="text", split="test").texts_cut is None


def test_images_that_are_embedded_once_are_the_queries_they_would_be_by_themselves():
    pictures = {"a": jpeg((200, 0, 0)), "b": jpeg((0, 200, 0)), "broken": b"no picture", "c": jpeg((0, 0, 200))}
    persons = {"a": 3, "b": None, "broken": None, "c": 4}
    rows = [{"image_id": name, "image": data, "person_id": persons[name]} for name, data in pictures.items()]
    table = ImageEmbedder(MeanColour())(table_of(IMAGES, rows))
    gallery = collect_features([table], origin="t", capacity=4)
    queries, alone = gallery.of_known_persons(), collect_features([table], origin="t", capacity=4, drop_unknown_persons=True)
    assert gallery.ids == ["a", "b", "c"]
    assert queries.ids == alone.ids == ["a", "c"]
    assert queries.unused == alone.unused
    assert np.array_equal(queries.vector_ND, alone.vector_ND)
    nobody = collect_features([table.slice(1, 1)], origin="t", capacity=1)
    with refused(DataError, "t: holds no usable row", "unknown_person"):
        nobody.of_known_persons()
