"""WebDataset: tar shards whose members of one key, the name up to its first dot, form a sample: an image (.jpg, .png, ...), .txt or
.caption, and .json.

A .json may say caption or captions, person_id, camera_id, split, synthetic, attributes, and the image_id that an export made the stem of.
A sample's members are found wherever they lie in the shard; a link is its target. Every member ends in a record or in a counted row; of a
shard that breaks off the whole samples are kept and the break is counted. `ShardWriter` writes the same.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from reid_ray.data.containers.annotations import RepeatedKeys, decode_text, parse_json
from reid_ray.data.containers.tar_index import Member, NoMemberError, TarIndex
from reid_ray.data.containers.values import split_name, whole
from reid_ray.data.formats.config import SourceConfig
from reid_ray.data.image_records import Caption, ImageRecord, Records, Skipped, caption_of
from reid_ray.data.images import is_image_name
from reid_ray.errors import DataError
from reid_ray.storage.file_systems import Store
from reid_ray.storage.object_store.pointer import place_name
from reid_ray.storage.regular_files import raise_if_system

IMAGE_ID = "reid_ray_image_id"  # in a .json that ShardWriter wrote: the id that the image came from, of which the key need not be a part
_READ = frozenset({"caption", "captions", "person_id", "camera_id", "split", "synthetic", "attributes", "dataset", IMAGE_ID})
_TEXTS = ("txt", "text", "caption")
_SHARDS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")


def read_webdataset(store: Store, source: SourceConfig) -> Records:
    """One record per sample; image_id is the name of its image, or what an export says that it was.

    Raises:
        DataError: there is no shard.
    """
    dataset = source.name or place_name(store.root)
    shards = [path for path in store.walk() if path.lower().endswith(_SHARDS)]
    if not shards:
        raise DataError(f"{store}: holds no .tar shard (source.path)")
    for shard in shards:
        located = store.locate(shard)
        try:
            stream = store.open(shard)
        except OSError as error:
            raise_if_system(error)
            yield Skipped(shard, dataset, "broken_shard", f"the shard cannot be read ({error})", path=located)
            continue
        with stream, TarIndex(stream, local=store.is_local, max_bytes=source.max_file_mb << 20) as index:
            yield from _rows(index, shard, dataset)
            if index.broken is not None:
                where = f"in or after sample {index.last}" if index.last else "at its beginning"
                detail = f"the shard breaks off {where} ({index.broken}); that sample and those after it are unknown"
                yield Skipped(shard, dataset, "broken_shard", detail, path=located)


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


def _rows(index: TarIndex, shard: str, dataset: str) -> Records:
    most = index.most_members() if index.broken else None
    for key, members in index.samples():
        if index.broken and key == index.last:
            continue
        sample = _Sample(index, key, f"{shard}: {key}", dataset)
        if most is not None and len(members) < most:
            detail = f"{shard} breaks off, and its members are not neighbours, so some of this sample may be lost; sort the shard by name"
            yield from sample.refused(members, "broken_shard", detail)
        else:
            yield from sample.rows(members)


class _Sample:
    """The members of one key -> the image's record, and a counted row for every member that has no place in it."""

    def __init__(self, index: TarIndex, key: str, place: str, dataset: str) -> None:
        self._index, self._key, self._place, self._dataset = index, key, place, dataset

    def rows(self, members: list[Member]) -> Records:
        """The record last, so that what is wrong with the sample comes before it."""
        unique, again, differing = self._repeats(members)
        if differing:
            detail = f"{differing} is there more than once with different content, so nobody knows what belongs together"
            yield from self.refused(members, "repeated_member", detail)
            return
        for member in again:
            yield self._skipped(member.name, "repeated_member", "the same member is there again")
        images = [member for member in unique if is_image_name(f"x.{member.suffix}")]
        image = _image_of(images)
        if image is None and images:
            detail = (
                f"{len(images)} images have the key {self._key}, the name up to its first dot; which one the others describe is unknown"
            )
            yield from self.refused(unique, "several_images", detail)
            return
        part = image.suffix.rpartition(".")[0] if image else ""
        notes = [m for m in unique if m not in images and _ending(m) in (*_TEXTS, "json") and m.suffix.rpartition(".")[0] in ("", part)]
        for member in unique:
            if member != image and member not in notes:
                reason = "several_images" if member in images else "no_image_file"
                yield self._skipped(
                    member.name, reason, f"{self._place} is read with an image, a text and a .json, and this is none of them"
                )
        if image is not None or notes:
            yield self._record(image, notes)

    def refused(self, members: list[Member], reason: str, detail: str) -> Iterator[Skipped]:
        """Every image of the sample as a failed row, the first with the texts; the key itself if there is no image."""
        images = [member.name for member in members if is_image_name(f"x.{member.suffix}")]
        captions = tuple(caption for member in members if _ending(member) in _TEXTS for caption in self._texts([member]))
        for number, name in enumerate(images or [self._key]):
            yield Skipped(name, self._dataset, reason, f"{self._place}: {detail}", captions=captions if number == 0 else ())

    def _record(self, image: Member | None, notes: list[Member]) -> ImageRecord | Skipped:
        name = image.name if image else self._key
        captions = self._texts([member for member in notes if _ending(member) in _TEXTS])
        try:
            fields = self._fields([member for member in notes if _ending(member) == "json"])
            captions = _captions(captions, fields)
            person_id, camera_id = (whole(fields.get(column), column) for column in ("person_id", "camera_id"))
        except ValueError as error:
            return Skipped(name, self._dataset, "bad_annotation", f"{self._place}: {error}", captions=captions)
        except NoMemberError as error:
            return Skipped(name, self._dataset, error.reason, f"{self._place}: {error}", captions=captions)
        image_id, attributes = fields.get(IMAGE_ID), fields.get("attributes")
        split, dataset = split_name(fields.get("split")), str(fields.get("dataset") or self._dataset)
        image_id = image_id if isinstance(image_id, str) else name
        who = (split, person_id, camera_id, None, captions)
        if image is None:
            only = ", ".join(member.suffix for member in notes)
            return Skipped(image_id, dataset, "missing", f"{self._place} has no image, only {only}", *who)
        try:
            data = self._index.read(image)
        except NoMemberError as error:
            return Skipped(image_id, dataset, error.reason, f"{self._place}: {error}", *who)
        return ImageRecord(
            image_id,
            dataset,
            data=data,
            split=split,
            person_id=person_id,
            camera_id=camera_id,
            synthetic=synthetic if isinstance(synthetic := fields.get("synthetic"), bool) else None,
            attributes=json.dumps(attributes) if isinstance(attributes, dict) else None,
            captions=captions,
            mended=("further_fields",) if fields.keys() - _READ else (),
        )

    def _repeats(self, members: list[Member]) -> tuple[list[Member], list[Member], str | None]:
        """(members of different names, those that are there again, the name of one that is there again with other content)."""
        unique: dict[str, Member] = {}
        again: list[Member] = []
        for member in members:
            first = unique.setdefault(member.name, member)
            if first is not member:
                if self._index.digest(first) != self._index.digest(member):
                    return [], [], member.name
                again.append(member)
        return list(unique.values()), again, None

    def _fields(self, members: list[Member]) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for member in members:
            content = parse_json(self._index.read(member))
            if not isinstance(content, dict):
                raise ValueError(f"{member.name} is a {type(content).__name__}, not an object")
            if isinstance(content, RepeatedKeys):
                raise ValueError(f"{member.name} says {', '.join(content.repeated)} more than once")
            fields |= content
        return fields

    def _texts(self, members: list[Member]) -> tuple[Caption, ...]:
        captions = []
        for member in members:
            try:
                captions.append(caption_of(decode_text(self._index.read(member)).rstrip("\r\n")))
            except (ValueError, NoMemberError) as error:
                captions.append({**caption_of(None), "reason": f"caption_not_text: {member.name}: {error}"})
        return tuple(captions)

    def _skipped(self, name: str, reason: str, detail: str) -> Skipped:
        return Skipped(name, self._dataset, reason, detail)


