"""A reader that keeps the deadlines of erasures: it opens the gallery for writing once one is due and no writer has carried it out."""

from __future__ import annotations

from collections.abc import Sequence

from reid_ray.gallery.deadlines import READER_SHARE, ErasureTimer
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.gallery.gallery_writer import GalleryWriter
from reid_ray.gallery.manifest import Erasure


def keep_deadlines(view: GalleryView) -> ErasureTimer:
    """Keep the deadlines of a gallery that is read, until the timer is closed.

    Of several readers one is the writer then; where a writer has the gallery, or this process may not write there, a line says so each
    time, for that writer has a timer of its own.
    """

    def waiting() -> Sequence[Erasure]:
        view.refresh()
        return view.erasures

    def carry_out() -> None:
        with GalleryWriter(view.folder):
            pass  # whoever opens it carries out what is due

    hours = view.manifest.config.erase_within_hours
    look_s = max(0.1, min(60.0, 3600 * hours / 100))  # who asks may be another process
    return ErasureTimer(waiting, carry_out, share=READER_SHARE, gallery=view.folder, look_s=look_s)
