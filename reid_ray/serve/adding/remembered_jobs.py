"""The jobs that a service remembers, by pages, the latest first: what has finished is read once, then only where it is asked for.

Knows folders and times; not what works on them, or HTTP.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from pathlib import Path

from reid_ray.errors import DataError
from reid_ray.serve.adding.config import AddingConfig
from reid_ray.serve.adding.job_folder import JobFolder, JobStatus
from reid_ray.serve.operations.gallery_changes import NotThereError

_LOG = logging.getLogger(__name__)


class RememberedJobs:
    """Jobs below a folder, those of all replicas.

    Args:
        folder: jobs/ of the service's state.
        config: how many finished ones are kept, and how long.
    """

    def __init__(self, folder: Path, config: AddingConfig) -> None:
        self._folder, self._config = folder, config
        self._finished: dict[str, str] = {}  # id -> mark: nothing of these changes any more but what erasures take
        self._naming: set[str] = set()  # of those, the ones that name items: what they refused
        self._damaged: set[str] = set()

    def status(self, job_id: str) -> JobStatus:
        """How far a job is.

        Raises:
            NotThereError: there is none of that id (any more).
        """
        if not job_id.isalnum() or not job_id.isascii():  # it is part of a path
            raise NotThereError(f"job {job_id[:100]!r}: is not there")
        try:
            return JobFolder(self._folder / job_id).status()
        except FileNotFoundError:
            raise NotThereError(f"job {job_id[:100]}: is not there; finished jobs are kept for {self._config.keep_days:g} days") from None

    def page(self, most: int, *, before: str | None = None, unfinished: bool = False) -> tuple[list[JobStatus], str | None]:
        """Some of those that are remembered, the latest first. Of finished ones no more are read than are given.

        Args:
            most: how many.
            before: what came with the page before this one; None for the first.
            unfinished: only those that wait or run.

        Returns:
            Jobs, and what the next page is asked for with; None where there is none.
        """
        read = {_mark(each): each for each in self.unfinished()}
        there = {*read} if unfinished else {*read, *list(self._finished.values())}
        marks = sorted((mark for mark in there if before is None or mark < before), reverse=True)
        found = [read.get(mark) or self._read_one(mark.partition("-")[2]) for mark in marks[:most]]
        return [each for each in found if each is not None], marks[most - 1] if len(marks) > most else None

    def unfinished(self) -> list[JobStatus]:
        """Those that wait or run; finished ones are read once, and not again: what a process that was killed left of their uploads goes."""
        names = [name for name in os.listdir(self._folder) if not name.startswith(".") and name not in self._finished]
        found = [status for name in names if (status := self._read_one(name)) is not None]
        for status in found:
            if status.is_finished:
                self._drop_left_upload(status.job_id)
        self._finished.update({each.job_id: _mark(each) for each in found if each.is_finished})
        self._naming.update(each.job_id for each in found if each.is_finished and each.refused)
        return [each for each in found if not each.is_finished]

    def naming_items(self) -> list[JobStatus]:
        """Those that may name an item: unfinished ones, and of finished ones those that refused something."""
        unfinished = self.unfinished()
        return [*unfinished, *(status for job_id in list(self._naming) if (status := self._read_one(job_id)) is not None)]

    def forget_old(self) -> None:
        """Remove finished ones that are old, or more than are kept."""
        self.unfinished()
        oldest = time.time() - 86_400 * self._config.keep_days
        for at, mark in enumerate(sorted(self._finished.values(), reverse=True)):
            job_id = mark.partition("-")[2]
            is_old = mark < _mark_at(oldest) and ((status := self._read_one(job_id)) is None or (status.ended or status.created) < oldest)
            if at >= self._config.keep_jobs or is_old:
                shutil.rmtree(self._folder / job_id, ignore_errors=True)
                self._drop(job_id)

    def _drop_left_upload(self, job_id: str) -> None:
        try:
            JobFolder(self._folder / job_id).drop_upload()
        except OSError as error:  # what cannot be removed must not hide the other jobs
            _LOG.error("%s: what is left of its upload cannot be removed (%s); remove it", self._folder / job_id, error.strerror)

    def _drop(self, job_id: str) -> None:
        self._finished.pop(job_id, None)
        self._naming.discard(job_id)

    def _read_one(self, name: str) -> JobStatus | None:
        try:
            return self.status(name)
        except NotThereError:
            self._drop(name)  # forgotten meanwhile, maybe by another replica
        except DataError as error:  # one that is damaged must not hide the others
            if name not in self._damaged:
                self._damaged.add(name)
                _LOG.error("%s", error)
        return None


def _mark(status: JobStatus) -> str:
    """Where a job stands among all: such texts sort as the times at which they were asked for."""
    return f"{_mark_at(status.created)}-{status.job_id}"


def _mark_at(seconds: float) -> str:
    return f"{max(round(1e6 * seconds), 0):017d}"
