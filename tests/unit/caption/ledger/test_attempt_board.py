"""Who is to blame for a death: rows that are isolated, rows that are given up, actors that are broken, engines that do not work.

Actors are simulated: rows that kill are known, and an actor runs its groups one by one until a death, as the gate has it.
"""

from __future__ import annotations

import pytest
from refusals import refused

from reid_ray.caption.ledger.attempt_board import AttemptBoard, Lessons, Rest, all_of
from reid_ray.caption.streaming.admission import FREE
from reid_ray.errors import EngineDownError


class Actor:
    """Holds rows and works through them; dies with what is in its engine whenever a deadly one is there."""

    def __init__(self, board, name, rows, *, deadly=(), capacity=64, broken=False, device=None):
        self.board, self.name, self.rows, self.device = board, name, list(rows), device
        self.deadly, self.capacity, self.broken = set(deadly), capacity, broken
        self.made, self.given_up, self.deaths, self.lost = [], {}, 0, 0
        self.back = None
        self.in_flight = None

    def live(self):
        """One process from its start to its end: True if it came through."""
        start = self.board.begin(self.name, self.in_flight, device=self.device)
        if start.broken is not None:
            self.back = [row for row in self.rows if row not in self.made]
            return True
        self.board.started(self.name)
        todo = [row for row in self.rows if row not in self.made and row not in self.given_up]
        verdicts = self.board.take(self.name, todo)
        self.given_up |= verdicts.given_up
        todo = [row for row in todo if row not in verdicts.given_up]
        suspects = sorted({verdicts.groups[row] for row in todo if row in verdicts.groups})
        turns = [*(g for g in suspects if not g.last), FREE, *(g for g in suspects if g.last)]
        groups = [[row for row in todo if verdicts.groups.get(row, FREE) == group] for group in turns]
        for group in groups:
            for at in range(0, len(group), self.capacity):
                together = group[at : at + self.capacity]
                if self.broken or self.deadly.intersection(together):
                    self.in_flight = together
                    self.deaths += 1
                    self.lost += len(together)
                    return False
                self.made += together
                self.board.made(self.name, len(together))
        self.board.done(self.name, self.rows)
        return True

    def run(self):
        for _ in range(100):
            if self.live():
                return self
        pytest.fail("it died a hundred times")


def rows(count, start=0):
    return [f"row {number:04d}" for number in range(start, start + count)]


def test_one_deadly_row_among_sixty_four_in_flight_costs_four_deaths_and_nobody_else():
    names = rows(300)
    actor = Actor(AttemptBoard(), "a", names, deadly=[names[100]]).run()
    assert list(actor.given_up) == [names[100]]
    assert "died without a word" in actor.given_up[names[100]]
    assert sorted(actor.made) == sorted(set(names) - {names[100]})
    assert actor.deaths == 4  # of sixty-four, of eight, alone, and alone again
    assert actor.lost == 64 + 8 + 1 + 1


@pytest.mark.slow
def test_many_deadly_rows_are_all_found_and_all_others_made():
    names = rows(900)
    deadly = names[3:900:50]  # more than may be given up in a row
    actor = Actor(AttemptBoard(), "a", names, deadly=deadly).run()
    assert sorted(actor.given_up) == deadly
    assert sorted(actor.made) == sorted(set(names) - set(deadly))


def test_random_kills_give_nobody_up():
    names = rows(400)
    board = AttemptBoard()
    actor = Actor(board, "a", names)
    for killed in range(0, 400, 37):  # a kill while those were with the engine, and some rows made between
        board.begin("a", None if killed == 74 else names[killed : killed + 64])
        board.started("a")
        board.take("a", names)
        actor.in_flight = names[killed : killed + 64]
        board.made("a", 1)
    actor.run()
    assert actor.given_up == {}
    assert sorted(actor.made) == names


def test_a_row_that_an_earlier_run_gave_up_is_alone_from_the_start_and_has_one_more_try():
    names = rows(80)
    board = AttemptBoard(given_up_before=[names[7], names[8]])
    actor = Actor(board, "a", names, deadly=[names[7]]).run()
    assert list(actor.given_up) == [names[7]]
    assert (actor.deaths, actor.lost) == (1, 1)
    assert names[8] in actor.made


def test_an_engine_that_never_serves_anything_is_down_after_eight_deaths_and_a_pool_of_nine_that_start_together_is_not():
    board = AttemptBoard()
    for number in range(9):
        board.begin(f"actor {number}")  # all on their way
    for _ in range(7):
        board.begin("actor 0")
    with refused(EngineDownError, "8 times"):
        board.begin("actor 0")


def test_a_broken_actor_among_healthy_ones_hands_its_rows_back_and_none_is_given_up():
    board = AttemptBoard()
    bad = Actor(board, "bad", rows(64), broken=True)
    good = Actor(board, "good", rows(640, 64), capacity=16)
    assert not bad.live()
    good.board.begin("good")
    while bad.back is None:
        board.made("good", 16)
        bad.live()
    assert bad.deaths == 4
    assert bad.back == rows(64)
    assert bad.given_up == {}
    assert list(board.lessons().broken) == ["bad"]
    assert "while others made some" in board.lessons().broken["bad"]


def test_a_broken_actor_with_a_single_row_gives_it_back_and_in_a_pool_of_its_own_gives_it_up():
    board = AttemptBoard()
    board.begin("good")
    bad = Actor(board, "bad", rows(1), broken=True).run()
    assert (bad.back, bad.given_up) == (rows(1), {})
    alone = Actor(AttemptBoard(), "alone", rows(1), broken=True).run()
    assert list(alone.given_up) == rows(1)


