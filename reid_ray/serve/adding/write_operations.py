"""The changing half of a service process: the writer that opens when it is needed, the changes, the add jobs, and answers that are kept.

Knows what belongs together and where it lies (the folder `state`); not HTTP, or who may.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reid_ray.gallery.deadlines import ErasureTimer
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.gallery.shards.share import NOTHING
from reid_ray.model.encoder import Encoder
from reid_ray.retrieval.searched_folder import about_gallery
from reid_ray.serve.adding.add_job import AddTools
from reid_ray.serve.adding.config import AddingConfig
from reid_ray.serve.adding.job_board import JobBoard
from reid_ray.serve.adding.job_folder import JobStatus
from reid_ray.serve.operations.config import WritingConfig
from reid_ray.serve.operations.gallery_changes import ErasureState, GalleryChanges
from reid_ray.serve.operations.remembered_answers import RememberedAnswers
from reid_ray.serve.operations.writer_turns import WriterTurns


class WriteOperations:
    """What a process of the service does that changes its gallery.

    Args:
        gallery: folder or address.
        state: the service's folder; all replicas see the same.
        include_synthetic: also take pictures that an editor made.

    Raises:
        DataError: no gallery is there.
    """

    def __init__(self, gallery: str, state: Path, writing: WritingConfig, adding: AddingConfig, *, include_synthetic: bool = False) -> None:
        self.gallery = gallery
        self.answers = RememberedAnswers(state / "answers")
        self.board = JobBoard(state, adding, finished=self._tell_of_job)
        self._about = about_gallery(gallery)
        self._include_synthetic = include_synthetic
        self._changed: Callable[[], object] = lambda: None
        self._job_finished: Callable[[JobStatus], object] = lambda status: None
        self.turns = WriterTurns(gallery, writing, changed=self._tell)
        self.changes = GalleryChanges(self.turns, erased=self.board.forget)
        self._deadlines: ErasureTimer | None = None

    def start(
        self, encoder: Encoder, *, changed: Callable[[], object], job_finished: Callable[[JobStatus], object] = lambda status: None
    ) -> None:
        """Keep the deadlines of erasures, and work on add jobs.

        Args:
            encoder: what made the gallery's vectors.
            changed: called after each change, before it is answered: the searches of this process see it then.
            job_finished: called when a job has ended, from a thread.
        """
        self._changed, self._job_finished = changed, job_finished
        self._deadlines = self.turns.keep_deadlines(GalleryView(self.gallery, share=NOTHING))

        def tools(stopping: Callable[[], bool]) -> AddTools:
            about = GalleryView(self.gallery, share=NOTHING)
            return AddTools(self.turns, encoder, self.board.config, about, self._include_synthetic, stopping)

        self.board.start(tools, self.changes)

    def close(self) -> None:
        """End threads; changes that wait are made, and a job goes on when the service is there again."""
        self.board.close()
        if self._deadlines is not None:
            self._deadlines.close()
        self.turns.close()

    async def about(self) -> GalleryView:
        """The gallery's generation, columns and erasures, as they are now; none of its items."""
        return await asyncio.to_thread(self.about_now)

    def about_now(self) -> GalleryView:
        """The same, for a thread."""
        self._about.refresh()
        return self._about

    async def erasures(self) -> list[ErasureState]:
        """As GalleryChanges.erasures."""
        return await asyncio.to_thread(self.changes.erasures, await self.about())

    async def erasure(self, request: str) -> ErasureState:
        """As GalleryChanges.erasure."""
        return await asyncio.to_thread(self.changes.erasure, await self.about(), request)

    async def generations(self) -> dict[str, Any]:
        """As GalleryChanges.generations."""
        return await asyncio.to_thread(self._generations)

    def _generations(self) -> dict[str, Any]:
        view = GalleryView(self.gallery)
        try:
            return self.changes.generations(view)
        finally:
            view.close()

    def _tell(self) -> None:
        self._changed()

    def _tell_of_job(self, status: JobStatus) -> None:
        self._job_finished(status)
