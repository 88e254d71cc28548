"""Training on several tables and a share of people whom an editor made: who is learnt from, and what each batch holds."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
from feeds import _as_they_are, _ragged
from PIL import Image
from refusals import refused

from reid_ray.config.base import load_config
from reid_ray.data.images import encode_jpeg
from reid_ray.errors import DataError
from reid_ray.records import CAPTIONS, EDITS, IMAGES, SEEN, table_of
from reid_ray.storage import Counts
from reid_ray.train.dual.config import TrainJob
from reid_ray.train.feed.augment import Fill
from reid_ray.train.feed.batches import BatchPlan, IdentityOrder, Mixture, ShuffledOrder
from reid_ray.train.feed.loader import Feed
from reid_ray.train.feed.pairs import prepare_pairs
from reid_ray.train.feed.prepared import IDS, SAMPLES, VALIDATION, RowFile

PEOPLE, PICTURES = 40, 2
EDITED = np.arange(100) % 5 == 0  # of 100 samples


def order_of(share, *, size=8, seed=3):
    return ShuffledOrder(100, size=size, seed=seed, edited_S=EDITED, edited_share=share)


@pytest.mark.parametrize("share", [0.2, 0.25, 0.3, 0.05])
def test_any_number_of_an_epochs_batches_has_its_share_of_edited_samples_and_no_sample_twice_in_one(share):
    order = order_of(share)
    for epoch in range(3):
        edited = 0
        for step in range(order.steps_per_epoch):
            batch = order.samples(epoch * order.steps_per_epoch + step)
            assert len(batch) == len(set(batch.tolist())) == 8
            edited += int(EDITED[batch].sum())
            assert edited == int(np.floor((step + 1) * 8 * share + 1e-9))
        assert Mixture(8, share).edited_before(order.steps_per_epoch) == edited


@pytest.mark.parametrize("share", [0.2, 0.3])
def test_an_epoch_passes_over_the_photographs_once_and_over_the_edited_evenly(share):
    order = order_of(share)
    for epoch in range(3):
        drawn = np.concatenate([order.samples(epoch * order.steps_per_epoch + step) for step in range(order.steps_per_epoch)])
        photographs = drawn[~EDITED[drawn]]
        assert len(set(photographs.tolist())) == len(photographs)
        assert 80 - len(photographs) < 8  # what fills no batch
    steps = 10 * len(EDITED)
    counts = np.bincount(np.concatenate([order.samples(step) for step in range(steps)]), minlength=100)[EDITED]
    assert counts.min() > 0
    assert counts.max() - counts.min() <= 0.35 * counts.mean()


def test_the_places_of_edited_samples_change_so_that_every_worker_has_some():
    order = order_of(0.25)
    places = np.stack([EDITED[order.samples(step)] for step in range(200)])
    assert places.sum(axis=0).min() > 20
    plan = BatchPlan(np.zeros(100, np.int64), order, rewrite_share=0, seed=3)
    for step in (0, 7, 123):
        parts = [plan.shard(step, rank=rank, world=4).sample_B for rank in range(4)]
        np.testing.assert_array_equal(np.concatenate(parts), order_of(0.25).samples(step))  # nothing but seed and step matters


def test_without_a_share_batches_are_what_they_were_before_there_was_one():
    permutation = np.random.default_rng([3, 0, 1]).permutation(100)
    plain = ShuffledOrder(100, size=8, seed=3)
    for order in (plain, order_of(None)):
        np.testing.assert_array_equal(order.samples(12 + 2), permutation[16:24])
        assert order.steps_per_epoch == 12


def test_identities_keep_their_share_and_all_their_samples():
    person_S = np.arange(90) // 3
    edited_S = person_S % 3 == 0
    order = IdentityOrder(person_S, np.arange(90), np.zeros(90), size=18, per_identity=3, seed=1, edited_S=edited_S, edited_share=0.5)
    passed = []
    for step in range(order.steps_per_epoch):
        persons = person_S[order.samples(step)].reshape(6, 3)
        assert (persons == persons[:, :1]).all()
        assert len(set(persons[:, 0].tolist())) == 6
        assert (persons[:, 0] % 3 == 0).sum() == 3
        passed += persons[persons[:, 0] % 3 != 0, 0].tolist()
    assert set(passed) == {person for person in range(30) if person % 3}


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Forty photographed people and, of each, one whom an editor made; of person p the one numbered 1000 + p."""
    folder = tmp_path_factory.mktemp("mix")
    images, captions, edits = {"photographs": [], "edited": []}, [], []
    for person in range(PEOPLE):
        for shot in range(PICTURES):
            for kind, number in (("photographs", person), ("edited", 1000 + person)):
                image_id = f"{kind}-{person}-{shot}"
                pixels = np.random.default_rng([number, shot]).integers(0, 256, (24, 12, 3), np.uint8)
                who = {"dataset": "a", "split": "train" if person < 30 else "test", "person_id": number, "camera_id": shot}
                mark = {"synthetic": True} if kind == "edited" else {}
                images[kind].append({"image_id": image_id, "image": encode_jpeg(Image.fromarray(pixels)), **who, **mark})
                captions.append(
                    {"caption_id": image_id, "image_id": image_id, "kind": "human", "text": f"text {person}", "status": "ok", **who, **mark}
                )
            row = {"edit_id": f"{person}-{shot}", "image_id": f"edited-{person}-{shot}", "source_image_id": f"photographs-{person}-{shot}"}
            edits.append({**row, "source_person_id": person, "dataset": "a", "editor": "e", "status": "ok"})
    for name, schema, rows in (
        *((name, IMAGES, rows) for name, rows in images.items()),
        ("captions", CAPTIONS, captions),
        ("edits", EDITS, edits),
    ):
        pq.write_table(table_of(schema, rows), folder / f"{name}.parquet")
    return folder