def test_a_device_that_breaks_midway_does_not_cost_the_single_row_that_it_holds_then():
    board = AttemptBoard()
    for name in ("good", "bad"):
        assert Actor(board, name, rows(100), device=name).live()
    bad = Actor(board, "bad", rows(1, 100), broken=True, device="bad").run()
    assert (bad.back, bad.given_up, bad.deaths) == (rows(1, 100), {}, 2)
    past = all_of(Lessons(), [board.lessons()])
    assert (list(past.devices), past.unconfirmed) == (["bad"], {"row 0100": "bad"})

    later = AttemptBoard(past=past)
    assert Actor(later, "elsewhere", rows(1, 100), device="good").run().made == rows(1, 100)
    assert list(all_of(past, [later.lessons()]).devices) == ["bad"]


def test_a_row_that_ends_the_engines_of_two_devices_is_given_up_and_the_first_device_is_under_no_suspicion_any_more():
    board = AttemptBoard()
    board.begin("good", device="good")
    first = Actor(board, "first", rows(1), deadly=rows(1), device="first").run()
    assert (first.back, first.deaths) == (rows(1), 2)
    past = all_of(Lessons(), [board.lessons()])
    later = AttemptBoard(past=past)
    second = Actor(later, "second", rows(60), deadly=rows(1), device="good").run()
    assert (list(second.given_up), second.deaths) == (rows(1), 1)
    assert second.made == rows(59, 1)
    assert not all_of(past, [later.lessons(), AttemptBoard(past=past).lessons()]).devices


def test_the_last_of_many_suspects_is_not_given_up_before_another_row_was_made():
    names = rows(65)
    board = AttemptBoard()
    board.begin("another")
    actor = Actor(board, "a", names, deadly=[names[63]]).run()  # of the first 64 it is the last; one is under no suspicion
    assert list(actor.given_up) == [names[63]]
    assert sorted(actor.made) == sorted(set(names) - {names[63]})
    assert not board.lessons().broken


def test_an_actor_where_one_was_broken_waits_while_others_work_and_works_with_a_short_rope_if_there_are_none():
    now = [0.0]
    past = Lessons(devices={"node: 0": "its engine died"})
    board = AttemptBoard(past=past, clock=lambda: now[0])
    assert board.begin("x", device="node: 0").broken == "its engine died"
    assert board.begin("y", device="node: 1").broken is None
    board.started("y")
    board.take("y", rows(1))
    now[0] = 1000.0
    assert board.rest("x") == Rest.WAIT
    board.done("y", rows(1))
    assert not board.lessons().broken  # it is not told of twice
    for deaths in range(4):  # now the other breaks
        board.made("x", deaths == 0)
        board.begin("y", device="node: 1")
    assert board.rest("x") == Rest.WORK
    board.started("x")
    board.take("x", rows(1))
    board.begin("z", device="node: 2")
    board.made("z", 1)
    assert board.begin("x", rows(1), device="node: 0").broken is not None
    assert set(board.lessons().devices) == {"node: 0", "node: 1"}


def test_a_broken_actor_hands_back_when_the_source_is_through_and_not_when_others_wait_for_it():
    now = [0.0]
    board = AttemptBoard(parts=2, clock=lambda: now[0])
    good = Actor(board, "good", rows(10))
    board.begin("good")
    board.made("good", 1)
    Actor(board, "bad", rows(64, 10), broken=True)
    board.begin("bad")
    for _ in range(4):
        board.begin("bad")
        board.made("good", 1)
    assert list(board.lessons().broken) == ["bad"]
    board.read("one")
    for slow in range(1, 40):  # a batch every 20 s
        assert board.rest("bad") == Rest.WAIT
        now[0] = 20.0 * slow
        board.take("good", rows(10))
        assert board.rest("bad") == Rest.WAIT
        board.done("good", rows(10))
    board.read("one")
    assert board.rest("bad") == Rest.WAIT
    now[0] += 10
    assert board.rest("bad") == Rest.WAIT
    board.read("two")
    assert board.rest("bad") == Rest.HAND_BACK
    assert not good.made


def test_sixteen_rows_given_up_with_none_made_between_are_the_engines_fault():
    names = rows(40)
    with refused(EngineDownError, "in a row"):
        Actor(AttemptBoard(), "a", names, deadly=names, capacity=1).run()


def test_rows_given_up_with_some_made_between_are_the_rows_fault_however_many():
    board = AttemptBoard()
    board.begin("a")
    for number in range(40):  # one row at a time, so that none can be made between a row's two deaths
        (name,) = rows(1, number)
        board.take("a", [name])
        for _ in range(0 if number % 2 else 2):
            board.started("a")
            board.begin("a", [name])
        assert (name in board.take("a", [name]).given_up) == (number % 2 == 0)
        if number % 2:
            board.made("a", 1)
        board.done("a", [name])


def test_what_an_actor_says_before_it_ends_is_the_reason():
    board = AttemptBoard()
    for actor in "ab":
        board.begin(actor)
        board.started(actor)
    board.take("a", ["x"])
    for reason in ("RuntimeError: no more", "RuntimeError: again"):
        board.made("a", 1)
        board.explain("a", reason)
        board.begin("a", ["x"])
        board.started("a")
    assert board.take("a", ["x"]).given_up == {"x": "RuntimeError: again"}
