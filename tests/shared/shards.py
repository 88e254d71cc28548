"""Tar shards for tests, member by member."""

import io
import tarfile
from pathlib import Path


def shard(path: Path, members: list[tuple[str, bytes]], mode: str = "w", **options) -> Path:
    """Write (name, bytes) members in this order; names may repeat."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode, **options) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path