def job(tables, *overrides):
    paths = [f"images.path={tables}/photographs.parquet", f"images.further=[{tables}/edited.parquet]", "output.path=out"]
    captions = [f"captions.paths=[{tables}/captions.parquet]", "batches.size=8", "workers.count=2"]
    return load_config(TrainJob, None, [*paths, *captions, *overrides])


def learnt(folder):
    return sorted(RowFile(folder / IDS).take(np.arange(len(RowFile(folder / IDS))))["image_id"].to_pylist())


def held_out(tables, folder, *overrides):
    """(facts, counts, image_ids that are learnt from) of a run that holds a fifth of the people out."""
    counts = Counts()
    folder.mkdir()
    facts = prepare_pairs(job(tables, "images.val_split=null", "images.val_share=0.2", *overrides), folder, counts)
    return facts, counts, learnt(folder)


def test_edited_people_of_held_out_ones_are_left_out_counted_and_none_validates(tables, tmp_path):
    facts, counts, image_ids = held_out(tables, tmp_path / "run", f"images.edits=[{tables}/edits.parquet]")
    photographed = {name.split("-")[1] for name in image_ids if name.startswith("photographs")}
    edited = {name.split("-")[1] for name in image_ids if name.startswith("edited")}
    assert edited == photographed
    assert 0 < len(photographed) < 30
    assert counts.unused["source_held_out"] == PICTURES * (30 - len(photographed))
    assert facts["edited_samples"] == PICTURES * len(photographed)
    assert not RowFile(tmp_path / "run" / VALIDATION).column("synthetic").any()
    assert facts["validation_queries"] == PICTURES * (30 - len(photographed))
    assert counts.read == counts.written + sum(counts.unused.values())


@pytest.mark.slow
def test_a_source_that_only_a_label_tells_of_is_found_by_it(tables, tmp_path):
    edits = pq.read_table(tables / "edits.parquet")
    at = edits.schema.get_field_index("source_image_id")
    pq.write_table(edits.set_column(at, edits.schema.field(at), [["elsewhere"] * edits.num_rows]), tmp_path / "edits.parquet")
    by_label = held_out(tables, tmp_path / "label", f"images.edits=[{tmp_path}/edits.parquet]")
    by_picture = held_out(tables, tmp_path / "picture", f"images.edits=[{tables}/edits.parquet]")
    assert by_label[2] == by_picture[2]


