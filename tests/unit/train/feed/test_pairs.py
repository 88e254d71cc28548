"""Joining images and captions: every caption read is a sample, a rewrite or a counted reason; rows keep their text, person and bytes."""

from __future__ import annotations

import itertools
import os
import signal
import sys
from functools import partial

import numpy as np
import pytest
from bucket import s3_server
from PIL import Image
from refusals import refused
from stretches import contents, job_of_many, prepared, small_stretches

from reid_ray.config.base import load_config
from reid_ray.data.images import encode_jpeg
from reid_ray.errors import ConfigError, DataError
from reid_ray.records import CAPTIONS, IMAGES, table_of
from reid_ray.storage import Counts, TableWriter
from reid_ray.train.dual.config import TrainJob
from reid_ray.train.feed import join, pairs
from reid_ray.train.feed.key_index import hashes
from reid_ray.train.feed.pairs import prepare_pairs
from reid_ray.train.feed.pictures import PictureStore
from reid_ray.train.feed.prepared import PICTURES, SAMPLES, VALIDATION, RowFile, texts_of
from reid_ray.train.feed.spread import Spread
from reid_ray.train.run import captions_in_words


def jpeg(shade: int) -> bytes:
    return encode_jpeg(Image.fromarray(np.full((16, 8, 3), shade, np.uint8)))


def image(name: str, split: str, person: int | None, data: bytes, dataset: str = "a", camera: int | None = None) -> dict:
    return {"image_id": name, "image": data, "split": split, "person_id": person, "dataset": dataset, "camera_id": camera}


def caption(name: str, of: str, kind: str = "human", text: str | None = "a person", status: str = "ok", parent: str | None = None) -> dict:
    return {"caption_id": name, "image_id": of, "kind": kind, "text": text, "status": status, "parent_id": parent}


IMAGES_ROWS = [
    image("i1", "train", 7, jpeg(10), camera=3),
    image("i2", "train", 7, jpeg(20), dataset="b"),  # the same number in another data set is another person
    image("i3", "train", None, jpeg(30)),
    image("i4", "train", None, jpeg(40)),
    image("broken", "train", 8, jpeg(50)[:-4]),
    image("v1", "val", 9, jpeg(60)),
    image("t1", "test", 10, jpeg(70)),
    image("unused", "train", 11, jpeg(80)),
]
CAPTIONS_ROWS = [
    caption("c1", "i1", text="one"),
    caption("c2", "i2", "static", text="two"),
    caption("c3", "i3", text="three"),
    caption("c4", "i4", text="four"),
    caption("r1", "i1", "rewrite", text="one again", parent="c1"),
    caption("r2", "i3", "rewrite", text="three again", parent="c3"),
    caption("r3", "i1", "rewrite", text="one once more", parent="c1"),
    caption("r4", "i1", "rewrite", text="unfaithful", status="unfaithful", parent="c1"),
    caption("r5", "t1", "rewrite", text="of a test caption", parent="ct"),
    caption("r6", "i2", "rewrite", text="of nothing", parent="nowhere"),
    caption("cv", "v1", text="validation"),
    caption("ct", "t1", text="test"),
    caption("cb", "broken", text="broken"),
    caption("cd", "i1", "dynamic", text="other kind"),
    caption("cf", "i1", status="failed", text=None),
    caption("ce", "i1", text=""),
    caption("cu", "nobody", text="unknown image"),
]


@pytest.fixture
def tables(tmp_path):
    def write(images=IMAGES_ROWS, captions=CAPTIONS_ROWS, *overrides):
        for name, schema, rows in (("images", IMAGES, images), ("captions", CAPTIONS, captions)):
            with TableWriter(tmp_path / name, schema) as writer:
                writer.append(table_of(schema, rows))
        paths = [f"images.path={tmp_path}/images", f"captions.paths=[{tmp_path}/captions]", f"output.path={tmp_path}/out"]
        kinds = ["captions.kinds=[human, static]", "batches.size=2", "workers.count=1"]
        return load_config(TrainJob, None, [*paths, *kinds, *overrides])

    return write