def _image_of(images: list[Member]) -> Member | None:
    """The image that a sample is about: the only one, or the only one that is named by the key and a suffix alone."""
    plain = [member for member in images if "." not in member.suffix]
    return images[0] if len(images) == 1 else plain[0] if len(plain) == 1 else None


def _ending(member: Member) -> str:
    return member.suffix.rpartition(".")[2].lower()


def _captions(texts: tuple[Caption, ...], fields: dict[str, Any]) -> tuple[Caption, ...]:
    """The sample's captions, each once: img2dataset writes one into .txt and .json both. `captions` is a list that may mean its repeats."""
    listed = fields.get("captions", [])
    listed = [caption_of(text) for text in (listed if isinstance(listed, list) else [listed])]
    single: list[Caption] = []
    for caption in (*texts, *([caption_of(fields["caption"])] if "caption" in fields else [])):
        if _words(caption) not in map(_words, [*listed, *single]):
            single.append(caption)
    if any(caption["status"] == "ok" for caption in [*single, *listed]):
        # an empty .txt or a null beside a caption says that there is no second one
        single = [caption for caption in single if caption.get("reason") not in ("null_caption", "empty_caption")]
    return tuple(single + listed)


def _words(caption: Caption) -> str | None:
    text = caption["text"].strip() if caption["text"] is not None else ""
    return text or (None if caption.get("reason") in ("null_caption", "empty_caption") else caption.get("reason"))
