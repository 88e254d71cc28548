"""Answers of the search engine by an encoder that reads the answer off the question: each query gets its own, whatever it came with."""

from __future__ import annotations

import numpy as np
import pytest
from small_services import ITEMS, VECTORS, red_picture, small_engine, small_gallery

from reid_ray.retrieval.query import Clue, Query, picture_query, text_query
from reid_ray.retrieval.search import SearchEngine


@pytest.fixture
def engine(tmp_path) -> SearchEngine:
    return small_engine(small_gallery(tmp_path / "gallery"))


QUERIES = [
    text_query("3", k=1),
    text_query("3 with more words than are read", k=4),
    picture_query(red_picture(7), k=2),
    text_query("7", k=2, where={"camera_id": [0, 2]}),
    text_query("7", k=2, where={"camera_id": 1}),
    text_query("0 nan", k=5),
    Query((Clue(item_id="nobody"),), 2),
    text_query("5", k=1),  # searched together with the first
    text_query("9", k=1),
    text_query("9", k=1, where={"no_column": 1}),
    Query((Clue(text="2"), Clue(item_id="4", weight=0.5), Clue(picture=red_picture(6), weight=-0.5)), 3),
    Query((Clue(text="2"), Clue(item_id="2", weight=-1.0)), 3),
    text_query("8", k=3, one_per="person_id", without=("9",), threshold=0.0),
]
FIRST = ["3", "3", "7", "0", "7", None, None, "5", "9", None, "2", None, "8"]
REFUSED = ["", "", "", "", "", "not_finite", "no_item", "", "", "filter no_column", "", "nothing_left", ""]


def test_each_query_gets_its_own_hits_filter_and_number_whatever_it_came_with(engine):
    answers = engine.answer(QUERIES)
    assert [len(answer.hits) for answer in answers] == [1, 4, 2, 2, 2, 0, 0, 1, 1, 0, 3, 0, 3]
    assert [answer.hits[0].item_id if answer.hits else None for answer in answers] == FIRST
    assert [answer.truncated for answer in answers] == [at == 1 for at in range(len(QUERIES))]
    assert [(answer.refused or "").partition(":")[0] for answer in answers] == REFUSED
    cameras = [{hit.item["camera_id"] for hit in answer.hits} for answer in answers]
    assert (cameras[3], cameras[4]) == ({0, 2}, {1})
    people = [hit.item["person_id"] for hit in answers[12].hits]
    assert (len(set(people)), "9" in {hit.item_id for hit in answers[12].hits}) == (3, False)


def test_clues_are_added_by_their_weights_and_a_negative_one_pushes_away(engine):
    hits = engine.answer([Query((Clue(text="2"), Clue(item_id="4", weight=0.5), Clue(picture=red_picture(6), weight=-0.5)), ITEMS)])[0].hits
    sum_D = VECTORS[2] + 0.5 * VECTORS[4] - 0.5 * VECTORS[6]
    expected = {f"{row}": float(VECTORS[row] @ sum_D / np.linalg.norm(sum_D)) for row in range(ITEMS)}
    assert {hit.item_id: hit.score for hit in hits} == pytest.approx(expected, abs=1e-6)
    assert (hits[0].item_id, hits[1].item_id, hits[-1].item_id) == ("2", "4", "6")


def test_pages_follow_one_another_and_hold_every_item_once(engine):
    seen, cursor = [], None
    while True:
        answer = engine.answer([text_query("3", k=5, cursor=cursor)])[0]
        seen += [hit.item_id for hit in answer.hits]
        cursor = answer.cursor
        if cursor is None:
            break
    assert (seen[0], sorted(map(int, seen))) == ("3", list(range(ITEMS)))
    assert "cursor" in engine.answer([text_query("4", k=5, cursor=engine.answer([text_query("3", k=5)])[0].cursor)])[0].refused


@pytest.mark.slow
def test_an_answer_does_not_depend_on_what_it_was_batched_with(engine):
    alone = [engine.answer([query])[0] for query in QUERIES]
    rng = np.random.default_rng(0)
    for order in (rng.permutation(len(QUERIES)) for _ in range(30)):
        together = engine.answer([QUERIES[at] for at in order])
        assert [(answer.hits, answer.refused, answer.cursor) for answer in together] == [
            (alone[at].hits, alone[at].refused, alone[at].cursor) for at in order
        ]
