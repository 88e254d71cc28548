"""Checkpoint storage: atomic writes to a local or remote file system, retention, and which checkpoint a new group of workers resumes from.

Knows pyarrow's file systems; what is in a checkpoint is contents.py's. Ray Train is not asked which checkpoint is the newest: it learns
of one a moment after it was written, and would lose it with a worker that dies in between. What is stored whole counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs
import torch.distributed as dist

from reid_ray.errors import DataError
from reid_ray.scratch import scratch_folder
from reid_ray.storage import MANIFEST
from reid_ray.train.checkpoint.contents import Progress, read_parts, seed_forward, write_parts
from reid_ray.train.collectives import broadcast
from reid_ray.train.parts import Parts
from reid_ray.versions import check_manifest

_STEP = re.compile(r"step-(\d+)$")


class Checkpoints:
    """The checkpoints of one run: restore the newest, save, delete old ones. One object on every worker.

    Args:
        filesystem: any of pyarrow's.
        path: the run's folder on it; it exists.
        keep: how many are kept.
    """

    def __init__(self, filesystem: pyarrow.fs.FileSystem, path: str, *, keep: int) -> None:
        self._filesystem, self._path, self._keep = filesystem, path, keep

    def restore(self, parts: Parts) -> Progress:
        """Load the newest checkpoint into the engine and masking of `parts`; every worker must call it.

        Without one the run starts anew: Progress(), and random numbers of each worker's own.
        """
        newest = broadcast(self.steps()[-1:])  # or a slow file system might tell workers different things
        if not newest:
            seed_forward(0, parts.engine.rank)
            return Progress()
        with CheckpointPlace(self._filesystem, self._at(newest[0])).as_local_folder() as folder:
            return broadcast(read_parts(folder, parts.engine, parts.masking))

    def save(self, parts: Parts, progress: Progress) -> None:
        """Write a checkpoint and delete old ones; returns when it is stored. Every worker must call it."""
        place = CheckpointPlace(self._filesystem, self._at(progress.step))
        first = parts.engine.rank == 0
        if first:
            place.begin()
        parts.engine.barrier()
        with place.folder() as folder:
            manifest = write_parts(folder, parts, progress, world=dist.get_world_size())
        parts.engine.barrier()
        if first:
            place.commit(manifest)
            for step in self.steps()[: -self._keep]:
                self._filesystem.delete_dir(self._at(step))
        parts.engine.barrier()

    def steps(self) -> list[int]:
        """The steps of all whole checkpoints, ascending."""
        found = self._filesystem.get_file_info(pyarrow.fs.FileSelector(self._path, allow_not_found=True))
        named = [int(match[1]) for info in found if (match := _STEP.match(info.base_name))]
        manifests = self._filesystem.get_file_info([f"{self._at(step)}/{MANIFEST}" for step in named])
        return sorted(step for step, info in zip(named, manifests, strict=True) if info.is_file)

    def _at(self, step: int) -> str:
        return f"{self._path}/step-{step:08d}"


def refuse_newer(filesystem: pyarrow.fs.FileSystem, path: str) -> None:
    """Check, on the driver, that workers can resume from what lies in `path`: a worker that cannot would be started again and again.

    Raises:
        DataError: a newer version of this package wrote the newest checkpoint.
    """
    for step in Checkpoints(filesystem, path, keep=1).steps()[-1:]:
        manifest = f"{path}/step-{step:08d}/{MANIFEST}"
        with filesystem.open_input_stream(manifest) as stream:
            check_manifest(json.loads(stream.read()), origin=manifest)


class CheckpointPlace:
    """One checkpoint on a file system, local or remote, written atomically.

    On a local file system (a disk, NFS, Lustre) workers write into a hidden folder that is renamed when all have. Object stores have no
    renaming of folders: there the manifest, written last, is what makes a checkpoint.

    Args:
        filesystem: any of pyarrow's.
        path: of the checkpoint, on that file system.
    """

    def __init__(self, filesystem: pyarrow.fs.FileSystem, path: str) -> None:
        self._filesystem, self._path = filesystem, path
        self._local = isinstance(filesystem, pyarrow.fs.LocalFileSystem)
        parent, _, name = path.rpartition("/")
        self._staging = f"{parent}/.{name}.partial" if self._local else path

    def begin(self) -> None:
        """Make the folder to write into, empty of what an attempt before may have left; one worker calls it, then all write."""
        for path in (self._staging, self._path):
            if self._filesystem.get_file_info(path).type == pyarrow.fs.FileType.Directory:
                self._filesystem.delete_dir(path)
        self._filesystem.create_dir(self._staging, recursive=True)

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """A local folder to write into; what is in it at the end is in the checkpoint."""
        if self._local:
            yield Path(self._staging)
            return
        with scratch_folder() as folder:
            yield folder
            pyarrow.fs.copy_files(str(folder), self._staging, destination_filesystem=self._filesystem)

    def commit(self, manifest: dict[str, Any]) -> None:
        """Add the list of files and make the checkpoint appear; one worker calls it when all have written."""
        found = self._filesystem.get_file_info(pyarrow.fs.FileSelector(self._staging, recursive=True))
        files = {info.path[len(self._staging) :].lstrip("/"): info.size for info in found if info.is_file}
        text = json.dumps({**manifest, "files": dict(sorted(files.items()))}, indent=2) + "\n"
        with self._filesystem.open_output_stream(f"{self._staging}/{MANIFEST}") as stream:
            stream.write(text.encode())
        if self._local:
            self._filesystem.move(self._staging, self._path)

    @contextmanager
    def as_local_folder(self) -> Iterator[Path]:
        """The checkpoint as a local folder, to read from."""
        if self._local:
            yield Path(self._path)
            return
        with scratch_folder() as folder:
            pyarrow.fs.copy_files(self._path, str(folder), source_filesystem=self._filesystem)
            yield folder


def open_checkpoint_storage(location: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """The file system of a folder or URI, and the path on it; the folder is made if it is not there.

    Raises:
        DataError: it cannot be opened or written to.
    """
    try:
        if "://" in location:
            filesystem, path = pyarrow.fs.FileSystem.from_uri(location)
        else:
            filesystem, path = pyarrow.fs.LocalFileSystem(), str(Path(location).expanduser().resolve())
        filesystem.create_dir(path, recursive=True)
    except (pa.ArrowException, OSError, ValueError, ImportError) as error:
        raise DataError(
            f"schedule.checkpoint_storage {location}: cannot be opened for writing ({error}); check address and credentials, or set it to "
            "null to keep checkpoints beside the output"
        ) from None
    return filesystem, path.rstrip("/")
