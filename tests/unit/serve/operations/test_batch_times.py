"""What a batch will take is told from batches of its size, never on a guess that would refuse what can be answered in time."""

import pytest

from reid_ray.serve.operations.batch_times import BatchTimes


def learnt(*batches):
    times = BatchTimes()
    for size, seconds in batches:
        times.learn(size, seconds)
    return times


def test_small_batches_after_a_quiet_spell_say_nothing_of_large_ones():
    times = learnt((32, 0.35), *[(1, 0.02)] * 50)
    assert times.of(32) == pytest.approx(0.35)
    assert times.of(20) == pytest.approx(0.35)
    assert times.of(1) == pytest.approx(0.02)


def test_a_size_that_was_never_seen_is_taken_for_the_next_smaller_one():
    assert learnt().of(32) == 0
    assert learnt((1, 0.02)).of(32) == 0.02
    assert learnt((1, 0.02), (8, 0.1)).of(32) == 0.1
    assert learnt((32, 0.3)).of(1) == 0.3


def test_one_slow_batch_is_forgotten_by_what_smaller_ones_take():
    slow = learnt((32, 30.0))
    assert slow.of(32) == 30.0
    slow.learn(16, 0.2)  # one that is refused so long only comes to a smaller batch
    assert slow.of(32) == pytest.approx(0.4)


def test_times_that_change_are_followed():
    times = learnt((4, 0.1), *[(4, 0.4)] * 4)
    assert times.of(4) == pytest.approx(0.4, rel=0.06)


def test_the_first_one_that_took_long_says_little_of_the_next():
    assert learnt((1, 10.0), (1, 0.01)).of(1) <= 0.04
    assert learnt(*[(1, 0.02)] * 20, (1, 10.0), (1, 0.02)).of(1) <= 0.08
