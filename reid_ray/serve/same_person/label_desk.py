"""What is asked next, and what was said: the questions of the labelling page, for several people at once.

A pair is asked about until it is known: its images are of one group, or of two that are different. Two people are not asked the same at the
same time. Whoever else adds to the file of decisions, in another process too, is heard before the next question. Knows pairs and decisions;
not HTTP.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from reid_ray.errors import DataError
from reid_ray.serve.same_person.decision_log import DecisionLog, Said
from reid_ray.serve.same_person.identity_groups import IdentityGroups, Node
from reid_ray.serve.same_person.look_alikes import LookAlikes

_SHOWN = 6  # pictures of a group
_HELD_S = 120.0  # that a question is whose it was given to


class LabelDesk:
    """Questions and decisions; may be asked from several threads.

    Args:
        alike: the pairs.
        log: the file of decisions.
        clock: seconds, for tests.
    """

    def __init__(self, alike: LookAlikes, log: DecisionLog, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._alike, self._log, self._clock = alike, log, clock
        self._row = {image.image_id: row for row, image in enumerate(alike.images)}
        self._held: dict[int, tuple[str, float]] = {}  # pair -> whose it is, since when
        self._lock = threading.Lock()
        self._groups = IdentityGroups(alike.images, log.decisions)
        self._members = self._by_group()

    def question(self, who: str) -> dict[str, Any]:
        """What is asked next, and how far it is.

        Returns:
            {"question": a pair to look at, or None when nothing is open, "open": pairs left, "decided": answers that stand,
            "contradictions": groups}.
        """
        with self._lock:
            self._hear()
            open_pairs = [pair for pair in range(len(self._alike.pair_P2)) if not self._is_known(pair)]
            return {
                "question": self._asked(self._chosen(open_pairs, who), who),
                "open": len(open_pairs),
                "decided": self._log.answered,
                "contradictions": len(self._groups.contradicted),
            }

    def decide(self, says: Said, rows: list[int], who: str) -> int:
        """Write a decision down; returns its number.

        Raises:
            DataError: there is no such picture, or it is not as many as the decision is about.
        """
        wanted = 1 if says == "out" else 2
        if len(set(rows)) != wanted or any(not 0 <= row < len(self._alike.images) for row in rows):
            raise DataError(f"pictures {rows}: {says} is said of {wanted} of the {len(self._alike.images)} pictures that are asked about")
        with self._lock:
            self._held = {pair: held for pair, held in self._held.items() if held[0] != who}
            return self._log.add(says, *(self._alike.images[row].image_id for row in rows), who=who).number

    def undo(self, who: str) -> int | None:
        """Take back the last decision of `who` that stands; returns its number, or None if there is none."""
        with self._lock:
            self._hear()
            undone = {decision.of for decision in self._log.decisions if decision.says == "undo"}
            own = [each for each in self._log.decisions if each.who == who and each.says != "undo" and each.number not in undone]
            if not own:
                return None
            self._log.add("undo", of=own[-1].number, who=who)
            return own[-1].number

    def picture(self, row: int) -> bytes | None:
        """The JPEG of a picture that is asked about, None if there is none."""
        return self._alike.pictures.read(row)

    def _hear(self) -> None:
        if self._log.refresh() or len(self._log.decisions) != self._heard:
            self._groups = IdentityGroups(self._alike.images, self._log.decisions)
            self._members = self._by_group()

    def _by_group(self) -> dict[Node, list[int]]:
        self._heard = len(self._log.decisions)
        members: dict[Node, list[int]] = {}
        for image_id, row in self._row.items():
            members.setdefault(self._groups.group_of(image_id), []).append(row)
        return members

    def _ids(self, pair: int) -> tuple[str, str]:
        first, second = self._alike.pair_P2[pair].tolist()
        return self._alike.images[first].image_id, self._alike.images[second].image_id

    def _is_known(self, pair: int) -> bool:
        first, second = self._ids(pair)
        if self._groups.group_of(first) in self._groups.contradicted:
            return False
        return self._groups.are_same(first, second) or self._groups.are_apart(first, second)

    def _chosen(self, open_pairs: list[int], who: str) -> int | None:
        """Contradictions first, then the most alike; what was skipped comes last, and what somebody else looks at not at all."""
        now = self._clock()
        self._held = {pair: held for pair, held in self._held.items() if now - held[1] < _HELD_S}
        free = [pair for pair in open_pairs if self._held.get(pair, (who, now))[0] == who]
        own = [pair for pair in free if pair in self._held]
        if not free:
            return None

        def urgency(pair: int) -> tuple[bool, bool, int]:
            first, second = self._ids(pair)
            skipped = tuple(sorted((first, second))) in self._groups.skipped
            return skipped, self._groups.group_of(first) not in self._groups.contradicted, pair

        return min(own or free, key=urgency)

    def _asked(self, pair: int | None, who: str) -> dict[str, Any] | None:
        if pair is None:
            return None
        self._held = {other: held for other, held in self._held.items() if held[0] != who} | {pair: (who, self._clock())}
        rows = self._alike.pair_P2[pair].tolist()
        sides = [self._side(row) for row in rows]
        contradicted = self._groups.group_of(self._alike.images[rows[0]].image_id) in self._groups.contradicted
        return {"pair": rows, "score": round(float(self._alike.score_P[pair]), 3), "sides": sides, "contradiction": contradicted}

    def _side(self, row: int) -> dict[str, Any]:
        image = self._alike.images[row]
        others = [other for other in self._members[self._groups.group_of(image.image_id)] if other != row]
        shown = [row, *others[: _SHOWN - 1]]
        pictures = [{"row": each, "image_id": self._alike.images[each].image_id} for each in shown]
        return {"pictures": pictures, "count": 1 + len(others), "person_id": image.person_id}
