"""Who is to blame for a death: rows that are isolated, rows that are given up, actors that are broken, engines that do not work.

Actors are simulated: rows that kill are known, and an actor runs its groups one by one until a death, as the gate has it.
"""

from __future__ import annotations

import pytest
from refusals import refused

from reid_ray.caption.ledger.attempt_board import AttemptBoard
from reid_ray.caption.streaming.admission import FREE
from reid_ray.errors import EngineDownError


class Actor:
    """Holds rows and works through them; dies with what is in its engine whenever a deadly one is there."""

    def __init__(self, board, name, rows, *, deadly=(), capacity=64, broken=False):
        self.board, self.name, self.rows = board, name, list(rows)
        self.deadly, self.capacity, self.broken = set(deadly), capacity, broken
        self.made, self.given_up, self.deaths, self.lost = [], {}, 0, 0
        self.back = None
        self.in_flight = None

    def live(self):
        """One process from its start to its end: True if it came through."""
        start = self.board.begin(self.name, self.in_flight)
        if start.broken is not None:
            self.back = [row for row in self.rows if row not in self.made]
            return True
        self.board.started(self.name)
        todo = [row for row in self.rows if row not in self.made and row not in self.given_up]
        verdicts = self.board.take(self.name, todo)
        self.given_up |= verdicts.given_up
        todo = [row for row in todo if row not in verdicts.given_up]
        suspects = sorted({verdicts.groups[row] for row in todo if row in verdicts.groups})
        groups = [[row for row in todo if verdicts.groups.get(row, FREE) == group] for group in [*suspects, FREE]]
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


def test_many_deadly_rows_are_all_found_and_all_others_made():
    names = rows(500)
    deadly = names[3:500:50]
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
    assert list(board.broken()) == ["bad"]
    assert "while others made some" in board.broken()["bad"]


def test_a_broken_actor_with_a_single_row_gives_it_back_and_in_a_pool_of_its_own_gives_it_up():
    board = AttemptBoard()
    board.begin("good")
    board.made("good", 5)
    bad = Actor(board, "bad", rows(1), broken=True).run()
    assert (bad.back, bad.given_up) == (rows(1), {})
    alone = Actor(AttemptBoard(), "alone", rows(1), broken=True).run()
    assert list(alone.given_up) == rows(1)


def test_sixteen_rows_given_up_with_none_made_between_are_the_engines_fault():
    names = rows(40)
    with refused(EngineDownError, "in a row"):
        Actor(AttemptBoard(), "a", names, deadly=names, capacity=1).run()


def test_what_an_actor_says_before_it_ends_is_the_reason_and_rows_are_held_until_they_are_done():
    board = AttemptBoard()
    for actor in "ab":
        board.begin(actor)
        board.started(actor)
    board.take("a", ["x"])
    assert board.others_hold("b")
    assert not board.others_hold("a")
    for reason in ("RuntimeError: no more", "RuntimeError: again"):
        board.explain("a", reason)
        board.begin("a", ["x"])
        board.started("a")
    assert board.take("a", ["x"]).given_up == {"x": "RuntimeError: again"}
    board.done("a", ["x"])
    assert not board.others_hold("b")
