"""All add jobs of a service, of all its replicas: taken, listed, cancelled, and worked on one after the other by a thread of each process.

A job belongs to whoever holds its lock, which ends with the process: another replica, or the service when it starts again, goes on with it.
Knows folders and states; not what a job does (add_job.py), or HTTP.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from reid_ray.errors import ConfigError, ReidRayError
from reid_ray.gallery.bulk.erased_since import ErasuresBefore
from reid_ray.redaction import error_location
from reid_ray.serve.adding.add_job import AddTools, JobStoppedError, work
from reid_ray.serve.adding.blanked_uploads import blank
from reid_ray.serve.adding.config import AddingConfig
from reid_ray.serve.adding.job_folder import JobFolder, JobKind, JobStatus, UploadGoneError
from reid_ray.serve.adding.remembered_jobs import RememberedJobs
from reid_ray.serve.adding.uploads import NEW, Upload, uploads_on_their_way
from reid_ray.serve.operations.gallery_changes import ConflictError, GalleryChanges
from reid_ray.serve.operations.writer_turns import BusyError
from reid_ray.storage.lock import OutputLock
from reid_ray.system_errors import sentence_of

_LOG = logging.getLogger(__name__)
_LOOK_EVERY_S = 1.0
_TIDY_EVERY_S = 60.0
_MOST_ATTEMPTS = 4
_NICE = 10  # searches go before jobs: what the thread computes has less of the processor, and so have threads that it starts


class JobBoard:
    """Add jobs below a folder; `start` works on them until `close`.

    Args:
        state: the service's folder; its jobs/ is made.
        config: of adding.
        finished: called when a job has ended, in whatever state.
    """

    def __init__(self, state: Path, config: AddingConfig, *, finished: Callable[[JobStatus], object] = lambda status: None) -> None:
        self.config, self._told = config, finished
        self._jobs = state / "jobs"
        self._jobs.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._remembered = RememberedJobs(self._jobs, config)
        self._asked, self._is_over = threading.Event(), threading.Event()
        self._tidied = float("-inf")
        self._thread: threading.Thread | None = None

    def start(self, tools: Callable[[Callable[[], bool]], AddTools], changes: GalleryChanges) -> None:
        """Work on what waits, in a thread. `tools` is called with what says whether the service is stopping."""
        self._thread = threading.Thread(target=self._run, args=(tools, changes), name="add-jobs", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread; the job that it works on goes on when the service is there again."""
        self._is_over.set()
        self._asked.set()
        if self._thread is not None:
            self._thread.join()

    def receive(self) -> Upload:
        """An upload that begins.

        Raises:
            BusyError: too many jobs wait.
        """
        if len(self._remembered.unfinished()) + uploads_on_their_way(self._jobs) >= self.config.most_unfinished:
            raise BusyError(f"{self.config.most_unfinished} jobs wait or run already; try again when one is done", retry_after_s=10)
        return Upload(self._jobs, self.config)

    def new_status(self, kind: JobKind, *, by: str, before: ErasuresBefore, key: str | None = None) -> JobStatus:
        """The status of a job that is about to be; asked for before its upload is read, so that an erasure meanwhile counts.

        Args:
            kind: what it does.
            by: who asks.
            before: what is known of the gallery, now.
            key: names the request; the same one of the same caller makes no second job.
        """
        job_id = uuid.uuid4().hex if key is None else hashlib.sha256(f"{by}\0{key}".encode("utf-8", "surrogatepass")).hexdigest()[:32]
        return JobStatus(job_id, kind, by, time.time(), before.generation, waiting_erasures=list(before.waiting))

    def with_captions(self, status: JobStatus) -> JobStatus:
        """The same job, whose pictures are captioned first.

        Raises:
            ConfigError: nothing captions here.
        """
        if self.config.captioner is None:
            raise ConfigError("caption: this service names no captioner (adding.captioner); add without captions, or have it name one")
        return replace(status, captioned=True)

    def announce(self) -> None:
        """A job was made; the thread looks at once."""
        self._asked.set()

    def add_compaction(self, *, by: str, before: ErasuresBefore, key: str | None = None) -> JobStatus:
        """A job that compacts the gallery."""
        status = self.new_status("compact", by=by, before=before, key=key)
        hidden = JobFolder(self._jobs / f"{NEW}{uuid.uuid4().hex}")
        hidden.path.mkdir(mode=0o700)
        hidden.write_status(status)
        try:
            hidden.path.rename(self._jobs / status.job_id)
        except OSError:
            shutil.rmtree(hidden.path)
            return self.status(status.job_id)
        self.announce()
        return status

    def status(self, job_id: str) -> JobStatus:
        """As RememberedJobs.status."""
        return self._remembered.status(job_id)

    def page(self, most: int, *, before: str | None = None, unfinished: bool = False) -> tuple[list[JobStatus], str | None]:
        """As RememberedJobs.page."""
        return self._remembered.page(most, before=before, unfinished=unfinished)

    def cancel(self, job_id: str) -> JobStatus:
        """Have a job end after its batch; what it added stays.

        Raises:
            NotThereError: there is none of that id.
            ConflictError: it is finished, or compacts, which cannot be broken off.
        """
        status = self.status(job_id)
        if status.is_finished or (status.kind == "compact" and status.state == "running"):
            raise ConflictError(f"job {job_id}: is {status.state}, and cannot be cancelled")
        folder = JobFolder(self._jobs / job_id)
        folder.ask_to_cancel()
        lock = OutputLock(folder.path, "add job")
        with suppress(ReidRayError):  # who works on it sees it
            lock.acquire()
            try:
                status = folder.status()
                if not status.is_finished:
                    self._finish(folder, status, "cancelled")
            finally:
                lock.release()
        return self.status(job_id)

    def forget(self, ids: Collection[str]) -> None:
        """These items are being erased: what uploads that wait hold of them goes now, and what finished jobs say of them."""
        wanted = set(ids)
        for status in self._remembered.naming_items():
            folder = JobFolder(self._jobs / status.job_id)
            if status.is_finished:
                kept = [each for each in status.refused if not wanted & {each["file"], each["item_id"]}]
                if len(kept) < len(status.refused):
                    folder.write_status(replace(status, refused=kept))
                continue
            with suppress(FileNotFoundError, UploadGoneError):  # the job has ended meanwhile, and its upload is gone
                blank(folder, status, wanted)
                if folder.status().is_finished:  # and an upload that was written anew goes with it
                    folder.drop_upload()

    def _run(self, tools: Callable[[Callable[[], bool]], AddTools], changes: GalleryChanges) -> None:
        with suppress(OSError):  # some containers do not let it
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        opened: AddTools | None = None
        while not self._is_over.is_set():
            try:
                if (folder := self._next()) is not None:
                    opened = opened or tools(self._is_over.is_set)
                    self._work(folder, opened, changes)
                    continue
            except Exception as error:  # noqa: BLE001 - a job's folder that cannot be read must not end the others
                _LOG.error("add jobs: %s", error_location(error))
            self._asked.wait(_LOOK_EVERY_S)
            self._asked.clear()

    def _next(self) -> JobFolder | None:
        """The oldest job that waits, or whose process is gone; finished ones that are old are removed."""
        unfinished = self._remembered.unfinished()
        if time.monotonic() - self._tidied > _TIDY_EVERY_S:
            self._tidied = time.monotonic()
            self._remembered.forget_old()
            uploads_on_their_way(self._jobs)
        for status in sorted(unfinished, key=lambda each: each.created):
            folder = JobFolder(self._jobs / status.job_id)
            if not _is_held(folder):
                return folder
        return None

    def _work(self, folder: JobFolder, tools: AddTools, changes: GalleryChanges) -> None:
        lock = OutputLock(folder.path, "add job")
        try:
            lock.acquire()
        except ReidRayError:
            return  # another replica was quicker
        try:
            status = folder.status()
            if status.is_finished:
                return
            if folder.is_to_be_cancelled:
                self._finish(folder, status, "cancelled")
                return
            status.state, status.attempts, status.started = "running", status.attempts + 1, status.started or time.time()
            if status.attempts > _MOST_ATTEMPTS:
                words = f"the service ended {_MOST_ATTEMPTS} times while it worked on this job; {status.done:,} of its rows were done"
                self._finish(folder, status, "failed", words)
                return
            folder.write_status(status)
            self._do(folder, status, tools, changes)
        finally:
            lock.release()

    def _do(self, folder: JobFolder, status: JobStatus, tools: AddTools, changes: GalleryChanges) -> None:
        try:
            if status.kind == "compact":
                status.generation = changes.compact(wait_s=600.0).generation
            else:
                work(folder, status, tools)
        except JobStoppedError as error:
            if error.is_cancelled:
                self._finish(folder, status, "cancelled")
            else:
                status.state, status.attempts = "waiting", status.attempts - 1
                folder.write_status(status)
        except Exception as error:  # noqa: BLE001 - whatever a job fails of is said of the job; the thread goes on with the next one
            _LOG.error("an add job failed: %s", error_location(error))
            sentence = sentence_of(error) or "it failed inside the service, whose log says where"
            after = f"; {status.added:,} items had been added" if status.added else ""
            self._finish(folder, status, "failed", f"{sentence}{after}")
        else:
            self._finish(folder, status, "done")

    def _finish(self, folder: JobFolder, status: JobStatus, state: str, detail: str | None = None) -> None:
        assert state in ("done", "failed", "cancelled")
        status.state, status.ended, status.detail = state, time.time(), detail  # type: ignore[assignment]
        folder.write_status(status)  # first, or a process that is killed between leaves a job that runs and has nothing to run on
        folder.drop_upload()
        self._told(status)


def _is_held(folder: JobFolder) -> bool:
    lock = OutputLock(folder.path, "add job")
    try:
        lock.acquire()
    except ReidRayError:
        return True
    lock.release()
    return False
