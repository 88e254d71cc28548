"""The feed: what a model brings decides what pictures and texts become; the plan decides which; threads decide nothing."""

from __future__ import annotations

import threading

import pytest
import torch
from feeds import assert_equal, feed_of, prepare

from reid_ray.train.feed import loader as feed


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("feed"))


def test_rows_are_named_by_caption_and_image(prepared):
    made = feed_of(prepared)
    for step in range(3):
        batch = made.make(step)
        kinds = {(0, "caption c{0} of image i{0}"), (1, "a rewrite of caption c{0} of image i{0}")}
        expected = [dict(kinds)[again].format(row) for again, row in batch.inputs["texts"].tolist()]
        assert made.names_of(batch.text_A.numpy()) == expected
    assert any(name.startswith("a rewrite") for name in expected)


def test_another_model_brings_its_own_sizes_and_tensors(prepared):
    batch = feed_of(prepared).make(0)
    rewritten, row = batch.inputs["texts"].T
    assert batch.person_A.tolist() == (row // 3).tolist()
    assert batch.inputs["sizes"].tolist() == [[24 + each, 12 + each % 5] for each in row.tolist()]
    assert batch.text_A.tolist() == (row + 30 * rewritten).tolist()
    assert 0 < rewritten.sum() < 12
    assert all(len(set(group.tolist())) == 3 for group in row.reshape(4, 3))  # three pictures of each identity


def test_two_workers_see_the_halves_of_one_workers_batch_in_whole_identities(prepared):
    for step in range(4):
        whole = feed_of(prepared).make(step)
        halves = [feed_of(prepared, rank=rank, world=2).make(step) for rank in range(2)]
        for name in whole.inputs:
            assert torch.equal(torch.cat([half.inputs[name] for half in halves]), whole.inputs[name])
        assert all((half.person_A.reshape(2, 3) == half.person_A.reshape(2, 3)[:, :1]).all() for half in halves)


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_and_the_step_a_run_resumes_from_change_nothing(prepared, threads):
    expected = [feed_of(prepared).make(step) for step in range(7)]
    for start in (0, 3):
        batches = list(feed_of(prepared, f"batches.threads={threads}").batches(start, 7))
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
        next(feed_of(prepared, "batches.decoders={}").batches(0, 3))
    released.set()