@pytest.mark.slow
def test_tables_in_a_bucket_give_what_those_on_disk_give(tables, tmp_path):
    here, there = tmp_path / "from disk", tmp_path / "from bucket"
    counts = {}
    with s3_server() as bucket:
        config = tables()
        addresses = [bucket.put(tmp_path / name, name) for name in ("images", "captions")]
        for folder, paths in ((here, []), (there, [f"images.path={addresses[0]}", f"captions.paths=['{addresses[1]}']"])):
            folder.mkdir()
            counts[folder] = Counts()
            facts = prepare_pairs(tables(IMAGES_ROWS, CAPTIONS_ROWS, *paths) if paths else config, folder, counts[folder])
            assert facts["samples"] == 4
    assert counts[here].as_dict() == counts[there].as_dict()
    assert contents(there) == contents(here)


def test_every_caption_is_used_or_counted(tables, tmp_path):
    counts = Counts()
    facts = prepare_pairs(tables(), tmp_path, counts)
    assert counts.as_dict() == {
        "read": 17,
        "written": 8,
        "failed": {"failed": 1, "image_unknown": 1, "no_text": 1, "truncated": 1},
        "left_out": {"other_kind": 1, "other_split": 2, "parent_not_used": 1, "unfaithful": 1},
    }
    assert facts == {
        "samples": 4,
        "stand_ins": 0,
        "rewrites": 3,
        "persons": 4,
        "pictures": 4,
        "validation_queries": 1,
        "validation_pictures": 1,
        "datasets": ["a", "b"],
    }


def test_rows_keep_text_rewrites_person_and_bytes(tables, tmp_path):
    prepare_pairs(tables(), tmp_path, Counts())
    samples, pictures = RowFile(tmp_path / SAMPLES), PictureStore(tmp_path / PICTURES)
    rows = {row["text"]: row for row in samples.take(np.arange(len(samples))).to_pylist()}
    assert {text: row["rewrites"] for text, row in rows.items()} == {
        "one": ["one again", "one once more"],
        "two": [],
        "three": ["three again"],
        "four": [],
    }
    assert len({row["person"] for row in rows.values()}) == 4
    assert {text: row["camera"] for text, row in rows.items()} == {"one": 3, "two": -1, "three": -1, "four": -1}
    assert [pictures[rows[text]["picture"]] for text in ("one", "two", "three", "four")] == [jpeg(s) for s in (10, 20, 30, 40)]
    assert list(texts_of(RowFile(tmp_path / VALIDATION))) == ["validation"]
    assert len(pictures) == 5  # neither the broken, nor the test, nor the unused one
    assert sorted(texts_of(samples)) == ["four", "one", "one again", "one once more", "three", "three again", "two"]
    with pytest.raises(IndexError):
        pictures[5]


def test_a_rewrite_of_a_caption_that_validates_is_left_out_for_nothing_asks_by_it(tables, tmp_path):
    counts = Counts()
    captions = [*CAPTIONS_ROWS, caption("rv", "v1", "rewrite", text="validation again", parent="cv")]
    facts = prepare_pairs(tables(IMAGES_ROWS, captions), tmp_path, counts)
    assert (counts.left_out["parent_validates"], counts.left_out["parent_not_used"], facts["rewrites"]) == (1, 1, 3)
    assert counts.written == facts["samples"] + facts["rewrites"] + facts["validation_queries"]
    assert counts.written + sum(counts.unused.values()) == counts.read
    assert list(texts_of(RowFile(tmp_path / VALIDATION))) == ["validation"]
    said = captions_in_words(counts, facts)
    assert "training 4 of 4 persons, rewrites of these 3, validation 1, " in said


