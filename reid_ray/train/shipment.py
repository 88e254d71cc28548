"""Stage-in of a run's prepared data: a copy on each node, where its workers do not read the run's folder itself.

The first worker of a node fetches the files, in pieces through Ray's object store from the node where they were prepared, or from an
address where the driver put them; the others wait for it and map the same copy. A copy is named after where its files come from, their
names, sizes and times of change, and appears whole; what a worker that died half-way left, the next removes. Copies that no process uses
make room for new ones. Knows files, locks and Ray; not what is in a file. What workers write goes to the run's folder, not through here.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from reid_ray.errors import DataError
from reid_ray.storage.file_systems import Store, store_at
from reid_ray.train.config import StagingConfig
from reid_ray.train.recipe import DATA, START, TRANSFER

_PIECE = 16 << 20  # bytes fetched at a time
_AHEAD = 4  # pieces on their way through the object store
_FILES = 8  # read at once from an address, put there at once
_SIZE = "size"  # beside a copy's files: its bytes
_MAKING, _PARTIAL = ".making", ".partial"  # after a copy's name: the lock of whoever makes it, and what is made
_in_use: list[int] = []  # descriptors of the locks of copies that this process maps


@dataclass(frozen=True)
class Shipment:
    """What was prepared for a run, for its workers to find.

    folder: the run's folder on the driver's node.
    files: (name relative to it, size in bytes, time of change in ns) of each file.
    node: Ray's id of the driver's node; None without a Ray.
    """

    folder: Path
    files: tuple[tuple[str, int, int], ...]
    node: str | None

    @property
    def key(self) -> str:
        """Names a copy."""
        return hashlib.sha256(json.dumps([str(self.folder), self.files]).encode()).hexdigest()[:16]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(size for _, size, _ in self.files)

    def lies_in(self, folder: Path) -> bool:
        """Whether these very files are in a folder; a stat for each, of which a million images have some dozens."""
        try:
            states = [(folder / name).stat() for name, _, _ in self.files]
        except OSError:
            return False
        return [(state.st_size, state.st_mtime_ns) for state in states] == [(size, changed) for _, size, changed in self.files]


def ship(folder: Path) -> Shipment:
    """What a recipe prepared in a run's folder; called on the driver, in Ray or not."""
    import ray

    found = [path for part in (DATA, START, TRANSFER) for path in sorted((folder / part).rglob("*")) if path.is_file()]
    states = [(path.relative_to(folder).as_posix(), path.stat()) for path in found]
    node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else None
    return Shipment(folder, tuple((name, state.st_size, state.st_mtime_ns) for name, state in states), node)


def put_at(shipment: Shipment, address: str) -> None:
    """Put the files at an address, below the shipment's key; those that are there already, from an earlier attempt, stay."""
    target = store_at(address).child(shipment.key)

    def put(name: str, size: int) -> None:
        state = target.state(name)
        if state is not None and state[0] == size:
            return
        with (shipment.folder / name).open("rb") as source, target.filesystem.open_output_stream(f"{target.root}/{name}") as sink:
            while piece := source.read(_PIECE):
                sink.write(piece)

    if target.is_local:
        for parent in {Path(target.root, name).parent for name, _, _ in shipment.files}:
            parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(_FILES, thread_name_prefix="put") as pool:
        list(pool.map(put, *zip(*((name, size) for name, size, _ in shipment.files), strict=True)))


def remove_from(shipment: Shipment, address: str) -> None:
    """Remove what put_at has put there."""
    target = store_at(address).child(shipment.key)
    target.filesystem.delete_dir(target.root)


def staged(shipment: Shipment, config: StagingConfig) -> Path:
    """Where a worker finds the files: the run's folder, or the copy on its node, made now if there is none; kept while this process lives.

    Raises:
        DataError: the copy does not fit into staging.gib, or what was prepared is not at staging.through.
    """
    if config.path is None and shipment.lies_in(shipment.folder):
        return shipment.folder
    root = Path(config.path or Path(tempfile.gettempdir()) / f"reid-ray-staging-{os.getuid()}")
    root.mkdir(mode=0o700, parents=True, exist_ok=True)  # it holds the pictures that are trained on
    copy = root / shipment.key
    # Two locks, since one that a user holds for life can't be waited for: one worker makes the copy, and those in use are not removed.
    with _locked(root, f"{shipment.key}{_MAKING}", fcntl.LOCK_EX):
        while True:
            descriptor = _lock(root, shipment.key, fcntl.LOCK_SH)
            if copy.is_dir():
                os.utime(copy)
                _in_use.append(descriptor)
                return copy
            os.close(descriptor)
            _make_room(root, shipment, config)
            _fetch(shipment, config, copy)


