"""WebDataset: tar shards whose members of one stem form a sample: an image (.jpg, .png, ...), .txt or .caption, and .json.

A .json may say caption or captions, person_id, camera_id, split, attributes, and the image_id that an export made the stem of. Shards are
read from front to back, so any stream will do and one sample is in memory at a time; of a shard that breaks off the whole samples are kept
and the break is counted. `ShardWriter` writes the same.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from reid_ray.config.source import SourceConfig
from reid_ray.data.formats.records import Caption, ImageRecord, Records, Skipped, caption_of
from reid_ray.data.store import Store, is_image_name
from reid_ray.errors import DataError

IMAGE_ID = "reid_ray_image_id"  # in a .json that ShardWriter wrote: the id that the image came from, of which the key need not be a part
_TEXTS = ("txt", "text", "caption")
_SHARDS = (".tar", ".tar.gz", ".tgz")


def read_webdataset(store: Store, source: SourceConfig) -> Records:
    """One record per sample; image_id is the sample's stem with the image's suffix, or what an export says that it was.

    Raises:
        DataError: there is no shard.
    """
    dataset = source.name or store.root.rpartition("/")[2]
    shards = [path for path in store.walk() if path.endswith(_SHARDS)]
    if not shards:
        raise DataError(f"{store}: holds no .tar shard (source.path)")
    for shard in shards:
        with store.open(shard) as stream:
            try:
                for stem, members in _samples(stream, source.max_file_mb << 20):
                    yield _record(stem, members, shard, dataset)
            except (tarfile.TarError, EOFError, OSError) as error:
                detail = f"the shard breaks off ({error}); the samples after this point are unknown"
                yield Skipped(shard, dataset, "broken_shard", detail, path=store.locate(shard))


class ShardWriter:
    """Writes samples into shard-000000.tar and on, `samples_per_shard` each; a context manager."""

    def __init__(self, folder: Path, samples_per_shard: int) -> None:
        self._folder, self._limit = folder, samples_per_shard
        self._tar: tarfile.TarFile | None = None
        self._samples = 0

    def __enter__(self) -> ShardWriter:
        return self

    def write(self, stem: str, image_suffix: str, image: bytes, fields: Mapping[str, Any]) -> None:
        """Add one sample: <stem>.<image_suffix> and <stem>.json."""
        if self._samples % self._limit == 0:
            self._close()
            shard = self._folder / f"shard-{self._samples // self._limit:06d}.tar"
            self._tar = tarfile.open(shard, "w")  # noqa: SIM115 - closed by _close, at the next shard or at the end
        self._samples += 1
        for suffix, data in ((image_suffix, image), ("json", json.dumps(dict(fields)).encode())):
            member = tarfile.TarInfo(f"{stem}.{suffix}")
            member.size = len(data)
            assert self._tar is not None  # opened above with the first sample
            self._tar.addfile(member, io.BytesIO(data))

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._tar is not None:
            self._tar.close()


def _samples(stream: Any, max_bytes: int) -> Iterator[tuple[str, dict[str, bytes]]]:
    """(stem, {suffix: content}) of consecutive members with one stem; a member beyond max_bytes comes cut, to fail later."""
    stem: str | None = None
    members: dict[str, bytes] = {}
    watched = _Tail(stream)
    as_file: Any = watched
    with tarfile.open(fileobj=as_file, mode="r|*") as tar:
        for member in tar:
            if not member.isfile():
                continue
            folder, _, base = member.name.rpartition("/")
            if base.startswith("."):
                continue
            first, _, suffix = base.partition(".")
            this = f"{folder}/{first}" if folder else first
            if this != stem:
                if members:
                    yield str(stem), members
                stem, members = this, {}
            file = tar.extractfile(member)
            content = file.read(max_bytes + 1) if file else b""
            if len(content) < min(member.size, max_bytes + 1):
                raise tarfile.ReadError(f"{member.name} is cut")
            members[suffix.lower()] = content
    if not watched.compressed and watched.tail.strip(b"\0"):
        raise tarfile.ReadError("it has no end mark")
    if members:
        yield str(stem), members


class _Tail:
    """A stream that remembers its last block: tarfile takes an archive cut between two members for a whole one."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.tail = b"?"
        self.compressed: bool | None = None

    def read(self, size: int) -> bytes:
        data: bytes = self._stream.read(size)
        if self.compressed is None:
            self.compressed = data[:2] == b"\x1f\x8b" or data[:3] == b"BZh" or data[:6] == b"\xfd7zXZ\0"
        if data:
            self.tail = (self.tail + data)[-512:]
        return data


def _record(stem: str, members: dict[str, bytes], shard: str, dataset: str) -> ImageRecord | Skipped:
    place = f"{shard}: {stem}"
    try:
        fields = json.loads(members.get("json", b"{}"))
        if not isinstance(fields, dict):
            raise ValueError(f"is a {type(fields).__name__}, not an object")
        captions = _captions(members, fields)
        person_id, camera_id = (_whole(fields.get(name), name) for name in ("person_id", "camera_id"))
    except ValueError as error:
        return Skipped(stem, dataset, "bad_annotation", f"{place}: {error}")
    suffix = next((suffix for suffix in members if is_image_name(f"x.{suffix}")), None)
    if suffix is None:
        return Skipped(stem, dataset, "missing", f"{place} has no image, only {', '.join(members)}", captions=captions)
    attributes = fields.get("attributes")
    split = fields.get("split")
    image_id = fields.get(IMAGE_ID)
    return ImageRecord(
        image_id if isinstance(image_id, str) else f"{stem}.{suffix}",
        dataset=str(fields.get("dataset") or dataset),
        data=members[suffix],
        split=str(split) if split is not None else None,
        person_id=person_id,
        camera_id=camera_id,
        attributes=json.dumps(attributes) if isinstance(attributes, dict) else None,
        captions=captions,
    )


def _captions(members: dict[str, bytes], fields: dict[str, Any]) -> tuple[Caption, ...]:
    texts: list[Any] = [members[suffix].decode("utf-8", errors="replace") for suffix in _TEXTS if suffix in members]
    if "caption" in fields:
        texts.append(fields["caption"])
    listed = fields.get("captions", [])
    texts.extend(listed if isinstance(listed, list) else [listed])
    return tuple(caption_of(text) for text in texts)


def _whole(value: Any, name: str) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise ValueError(f"{name} is {value!r}, not a whole number")
