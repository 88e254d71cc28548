"""Who was erased since a moment: an item that is on its way into a gallery must not come back, whoever asked for its erasure, and where.

A moment is what was known of the gallery then, its generation and the erasures that waited. No clocks are compared: who erases and who
adds may sit on machines whose clocks differ. Knows a gallery's erasures, those that wait and the receipts of those that are done; not jobs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reid_ray.gallery.erasure import digests_of, erasure_name, read_receipt, receipt_names
from reid_ray.gallery.gallery_view import GalleryView


@dataclass(frozen=True)
class ErasuresBefore:
    """A moment.

    generation: of the gallery then; what was carried out by that one was asked for before.
    waiting: erasures that were asked for and not yet carried out then, as erasure_name calls them.
    """

    generation: int
    waiting: tuple[str, ...]

    @classmethod
    def of(cls, view: GalleryView) -> ErasuresBefore:
        """Now, if `view` is up to date. Segments are not needed."""
        generation, erasures = view.standing()
        return cls(generation, tuple(erasure_name(each.request, each.asked) for each in erasures))


class ErasedSince:
    """The items that were erased since a moment.

    Args:
        gallery: folder or address.
        before: the moment.
    """

    def __init__(self, gallery: str, before: ErasuresBefore) -> None:
        self._gallery, self._before, self._known = gallery, before.generation, frozenset(before.waiting)
        self._generation = -1
        self._looked_at: set[str] = set()
        self._digests: set[str] = set()

    def among(self, view: GalleryView, ids: Sequence[str]) -> set[str]:
        """Which of some items were. `view` is up to date: nobody erases while this looks."""
        self._look(view)
        found = self._waiting(view) & set(ids)
        if self._digests:
            found |= {each for digest, each in digests_of(self._gallery, ids).items() if digest in self._digests}
        return found

    def is_anybody(self, view: GalleryView) -> bool:
        """Whether anything was erased at all."""
        self._look(view)
        return bool(self._digests or self._waiting(view))

    def _waiting(self, view: GalleryView) -> set[str]:
        later = [each for each in view.erasures if erasure_name(each.request, each.asked) not in self._known]
        return {each for erasure in later for each in erasure.ids}

    def _look(self, view: GalleryView) -> None:
        if view.generation != self._generation:  # an erasure that is carried out makes a generation
            self._read_receipts()
            self._generation = view.generation

    def _read_receipts(self) -> None:
        for name in receipt_names(self._gallery):
            if name in self._looked_at:
                continue
            self._looked_at.add(name)
            receipt = read_receipt(self._gallery, name)
            if receipt is None or receipt["generation"] <= self._before:
                continue
            if erasure_name(receipt["request"], receipt["asked"]) not in self._known:
                self._digests.update(receipt["digests"])