@pytest.mark.parametrize(
    ("kinds", "texts"), [("[static, dynamic]", ["b", "s", "s", "t"]), ("[dynamic]", ["b", "s"]), ("[static]", ["s", "t"])]
)
def test_a_static_caption_stands_in_for_a_dynamic_one_that_failed(tables, tmp_path, kinds, texts):
    """As in the released code of LUPerson-MLLM: an image keeps as many samples; each caption read is a sample or a counted reason."""
    images = [image("a", "train", None, jpeg(1)), image("b", "train", None, jpeg(2)), image("c", "train", None, jpeg(3))]
    captions = [
        caption("d1", "a", "dynamic", text=None, status="failed"),
        caption("s1", "a", "static", text="s"),
        caption("d2", "b", "dynamic", text="b"),
        caption("s2", "b", "static", text="t"),
        caption("d3", "c", "dynamic", text=None, status="failed"),  # it has none
    ]
    counts = Counts()
    config = tables(images, captions, "images.val_split=null", f"captions.kinds={kinds}", "batches.size=2", "captions.rewrite_share=0")
    facts = prepare_pairs(config, tmp_path, counts)
    assert sorted(texts_of(RowFile(tmp_path / SAMPLES))) == texts
    assert facts["stand_ins"] == (kinds != "[static]")
    assert counts.read == 5
    assert counts.written + sum(counts.unused.values()) == counts.read
    assert counts.unused["failed"] == (kinds != "[static]")


def test_a_share_of_zero_reads_no_rewrites(tables, tmp_path):
    counts = Counts()
    facts = prepare_pairs(tables(IMAGES_ROWS, CAPTIONS_ROWS, "captions.rewrite_share=0"), tmp_path, counts)
    assert facts["rewrites"] == 0
    assert counts.unused["other_kind"] == 7


def test_a_store_of_many_pieces_finds_every_row(tables, tmp_path):
    images = [image(f"i{n}", "train", n, jpeg(n)) for n in range(100)]
    captions = [caption(f"c{n}", f"i{n}", text=str(n)) for n in reversed(range(100))]
    prepare_pairs(tables(images, captions, "images.val_split=null"), tmp_path, Counts())
    pictures = PictureStore(tmp_path / PICTURES)
    samples = RowFile(tmp_path / SAMPLES)
    assert all(pictures[row["picture"]] == jpeg(int(row["text"])) for row in samples.take(np.arange(100)).to_pylist())


def test_what_cannot_be_trained_on_is_refused_with_the_reasons(tables, tmp_path):
    with refused(DataError, "4 captions", "split 'train'", "batches.size 8", "unfaithful 1"):
        prepare_pairs(tables(IMAGES_ROWS, CAPTIONS_ROWS, "batches.size=8"), tmp_path, Counts())
    with refused(DataError, "split 'query'"):
        prepare_pairs(tables(IMAGES_ROWS, CAPTIONS_ROWS, "images.val_split=query"), tmp_path, Counts())
    with refused(DataError, "'i1'"):
        prepare_pairs(tables([*IMAGES_ROWS, IMAGES_ROWS[0]]), tmp_path, Counts())


IDENTITY = ["batches.sampler=identity", "batches.samples_per_identity=2", "batches.size=4", "images.val_split=null"]


@pytest.mark.slow
def test_identity_sampling_counts_whose_pictures_repeat_and_refuses_what_it_cannot_fill(tables, tmp_path):
    images = [image(f"i{n}", "train", person, jpeg(n)) for n, person in enumerate([1, 1, 1, 2, 2, 3])]
    captions = [caption(f"c{n}", f"i{n}") for n in range(6)]
    facts = prepare_pairs(tables(images, captions, *IDENTITY), tmp_path, Counts())
    assert (facts["persons_with_one_picture"], facts["persons_with_repeated_pictures"]) == (1, 1)
    facts = prepare_pairs(tables(images, captions, *IDENTITY, "batches.samples_per_identity=4"), tmp_path, Counts())
    assert (facts["persons_with_one_picture"], facts["persons_with_repeated_pictures"]) == (1, 3)
    twice = [*captions, *(caption(f"d{n}", f"i{n}") for n in range(6))]
    with refused(DataError, "3 identities", "split 'train'", "4"):
        prepare_pairs(tables(images, twice, *IDENTITY, "batches.size=8"), tmp_path, Counts())
    strangers = [{**row, "person_id": None} for row in images]
    with refused(DataError, "6 identities", "split 'train'"):
        prepare_pairs(tables(strangers, captions, *IDENTITY), tmp_path, Counts())


