"""The feed: what a model brings decides what pictures and texts become; the plan decides which; threads decide nothing."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from PIL import Image

from reid_ray.config.base import load_config
from reid_ray.data.images import encode_jpeg
from reid_ray.records import CAPTIONS, IMAGES, table_of
from reid_ray.storage import Counts, TableWriter
from reid_ray.train.dual.config import TrainJob
from reid_ray.train.feed import loader as feed
from reid_ray.train.feed import ray_decoders
from reid_ray.train.feed.augment import Fill
from reid_ray.train.feed.loader import Feed
from reid_ray.train.feed.pairs import prepare_pairs


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Ten identities with three pictures of different sizes each; every caption has a rewrite."""
    folder = tmp_path_factory.mktemp("feed")
    draw = np.random.default_rng(0)
    images, captions = [], []
    for row in range(30):
        pixels = draw.integers(0, 256, (24 + row, 12 + row % 5, 3), np.uint8)
        who = {"image_id": f"i{row}", "split": "train", "person_id": row // 3, "dataset": "a"}
        images.append({**who, "image": encode_jpeg(Image.fromarray(pixels)), "camera_id": row % 3})
        captions.append({"caption_id": f"c{row}", "image_id": f"i{row}", "kind": "human", "text": f"text {row}", "status": "ok"})
        captions.append({**captions[-1], "caption_id": f"r{row}", "kind": "rewrite", "text": f"again {row}", "parent_id": f"c{row}"})
    for name, schema, rows in (("images", IMAGES, images), ("captions", CAPTIONS, captions)):
        with TableWriter(folder / name, schema) as writer:
            writer.append(table_of(schema, rows))
    prepare_pairs(_job(folder), folder, Counts())
    return folder


def _job(folder, *overrides) -> TrainJob:
    paths = [f"images.path={folder}/images", f"captions.paths=[{folder}/captions]", "output.path=out", "images.val_split=null"]
    batches = ["batches.size=12", "batches.sampler=identity", "batches.samples_per_identity=3", "workers.count=2"]
    return load_config(TrainJob, None, [*paths, *batches, "captions.rewrite_share=0.5", *overrides])


def _as_they_are(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture)


def _ragged(pictures: list[np.ndarray], texts: list[str]) -> dict[str, torch.Tensor]:
    """Like a processor of pictures of any size: all pixels in one row, and how many are whose."""
    return {
        "pixels": torch.from_numpy(np.concatenate([picture.reshape(-1) for picture in pictures])),
        "sizes": torch.tensor([picture.shape[:2] for picture in pictures]),
        "texts": torch.tensor([[text.startswith("again"), int(text.split()[1])] for text in texts]),
    }


def _feed(folder, *overrides, rank=0, world=1) -> Feed:
    config = _job(folder, *overrides)
    return Feed(
        folder,
        config.batches,
        rewrite_share=config.captions.rewrite_share,
        resize=_as_they_are,
        fill=Fill((1, 2, 3), (1, 2, 3)),
        collate=_ragged,
        rank=rank,
        world=world,
    )


def test_rows_are_named_by_caption_and_image(prepared):
    made = _feed(prepared)
    for step in range(3):
        batch = made.make(step)
        kinds = {(0, "caption c{0} of image i{0}"), (1, "a rewrite of caption c{0} of image i{0}")}
        expected = [dict(kinds)[again].format(row) for again, row in batch.inputs["texts"].tolist()]
        assert made.names_of(batch.text_A.numpy()) == expected
    assert any(name.startswith("a rewrite") for name in expected)


def assert_equal(one, other):
    assert one.inputs.keys() == other.inputs.keys()
    assert all(torch.equal(one.inputs[name], other.inputs[name]) for name in one.inputs)
    assert torch.equal(one.person_A, other.person_A)
    assert torch.equal(one.text_A, other.text_A)


def test_another_model_brings_its_own_sizes_and_tensors(prepared):
    batch = _feed(prepared).make(0)
    rewritten, row = batch.inputs["texts"].T
    assert batch.person_A.tolist() == (row // 3).tolist()
    assert batch.inputs["sizes"].tolist() == [[24 + each, 12 + each % 5] for each in row.tolist()]
    assert batch.text_A.tolist() == (row + 30 * rewritten).tolist()
    assert 0 < rewritten.sum() < 12
    assert all(len(set(group.tolist())) == 3 for group in row.reshape(4, 3))  # three pictures of each identity


def test_two_workers_see_the_halves_of_one_workers_batch_in_whole_identities(prepared):
    for step in range(4):
        whole = _feed(prepared).make(step)
        halves = [_feed(prepared, rank=rank, world=2).make(step) for rank in range(2)]
        for name in whole.inputs:
            assert torch.equal(torch.cat([half.inputs[name] for half in halves]), whole.inputs[name])
        assert all((half.person_A.reshape(2, 3) == half.person_A.reshape(2, 3)[:, :1]).all() for half in halves)


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_and_the_step_a_run_resumes_from_change_nothing(prepared, threads):
    expected = [_feed(prepared).make(step) for step in range(7)]
    for start in (0, 3):
        batches = list(_feed(prepared, f"batches.threads={threads}").batches(start, 7))
        assert len(batches) == 7 - start
        for one, other in zip(batches, expected[start:], strict=True):
            assert_equal(one, other)


def test_actors_that_the_cluster_cannot_place_are_an_error_not_an_endless_wait(prepared, monkeypatch):
    released = threading.Event()

    def never(*_, **__):
        released.wait()
        yield from ()

    monkeypatch.setattr(feed, "decoded_in_order", never)
    monkeypatch.setattr(feed, "_TIMEOUT_S", 0.1)
    with pytest.raises(TimeoutError, match=r"batches\.decoders: no picture in 0\.1 s"):
        next(_feed(prepared, "batches.decoders={}").batches(0, 3))
    released.set()


@pytest.mark.slow
def test_actors_of_ray_data_give_the_batches_of_threads_also_after_a_resume(local_ray, prepared, monkeypatch):
    changes = ["batches.crop_padding=3", "batches.colour=0.3", "batches.erase=1"]
    expected = [_feed(prepared, *changes).make(step) for step in range(8)]
    pool = "batches.decoders={replicas: 2, num_cpus: 0.5, batch_size: 5}"  # three blocks a step
    monkeypatch.setattr(ray_decoders, "_SEGMENT", 12)  # a new Ray dataset after four steps
    for start in (0, 5):
        batches = list(_feed(prepared, *changes, pool).batches(start, 8))
        assert len(batches) == 8 - start
        for one, other in zip(batches, expected[start:], strict=True):
            assert_equal(one, other)
