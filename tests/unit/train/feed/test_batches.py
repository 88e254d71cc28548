"""The plan of batches: the same for any number of workers and any start, each sample once an epoch, beta of the captions rewritten."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused

from reid_ray.train.feed.batches import BatchPlan, IdentityOrder, ShuffledOrder, augmentation


def plan(samples: int = 100, size: int = 12, share: float = 0.2, seed: int = 3) -> BatchPlan:
    return BatchPlan(np.arange(samples) % 4, ShuffledOrder(samples, size=size, seed=seed), rewrite_share=share, seed=seed)


# Identity p of 0 .. 12 has p // 2 + 1 pictures with two captions each; pictures of an identity lie on two cameras in turn.
PICTURES = [(person, number) for person in range(13) for number in range(person // 2 + 1)]
PERSON_S, CAMERA_S = (np.repeat(np.array([row[i] for row in PICTURES]), 2) for i in range(2))
PICTURE_S, CAMERA_S = np.repeat(np.arange(len(PICTURES)), 2), CAMERA_S % 2


def identity_plan(seed: int = 3, per_batch: int = 4, camera_S: np.ndarray = CAMERA_S, share: float = 0.2) -> BatchPlan:
    order = IdentityOrder(PERSON_S, PICTURE_S, camera_S, size=3 * per_batch, per_identity=3, seed=seed)
    return BatchPlan(np.arange(len(PERSON_S)) % 4, order, rewrite_share=share, seed=seed)


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("plan", [plan, identity_plan])
def test_any_number_of_workers_draws_the_same_global_batches(plan, workers):
    alone = plan()
    for step in range(20):
        whole = alone.batch(step)
        shares = [plan().shard(step, rank=rank, world=workers) for rank in range(workers)]
        for name in ("sample_B", "rewrite_B", "place_B"):
            assert np.array_equal(np.concatenate([getattr(share, name) for share in shares]), getattr(whole, name))


@pytest.mark.parametrize("plan", [plan, identity_plan])
def test_a_run_resumed_at_any_step_draws_what_the_undisturbed_run_draws(plan):
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


@pytest.mark.parametrize("plan", [plan, identity_plan])
def test_another_seed_draws_other_samples_in_every_step(plan):
    one, other = plan(seed=3), plan(seed=4)
    assert not any(np.array_equal(one.batch(step).sample_B, other.batch(step).sample_B) for step in range(6))


def test_beta_of_the_captions_that_have_rewrites_give_way_to_one_of_them_evenly():
    counts = np.array([0, 3] * 500)
    drawn = BatchPlan(counts, ShuffledOrder(1000, size=1000, seed=0), rewrite_share=0.2, seed=0)
    rewrites = [drawn.batch(step) for step in range(60)]
    has = np.concatenate([counts[batch.sample_B] > 0 for batch in rewrites])
    chosen = np.concatenate([batch.rewrite_B for batch in rewrites])
    assert (chosen[~has] == -1).all()
    replaced = chosen[has]
    assert (replaced >= 0).mean() == pytest.approx(0.2, abs=0.01)  # 30,000 draws: three standard deviations are 0.007
    assert np.bincount(replaced[replaced >= 0]) / (replaced >= 0).sum() == pytest.approx([1 / 3] * 3, abs=0.02)
    assert (BatchPlan(counts, ShuffledOrder(1000, size=10, seed=0), rewrite_share=0.0, seed=0).batch(0).rewrite_B == -1).all()


def test_every_identity_is_drawn_once_before_any_is_drawn_again():
    whole = identity_plan()
    assert whole.steps_per_epoch == 4  # 13 identities, 4 at a time
    for epoch in range(3):
        drawn = [PERSON_S[whole.batch(4 * epoch + step).sample_B].reshape(4, 3) for step in range(4)]
        assert all((batch == batch[:, :1]).all() for batch in drawn)  # an identity's samples lie side by side
        assert all(len(set(batch[:, 0])) == 4 for batch in drawn)
        assert sorted(np.concatenate(drawn)[:13, 0].tolist()) == list(range(13))
    first, second = (np.concatenate([PERSON_S[whole.batch(4 * epoch + step).sample_B] for step in range(4)]) for epoch in range(2))
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, np.concatenate([PERSON_S[identity_plan(seed=4).batch(step).sample_B] for step in range(4)]))


def test_an_identity_shows_k_pictures_on_both_cameras_if_it_has_them():
    whole, seen = identity_plan(), set()
    for step in range(200):
        for group in whole.batch(step).sample_B.reshape(4, 3):
            person = PERSON_S[group[0]]
            pictures = np.unique(PICTURE_S[group])
            assert len(pictures) == min(3, person // 2 + 1)
            assert len(set(CAMERA_S[group])) == min(2, person // 2 + 1)
            # Both captions of a picture come before any caption comes twice.
            assert len(set(group)) == min(3, 2 * (person // 2 + 1))
            seen.update(group.tolist())
    assert seen == set(range(len(PERSON_S)))


@pytest.mark.slow
def test_pictures_of_unknown_cameras_are_drawn_evenly():
    whole = identity_plan(camera_S=np.full(len(PERSON_S), -1))
    drawn = np.concatenate([whole.batch(step).sample_B for step in range(2000)])
    shown = np.bincount(PICTURE_S[drawn[PERSON_S[drawn] == 12]])[-7:]  # about 1,900 draws of 7 pictures
    assert shown / shown.sum() == pytest.approx([1 / 7] * 7, abs=0.03)


def test_rewrites_take_the_place_of_captions_under_identity_sampling_too():
    whole = identity_plan(share=1.0)
    for step in range(8):
        batch = whole.batch(step)
        assert ((batch.rewrite_B >= 0) == (batch.sample_B % 4 > 0)).all()
        assert (batch.rewrite_B < np.maximum(batch.sample_B % 4, 1)).all()


def test_augmentation_belongs_to_the_step_and_place_not_to_the_worker():
    numbers = {(step, place): augmentation(3, step, place).random() for step in range(5) for place in range(12)}
    assert len(set(numbers.values())) == len(numbers)
    assert augmentation(3, 4, 11).random() == numbers[4, 11]
    assert augmentation(4, 4, 11).random() != numbers[4, 11]


def test_a_batch_that_cannot_be_drawn_or_divided_is_refused():
    with refused(ValueError, "5 samples"):
        plan(samples=5)
    with refused(ValueError, "5 workers"):
        plan().shard(0, rank=0, world=5)
    with refused(ValueError, "14 identities", "13"):
        identity_plan(per_batch=14)
    with refused(ValueError, "a batch of 12", "5 samples"):
        IdentityOrder(PERSON_S, PICTURE_S, CAMERA_S, size=12, per_identity=5, seed=0)
    with refused(ValueError, "groups of 3", "3 workers"):
        identity_plan().shard(0, rank=0, world=3)
