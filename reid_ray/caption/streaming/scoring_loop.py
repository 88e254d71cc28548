"""Scoring loop: the thread of an actor that scores rewrites with a sentence encoder, as many together as wait, while the engine runs.

Knows pairs of texts and a scorer; not what a score decides.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

from reid_ray.caption.filters.faithfulness import FaithfulnessScorer

_TOGETHER = 256  # pairs of a batch, at most


@dataclass(frozen=True)
class PairToScore:
    """One pair to be scored; its answer is a cosine."""

    original: str
    rewrite: str


class ScoringLoop:
    """Scores pairs in a thread of its own.

    Args:
        scorer: used by that thread alone.
        die: ends this process with a reason; a scorer that raises is in no known state.
    """

    def __init__(self, scorer: FaithfulnessScorer, *, die: Callable[[Exception, list[str]], None]) -> None:
        self._scorer, self._die = scorer, die
        self._coming: queue.SimpleQueue[tuple[PairToScore, Callable[[float], None]]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="scoring-loop", daemon=True).start()

    def ask(self, score: PairToScore, answer: Callable[[float], None]) -> None:
        """Queue a pair; `answer` is called with its cosine, from the loop's thread."""
        self._coming.put((score, answer))

    def _run(self) -> None:
        while True:
            batch = [self._coming.get()]
            while len(batch) < _TOGETHER and not self._coming.empty():
                batch.append(self._coming.get())
            pairs = [pair for pair, _ in batch]
            try:
                scores = self._scorer.score([pair.original for pair in pairs], [pair.rewrite for pair in pairs]).tolist()
            except Exception as error:  # noqa: BLE001
                self._die(error, [text for pair in pairs for text in (pair.original, pair.rewrite)])
                return
            for (_, answer), score in zip(batch, scores, strict=True):
                answer(score)
