"""Who was erased since a moment: an item that is on its way into a gallery must not come back, whoever asked for its erasure, and where.

Knows a gallery's erasures, those that wait and the receipts of those that are done; not jobs.
"""

from __future__ import annotations

import calendar
import time
from collections.abc import Sequence

from reid_ray.gallery.erasure import digests_of, read_receipt, receipt_names
from reid_ray.gallery.gallery_view import GalleryView


class ErasedSince:
    """The items that were erased since a moment.

    Args:
        gallery: folder or address.
        since: seconds since 1970.
        generation: of the gallery then; what was carried out by that one was asked for before.
    """

    def __init__(self, gallery: str, since: float, generation: int) -> None:
        self._gallery, self._since, self._before = gallery, since, generation
        self._generation = -1
        self._looked_at: set[str] = set()
        self._digests: set[str] = set()

    def among(self, view: GalleryView, ids: Sequence[str]) -> set[str]:
        """Which of some items were. `view` is up to date: nobody erases while this looks."""
        self._look(view)
        waiting = {each for erasure in view.erasures if erasure.asked >= self._since for each in erasure.ids}
        found = waiting & set(ids) if waiting else set()
        if self._digests:
            found |= {each for digest, each in digests_of(self._gallery, ids).items() if digest in self._digests}
        return found

    def is_anybody(self, view: GalleryView) -> bool:
        """Whether anything was erased at all."""
        self._look(view)
        return bool(self._digests) or any(erasure.asked >= self._since for erasure in view.erasures)

    def _look(self, view: GalleryView) -> None:
        if view.generation != self._generation:  # an erasure that is carried out makes a generation
            self._read_receipts()
            self._generation = view.generation

    def _read_receipts(self) -> None:
        for name in receipt_names(self._gallery):
            if name in self._looked_at:
                continue
            self._looked_at.add(name)
            receipt = read_receipt(self._gallery, name)  # its times are whole seconds
            if receipt is not None and _seconds(receipt["asked"]) >= int(self._since) and receipt["generation"] > self._before:
                self._digests.update(receipt["digests"])


def _seconds(moment: str) -> float:
    return calendar.timegm(time.strptime(moment, "%Y-%m-%dT%H:%M:%SZ"))