def test_batches_of_torn_identities_are_refused():
    needed = ["images.path=x", "captions.paths=[x]", "output.path=x", "batches.sampler=identity"]
    with refused(ConfigError, "size 66", "samples_per_identity 4", "64"):
        load_config(TrainJob, None, [*needed, "batches.size=66", "workers.count=2"])
    with refused(ConfigError, "samples_per_identity 3", "workers.count 2"):
        load_config(TrainJob, None, [*needed, "batches.size=12", "workers.count=2"])


def test_selection_on_test_or_train_is_refused():
    needed = ["images.path=x", "captions.paths=[x]", "output.path=x"]
    with refused(ConfigError, "images", "val_split"):
        load_config(TrainJob, None, [*needed, "images.val_split=test"])
    with refused(ConfigError, "images", "val_split"):
        load_config(TrainJob, None, [*needed, "images.val_split=train"])
    with refused(ConfigError, "workers.count 3"):
        load_config(TrainJob, None, [*needed, "batches.size=64", "workers.count=3"])


def texts(path):
    return sorted(texts_of(RowFile(path)))


def test_images_without_a_split_are_learnt_from_where_none_is_asked_for(tables, tmp_path):
    """As LUPerson's and a folder's are; with the usual split asked for, the message says how."""
    images = [image(f"i{n}", None, None, jpeg(n)) for n in range(8)] + [image("t", "test", None, jpeg(9))]
    captions = [caption(f"c{n}", f"i{n}", text=f"text {n}") for n in range(8)] + [caption("ct", "t")]
    counts = Counts()
    facts = prepare_pairs(tables(images, captions, "images.train_split=null", "images.val_split=null"), tmp_path, counts)
    assert (facts["samples"], facts["validation_queries"], dict(counts.unused)) == (8, 0, {"other_split": 1})
    with refused(DataError, "8 images", "images.train_split", "null"):
        prepare_pairs(tables(images, captions), tmp_path, Counts())


HELD_OUT = ("images.val_split=null", "images.val_share=0.3")


