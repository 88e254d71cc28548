"""Works run to their ends in rounds, all requests of a round together: for a process that has a few works and nothing else to do.

Knows generators, a chat engine and a scorer. A round lasts as long as its slowest answer; work_stream.py is for many works.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from reid_ray.caption.engines.protocol import ChatEngine
from reid_ray.caption.filters.faithfulness import FaithfulnessScorer
from reid_ray.caption.streaming.engine_loop import Request
from reid_ray.caption.streaming.scoring_loop import PairToScore
from reid_ray.caption.streaming.work_stream import Rows

Asked = list[tuple[int, int, Any]]  # (work, place among what it asks, what it asks)


def run_in_rounds(works: Sequence[Generator[Any, Any, Rows]], engine: ChatEngine, scorer: FaithfulnessScorer | None = None) -> list[Rows]:
    """The rows of each work.

    Args:
        works: not begun.
        engine: asked once a round.
        scorer: scores the pairs of a round; None where no work has any.
    """
    rows: list[Rows] = [[] for _ in works]
    answers: dict[int, list[Any] | None] = dict.fromkeys(range(len(works)))
    while answers:
        asked: Asked = []
        for number, said in answers.items():
            try:
                asks = next(works[number]) if said is None else works[number].send(said)
            except StopIteration as end:
                rows[number] = end.value
                continue
            asked += [(number, place, ask) for place, ask in enumerate(asks)]
        answers = {number: [None] * sum(other == number for other, _, _ in asked) for number, _, _ in asked}
        for (number, place, _), reply in _replies(asked, engine, scorer):
            replies = answers[number]
            assert replies is not None
            replies[place] = reply
    return rows


def _replies(asked: Asked, engine: ChatEngine, scorer: FaithfulnessScorer | None) -> list[tuple[tuple[int, int, Any], Any]]:
    requests = [each for each in asked if isinstance(each[2], Request)]
    pairs = [each for each in asked if isinstance(each[2], PairToScore)]
    said: list[Any] = engine.chat([ask.conversation for *_, ask in requests], [ask.key for *_, ask in requests]) if requests else []
    scores: list[Any] = []
    if pairs:
        assert scorer is not None
        scores = scorer.score([pair.original for *_, pair in pairs], [pair.rewrite for *_, pair in pairs]).tolist()
    return [*zip(requests, said, strict=True), *zip(pairs, scores, strict=True)]