def _fetch(shipment: Shipment, config: StagingConfig, copy: Path) -> None:
    """Make a copy, with the lock of its making held."""
    partial_copy = copy.with_name(f"{copy.name}{_PARTIAL}")
    shutil.rmtree(partial_copy, ignore_errors=True)
    partial_copy.mkdir(mode=0o700)
    for parent in {(partial_copy / name).parent for name, _, _ in shipment.files}:
        parent.mkdir(parents=True, exist_ok=True)
    if config.through is None:
        for name, size, _ in shipment.files:
            with (partial_copy / name).open("wb") as file:
                file.writelines(_pieces_from_driver(shipment, name, size))
    else:
        source = store_at(config.through).child(shipment.key)
        with ThreadPoolExecutor(_FILES, thread_name_prefix="stage") as pool:
            list(pool.map(partial(_copy_from, source, partial_copy), (name for name, _, _ in shipment.files)))
    short = [name for name, size, _ in shipment.files if (partial_copy / name).stat().st_size != size]
    if short:
        raise DataError(f"{shipment.folder / short[0]}: changed while it was copied to {copy}; start the run again")
    (partial_copy / _SIZE).write_text(str(shipment.size), encoding="ascii")
    partial_copy.rename(copy)


def _pieces_from_driver(shipment: Shipment, name: str, size: int) -> Iterator[bytes]:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    strategy = NodeAffinitySchedulingStrategy(shipment.node, soft=False)
    read = ray.remote(_read).options(num_cpus=0, scheduling_strategy=strategy)
    asked: deque[Any] = deque()
    for start in range(0, size, _PIECE):
        asked.append(read.remote(shipment.folder / name, start, _PIECE))
        if len(asked) >= _AHEAD:
            yield ray.get(asked.popleft())
    while asked:
        yield ray.get(asked.popleft())


def _read(path: Path, start: int, count: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(count)


def _copy_from(source: Store, folder: Path, name: str) -> None:
    try:
        with source.open(name) as stream, (folder / name).open("wb") as file:
            while piece := stream.read(_PIECE):
                file.write(piece)
    except FileNotFoundError:
        raise DataError(f"staging.through {source}: holds no {name}; start the run again, which puts it there") from None


def _make_room(root: Path, shipment: Shipment, config: StagingConfig) -> None:
    """Remove copies that nobody uses, the oldest first, until this one fits into staging.gib."""
    limit = int(config.gib * 2**30)
    if shipment.size > limit:
        raise DataError(f"staging.gib {config.gib:g}: a copy of this run's data takes {shipment.size / 2**30:.3g} GiB; raise it")
    for left in root.glob(f"*{_PARTIAL}"):
        with _locked(root, f"{left.stem}{_MAKING}", fcntl.LOCK_EX | fcntl.LOCK_NB) as held:
            if held:
                shutil.rmtree(left)
    copies = sorted((path for path in root.iterdir() if (path / _SIZE).is_file()), key=lambda path: path.stat().st_mtime)
    held_bytes = {path: int((path / _SIZE).read_text(encoding="ascii")) for path in copies}
    for path in copies:
        if sum(held_bytes.values()) + shipment.size <= limit:
            break
        with _locked(root, path.name, fcntl.LOCK_EX | fcntl.LOCK_NB) as held:
            if held:
                shutil.rmtree(path)
                del held_bytes[path]


def _lock(root: Path, key: str, kind: int) -> int:
    """The descriptor of a lock of a copy or of its making, which lies beside it and is never removed (an empty file)."""
    descriptor = os.open(root / f".{key}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, kind)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def _locked(root: Path, key: str, kind: int) -> Iterator[bool]:
    """Hold the lock of a copy; yields False where LOCK_NB was asked for and somebody else holds it."""
    try:
        descriptor = _lock(root, key, kind)
    except BlockingIOError:
        yield False
        return
    try:
        yield True
    finally:
        os.close(descriptor)