@pytest.mark.slow
def test_a_share_of_the_identities_is_held_out_whole_and_stays_held_out_when_others_come(tables, tmp_path):
    people = [(f"i{n}", n // 4) for n in range(160)]
    images = [image(name, "train", person, jpeg(10)) for name, person in people]
    captions = [caption(f"c{name}", name, text=f"{person}") for name, person in people]
    facts = prepare_pairs(tables(images, captions, *HELD_OUT), tmp_path, Counts())
    learnt, watched = set(texts(tmp_path / SAMPLES)), set(texts(tmp_path / VALIDATION))
    assert not learnt & watched
    assert learnt | watched == {str(person) for _, person in people}
    assert 4 <= len(watched) <= 20  # 40 identities, 12 expected
    assert facts["samples"] + facts["validation_queries"] == 160
    more = [image(f"j{n}", "train", 1000 + n, jpeg(10)) for n in range(40)]
    added = [caption(f"cj{n}", f"j{n}", text=f"{1000 + n}") for n in range(40)]
    prepare_pairs(tables([*more, *reversed(images)], [*added, *captions], *HELD_OUT), tmp_path, Counts())
    assert set(texts(tmp_path / VALIDATION)) >= watched
    assert not set(texts(tmp_path / SAMPLES)) & watched
    prepare_pairs(tables(images, captions, *HELD_OUT, "images.val_seed=1"), tmp_path, Counts())
    assert set(texts(tmp_path / VALIDATION)) != watched


@pytest.mark.parametrize("identity", ["image", "caption"])
def test_persons_are_held_out_whole_whatever_counts_as_one_identity_in_the_losses(tables, tmp_path, identity):
    people = [(f"i{n}", n // 4) for n in range(80)] + [(f"u{n}", None) for n in range(20)]
    images = [image(name, "train", person, jpeg(10)) for name, person in people]
    captions = [caption(f"c{name}", name, text=f"{person} {name if person is None else ''}".strip()) for name, person in people]
    prepare_pairs(tables(images, captions, *HELD_OUT, f"images.identity={identity}"), tmp_path, Counts())
    learnt, watched = set(texts(tmp_path / SAMPLES)), set(texts(tmp_path / VALIDATION))
    assert learnt
    assert watched
    assert not learnt & watched


@pytest.mark.parametrize(("identity", "persons"), [("person", 2), ("image", 3), ("caption", 6)])
def test_what_counts_as_one_identity_is_a_choice(tables, tmp_path, identity, persons):
    images = [image("a", "train", 1, jpeg(1)), image("b", "train", 1, jpeg(2)), image("c", "train", None, jpeg(3))]
    captions = [caption(f"{name}{n}", name) for name in "abc" for n in range(2)]
    facts = prepare_pairs(tables(images, captions, "images.val_split=null", f"images.identity={identity}"), tmp_path, Counts())
    assert facts["persons"] == persons


def test_images_are_found_by_their_names_and_not_by_a_hash_that_others_share(tables, tmp_path, monkeypatch):
    images = [image(f"i{n}", "train", n, jpeg(n)) for n in range(50)]
    captions = [caption(f"c{n}", f"i{n}", text=str(n)) for n in range(50)] + [caption("cx", "nobody")]
    whole = hashes
    monkeypatch.setattr(join, "hashes", lambda keys: whole(keys) % 7)
    counts = Counts()
    prepare_pairs(tables(images, captions, "images.val_split=null", "captions.rewrite_share=0"), tmp_path, counts)
    samples, pictures = RowFile(tmp_path / SAMPLES), PictureStore(tmp_path / PICTURES)
    assert counts.unused == {"image_unknown": 1}
    assert all(pictures[row["picture"]] == jpeg(int(row["text"])) for row in samples.take(np.arange(50)).to_pylist())


def test_a_table_that_changes_while_it_is_read_is_refused(tables, tmp_path, monkeypatch):
    job = tables()
    accept = pairs.accept_captions

    def then_write_the_images_anew(*arguments, **options):
        found = accept(*arguments, **options)
        tables([IMAGES_ROWS[1], IMAGES_ROWS[0], *IMAGES_ROWS[2:]])
        return found

    monkeypatch.setattr(pairs, "accept_captions", then_write_the_images_anew)
    with refused(DataError, str(tmp_path)):
        prepare_pairs(job, tmp_path, Counts())


def kill_after(fsyncs, number, event, _):
    if event == "reid_ray.fsync" and next(number) > fsyncs:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_preparation_that_was_killed_goes_on_with_the_stretches_that_it_had_finished(tmp_path, monkeypatch):
    small_stretches(monkeypatch)
    job = job_of_many(tmp_path)
    whole = prepared(job, tmp_path / "whole", Spread(), monkeypatch)
    assert len(list((tmp_path / "whole" / PICTURES).iterdir())) == 3
    finished = set()
    for fsyncs in (3, 5, 3, 3, 3):  # of five stretches of captions and three of pictures, two each
        process = os.fork()
        if not process:
            sys.addaudithook(partial(kill_after, fsyncs, itertools.count(1)))
            prepared(job, tmp_path / "killed", Spread(at_once=1), monkeypatch)
            os._exit(0)
        assert os.waitpid(process, 0)[1] == 9
        now = {(path, path.stat().st_ino) for path in (tmp_path / "killed").glob("*/*.json")}
        assert finished <= now  # none was made again
        finished = now
    assert finished
    assert prepared(job, tmp_path / "killed", Spread(), monkeypatch) == whole
    assert (
        prepared(job_of_many(tmp_path, "images.val_seed=3"), tmp_path / "killed", Spread(), monkeypatch) != whole
    )  # no other job's are taken