def test_who_was_made_of_somebody_made_of_a_held_out_person_is_left_out_too(tables, tmp_path):
    edited, edits, captions = (pq.read_table(tables / f"{name}.parquet") for name in ("edited", "edits", "captions"))
    again = [row | {"image_id": f"twice-{row['image_id']}", "person_id": row["person_id"] + 1000} for row in edited.to_pylist()]
    said = [row for row in captions.to_pylist() if row["synthetic"]]
    said = [
        row | {name: f"twice-{row[name]}" for name in ("image_id", "caption_id")} | {"person_id": row["person_id"] + 1000} for row in said
    ]
    told = [
        row
        | {"image_id": f"twice-{row['image_id']}", "source_image_id": row["image_id"], "source_person_id": row["source_person_id"] + 1000}
        for row in edits.to_pylist()
    ]
    for name, table, rows in (("edited", edited, again), ("edits", edits, told), ("captions", captions, said)):
        pq.write_table(table_of(table.schema, [*table.to_pylist(), *rows]), tmp_path / f"{name}.parquet")
    both = [f"images.further=[{tmp_path}/edited.parquet]", f"images.edits=[{tmp_path}/edits.parquet]"]
    _, counts, image_ids = held_out(tables, tmp_path / "run", *both, f"captions.paths=[{tmp_path}/captions.parquet]")
    people = {kind: {name.split("-")[-2] for name in image_ids if name.startswith(kind)} for kind in ("photographs", "edited", "twice")}
    assert people["twice"] == people["edited"] == people["photographs"]
    assert counts.unused["source_held_out"] == 2 * PICTURES * (30 - len(people["photographs"]))


def test_held_out_people_and_edits_that_nobody_tells_of_are_refused(tables, tmp_path):
    with refused(DataError, "images.edits", "images.val_share"):
        held_out(tables, tmp_path / "run")


def test_an_edited_picture_of_a_test_person_is_not_learnt_from_whatever_its_own_split_says(tables, tmp_path):
    edited = pq.read_table(tables / "edited.parquet")
    at = edited.schema.get_field_index("split")
    pq.write_table(edited.set_column(at, edited.schema.field(at), [["train"] * edited.num_rows]), tmp_path / "edited.parquet")
    further = f"images.further=[{tmp_path}/edited.parquet]"
    (tmp_path / "run").mkdir()
    prepare_pairs(job(tables, "images.val_split=null", further, f"images.edits=[{tables}/edits.parquet]"), tmp_path / "run", Counts())
    assert {int(name.split("-")[1]) for name in learnt(tmp_path / "run")} == set(range(30))


def test_batches_have_the_share_on_any_number_of_workers_and_from_any_step_and_weights_have_seen_them(tables, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    config = job(tables, "images.val_split=null", "batches.edited_share=0.25")
    prepare_pairs(config, folder, Counts())
    edited_S = RowFile(folder / SAMPLES).column("synthetic")

    def feed(rank, world):
        return Feed(
            folder,
            config.batches,
            rewrite_share=0.0,
            resize=_as_they_are,
            fill=Fill((0, 0, 0), (0, 0, 0)),
            collate=_ragged,
            rank=rank,
            world=world,
        )

    whole = feed(0, 1)
    for step in (0, 5, 31):
        text_A = whole.make(step).text_A.numpy()
        assert edited_S[text_A].sum() == 2
        halves = [feed(rank, 2).make(step).text_A.numpy() for rank in range(2)]
        np.testing.assert_array_equal(np.concatenate(halves), text_A)
    seen = pq.read_table(folder / "seen.parquet", schema=SEEN)
    assert {1000, 1029} <= set(seen["person_id"].to_pylist())


@pytest.mark.parametrize(("sampler", "unit"), [("shuffle", "captions"), ("identity", "identities")])
def test_a_share_that_the_edited_cannot_fill_is_refused_with_its_numbers(tables, tmp_path, sampler, unit):
    overrides = ["images.further=[]", "images.val_split=null", "batches.edited_share=0.25", f"batches.sampler={sampler}"]
    (tmp_path / "run").mkdir()
    with refused(DataError, f"0 {unit}", "batches.edited_share 0.25", "column synthetic"):
        prepare_pairs(job(tables, *overrides), tmp_path / "run", Counts())


def test_an_image_id_of_two_tables_is_refused_by_both(tables, tmp_path):
    (tmp_path / "run").mkdir()
    twice = [f"images.further=[{tables}/photographs.parquet]", "images.val_split=null"]
    with refused(DataError, "photographs.parquet", "more than one row"):
        prepare_pairs(job(tables, *twice), tmp_path / "run", Counts())
