"""Working folders of runs, hidden beside their output: the record of each run, runs left unfinished, and their removal.

A run's folder is named after its output and a fingerprint of its configuration and input, so the same command finds its own again, and
a changed option starts in another one. Knows folders, files and configurations as JSON values; not Ray or what is trained.
"""

from __future__ import annotations

import glob
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.fs

from reid_ray.config.base import fingerprint, flattened
from reid_ray.config.called import called
from reid_ray.redaction import redacted
from reid_ray.storage import write_json
from reid_ray.versions import check_json, numbered

_RECORD, _CHECKPOINTS = "run.json", "checkpoints"
_OLDER = "lock"  # what older versions left in each run's folder
_SHOWN = 6  # differences named in a sentence


@dataclass(frozen=True)
class Record:
    """The identity of a run: its configuration and the content of its inputs, hashed into its folder's name.

    config: the job's configuration as JSON values, without what may differ when a run goes on.
    inputs: name of each input -> digest of its content (JobOutput.provenance).
    """

    job: str
    config: dict[str, Any]
    inputs: dict[str, str]

    def folder(self, output: Path) -> Path:
        """Where this run works, if its results go to `output`."""
        return output.parent / f".{output.name}.{fingerprint({'config': self.config, 'input': self.inputs})}.run"

    @property
    def storage(self) -> str | None:
        """schedule.checkpoint_storage."""
        found: str | None = self.config["schedule"]["checkpoint_storage"]
        return found


@dataclass(frozen=True)
class OtherRun:
    """A run of another configuration or input for the same output. `record` is None where an older version has left none."""

    folder: Path
    record: Record | None
    step: int | None  # of its newest checkpoint

    def sentence(self, now: Record) -> str:
        """What it is, how far it has come, what differs from `now`, and how to go on with it, keep it or drop it."""
        reached = f"cut off after the checkpoint of step {self.step}" if self.step is not None else "cut off before its first checkpoint"
        changed = differences(self.record, now) if self.record is not None else ["what it was started with is not recorded"]
        shown = "; ".join(changed[:_SHOWN]) + (f"; and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else "")
        return (
            f"{self.folder} is a run of another configuration for this output, {reached} ({shown or 'made by another version'}); it is not "
            "gone on with: this run has a folder of its own, and deletes that one when it is done. To go on with it, stop this run and "
            f"give its values again; to drop it now, delete {self.folder}; to keep both, choose another {called('output.path')}"
        )


def write_record(folder: Path, record: Record) -> None:
    """Keep what the run in `folder` was started with. The folder is its user's alone: an address may hold a key."""
    write_json(folder / _RECORD, {**numbered("run"), "job": record.job, "config": record.config, "inputs": record.inputs})


def differences(then: Record, now: Record) -> list[str]:
    """What an option was and is, by its dotted name and without secrets; then inputs that have changed."""
    before, after = (flattened(redacted({"job": run.job, **run.config})) for run in (then, now))
    changed = [
        f"{name} {json.dumps(before[name]) if name in before else 'unknown'}, now {json.dumps(after[name]) if name in after else 'gone'}"
        for name in [*before, *(name for name in after if name not in before)]
        if name not in before or name not in after or before[name] != after[name]
    ]
    names = [*then.inputs, *(name for name in now.inputs if name not in then.inputs)]
    return [*changed, *(f"what lies at {name} has changed" for name in names if then.inputs.get(name) != now.inputs.get(name))]


def other_runs(own: Path, output: Path, *, storage: str | None) -> list[OtherRun]:
    """The runs for `output`, but for the one in the folder `own`. Whoever holds the output's lock knows that all are dead.

    Args:
        own: a run's folder.
        output: the output folder of all of them.
        storage: where checkpoints of a run may be that has left no record.

    Raises:
        DataError: a newer version of this package started one of them.
    """
    pattern = re.compile(rf"\.{re.escape(output.name)}\.[0-9a-f]{{16}}\.run")
    found = []
    for folder in sorted(output.parent.glob(f".{glob.escape(output.name)}.*.run")):
        record = _read_record(folder)
        ours = record is not None or (folder / _OLDER).is_file()
        if folder != own and ours and pattern.fullmatch(folder.name):
            found.append(OtherRun(folder, record, newest_step(folder, record.storage if record is not None else storage)))
    return found


def drop_run(run: OtherRun, *, storage: str | None) -> None:
    """Delete a run and its checkpoints; `storage` as in other_runs."""
    filesystem, path = checkpoints_of(run.folder, run.record.storage if run.record is not None else storage)
    if filesystem.get_file_info(path).type == pyarrow.fs.FileType.Directory:
        filesystem.delete_dir(path)
    shutil.rmtree(run.folder)


def checkpoints_of(folder: Path, storage: str | None) -> tuple[pyarrow.fs.FileSystem, str]:
    """Where the checkpoints of the run in `folder` are: in it, or in schedule.checkpoint_storage, under the run's name."""
    if storage is None:
        return pyarrow.fs.LocalFileSystem(), str(folder / _CHECKPOINTS)
    from reid_ray.train.checkpoint.checkpoint_place import open_checkpoint_storage

    filesystem, path = open_checkpoint_storage(storage)
    return filesystem, f"{path}/{folder.name.strip('.')}"


def newest_step(folder: Path, storage: str | None) -> int | None:
    """The step of the newest whole checkpoint of the run in `folder`; None if there is none."""
    from reid_ray.train.checkpoint.checkpoint_place import Checkpoints

    steps = Checkpoints(*checkpoints_of(folder, storage), keep=1).steps()
    return steps[-1] if steps else None


def _read_record(folder: Path) -> Record | None:
    if not (folder / _RECORD).is_file():
        return None
    values = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    check_json("run", values, origin=folder / _RECORD)
    return Record(values["job"], values["config"], values["inputs"])
