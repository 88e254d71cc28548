"""The plan of batches: the same for any number of workers and any start, each sample once an epoch, beta of the captions rewritten."""

from __future__ import annotations

import numpy as np
import pytest

from reid_ray.data.batches import BatchPlan


def plan(samples: int = 100, size: int = 12, share: float = 0.2, seed: int = 3) -> BatchPlan:
    return BatchPlan(np.arange(samples) % 4, size=size, rewrite_share=share, seed=seed)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_any_number_of_workers_draws_the_same_global_batches(workers):
    alone = plan()
    for step in range(20):
        whole = alone.batch(step)
        shares = [plan().share(step, rank=rank, world=workers) for rank in range(workers)]
        for name in ("sample_B", "rewrite_B", "place_B"):
            assert np.array_equal(np.concatenate([getattr(share, name) for share in shares]), getattr(whole, name))


def test_a_run_resumed_at_any_step_draws_what_the_undisturbed_run_draws():
    undisturbed = plan()
    batches = [undisturbed.batch(step) for step in range(25)]
    for start in (1, 7, 8, 24):
        resumed = plan().batch(start)
        assert np.array_equal(resumed.sample_B, batches[start].sample_B)
        assert np.array_equal(resumed.rewrite_B, batches[start].rewrite_B)


def test_an_epoch_sees_no_sample_twice_and_epochs_differ():
    whole = plan(samples=96)
    first, second = ([whole.batch(8 * epoch + step).sample_B for step in range(8)] for epoch in range(2))
    assert sorted(np.concatenate(first).tolist()) == list(range(96))
    assert sorted(np.concatenate(second).tolist()) == list(range(96))
    assert not np.array_equal(first[0], second[0])
    assert plan().steps_per_epoch == 8


def test_beta_of_the_captions_that_have_rewrites_give_way_to_one_of_them_evenly():
    counts = np.array([0, 3] * 500)
    drawn = BatchPlan(counts, size=1000, rewrite_share=0.2, seed=0)
    rewrites = [drawn.batch(step) for step in range(60)]
    has = np.concatenate([counts[batch.sample_B] > 0 for batch in rewrites])
    chosen = np.concatenate([batch.rewrite_B for batch in rewrites])
    assert (chosen[~has] == -1).all()
    replaced = chosen[has]
    assert (replaced >= 0).mean() == pytest.approx(0.2, abs=0.01)  # 30,000 draws: three standard deviations are 0.007
    assert np.bincount(replaced[replaced >= 0]) / (replaced >= 0).sum() == pytest.approx([1 / 3] * 3, abs=0.02)
    assert (BatchPlan(counts, size=10, rewrite_share=0.0, seed=0).batch(0).rewrite_B == -1).all()


def test_augmentation_belongs_to_the_step_and_place_not_to_the_worker():
    numbers = {(step, place): plan().augmentation(step, place).random() for step in range(5) for place in range(12)}
    assert len(set(numbers.values())) == len(numbers)
    assert plan().augmentation(4, 11).random() == numbers[4, 11]
    assert plan(seed=4).augmentation(4, 11).random() != numbers[4, 11]


def test_a_batch_that_cannot_be_drawn_or_divided_is_refused():
    with pytest.raises(ValueError, match="cannot be drawn"):
        plan(samples=5)
    with pytest.raises(ValueError, match="does not divide"):
        plan().share(0, rank=0, world=5)
