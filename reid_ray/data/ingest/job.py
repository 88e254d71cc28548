"""The job ingest: a data set in its published layout -> Parquet tables images/, captions/ and failures/, with a manifest.

One process, a pool of threads, bounded memory: the work is reading files, which a cluster would do no faster from one disk. Every
image read ends in exactly one of images/ and failures/; captions follow their image into captions/, or stand in failures/ beside
the reason why the image could not be used. What a reader set right is counted (facts.mended).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from reid_ray.data.failures import FAILURES, Failures
from reid_ray.data.fetch import Loaded, load_all
from reid_ray.data.formats.registry import Caption, ImageRecord, Records, Skipped, open_source, read_source
from reid_ray.data.image_records import skipped
from reid_ray.data.images import image_size, verify_image
from reid_ray.data.ingest.config import IngestJob
from reid_ray.data.ingest.identity_splits import drawn_splits, with_splits
from reid_ray.data.labels.doubted_captions import note_doubted
from reid_ray.data.labels.own_in_words import note_own, own_in_words
from reid_ray.errors import DataError
from reid_ray.own_columns import NOTHING_OWN, with_own
from reid_ray.progress import progress_bar
from reid_ray.records import CAPTIONS, IMAGES, table_of
from reid_ray.storage import Counts, JobOutput, TableWriter, read_manifest
from reid_ray.storage.file_systems import is_remote
from reid_ray.storage.output import in_words
from reid_ray.storage.regular_files import printable
from reid_ray.terminal.counted import counted
from reid_ray.terminal.own_lines import say

_BATCH_ROWS = 512
Size = tuple[int, int]


def run_ingest(config: IngestJob) -> dict[str, Any]:
    """Read config.source, write the tables to config.output and return the manifest.

    Raises:
        DataError: the source cannot be used at all: wrong layout, no image, or none that can be read.
    """
    source, output = config.source, config.output
    out = JobOutput("ingest", output.path, config, if_exists=output.if_exists, inputs={"source": source.path})
    if (earlier := out.kept()) is not None:
        return earlier
    check: Callable[..., Size] = verify_image if config.load.check == "decode" else image_size
    with out, progress_bar(f"ingest {source.format}", total=config.limit) as bar:
        opened = open_source(source)
        rows = load_all(
            admit(_records(config, opened)),
            partial(check, max_pixels=source.max_pixels),
            config.load,
            remote=is_remote(source.path),
            max_bytes=source.max_file_mb << 20,
        )
        with Tables(out.folder, with_bytes=config.images == "bytes", part_bytes=config.part_mb << 20, own=opened.own) as tables:
            for row in rows:
                tables.add(row)
                bar.update(1)
        tables.report(out)
        note_own(out, opened.own.names, opened.told)
        if out.facts["captions"]["read"]:
            note_doubted(out, [source.captions or source.path])
        if source.format == "msmt17":
            out.facts["val"] = f"list_val.txt holds images of training persons; they are in split {source.val_as} (source.val_as)"
        if not out.counts.written:
            raise DataError(
                f"{source.path}: no image can be used ({out.counts}); {tables.failed.commonest()}; mend that, "
                "or check source.format and source.path"
            )
    captions = in_words(**out.facts["captions"])
    failures = f"; the rows that are not used: {output.path}/failures" if out.counts.unused else ""
    mended = dict(out.facts.get("mended", {}))
    unknown = f"; camera unknown of {number}" if (number := mended.pop("camera_unknown", 0)) else ""
    right = f"; set right: {', '.join(f'{code} {count}' for code, count in mended.items())}" if mended else ""
    drawn = f"; {_splits_said(out.facts)}" if config.split_by_identity is not None else ""
    own = own_in_words(opened.own.names, opened.told)
    say(f"ingest: images: {out.counts}; captions: {captions}{right}{unknown}{drawn}{own} -> {output.path}{failures}")
    return read_manifest(output.path)


def _records(config: IngestJob, opened: Records) -> Records:
    """What `opened` gives, with splits drawn by identity where they are asked for: then it is read twice, its pictures once."""
    source, wanted = config.source, config.split_by_identity
    records = islice(opened, config.limit)
    if wanted is None:
        return records
    splits = drawn_splits(islice(read_source(source), config.limit), wanted, origin=source.path)
    return with_splits(records, splits, seed=wanted.seed)


def _splits_said(facts: Mapping[str, Any]) -> str:
    """Who is in which split, and who and what is in none; of the images that are written each is in one part."""
    splits = dict(facts["splits"])
    left = splits.pop("none", {"images": 0, "identities": 0})
    said = [f"{name} {_identities(each['identities'], each['images'])}" for name, each in splits.items()]
    said += [f"in no split {_identities(left['identities'], of_them)}"] if (of_them := left["images"] - facts["unlabelled"]) else []
    return ", ".join(said) + (
        f"; {counted(unlabelled, 'image')} of nobody known in no split" if (unlabelled := facts["unlabelled"]) else ""
    )


def _identities(number: int, images: int) -> str:
    return f"{counted(number, 'identity', 'identities')} ({counted(images, 'image')})"


def admit(records: Iterable[ImageRecord | Skipped]) -> Iterator[ImageRecord | Skipped]:
    """The records that fit the tables: a second one of an image_id (ids are keys later), or one with a number that the columns
    cannot hold, becomes Skipped as repeated_id or id_out_of_range.
    """
    seen: set[int] = set()
    for record in records:
        fits = _fits(record.person_id, 63) and _fits(record.camera_id, 31)
        if isinstance(record, Skipped):
            yield record if fits else replace(record, person_id=None, camera_id=None)
            continue
        # 8 bytes of a digest instead of the name: 4 million ids fit in 0.3 GB, and two of them collide once in a million data sets
        digest = int.from_bytes(hashlib.blake2b(printable(record.image_id).encode(), digest_size=8).digest(), "little")
        if digest in seen:
            known = record if fits else replace(record, person_id=None, camera_id=None)
            yield skipped(known, "repeated_id", "an earlier record has this image_id")
        elif not fits:
            detail = f"person_id {record.person_id} or camera_id {record.camera_id} is too large for its column"
            yield skipped(replace(record, person_id=None, camera_id=None), "id_out_of_range", detail)
        else:
            seen.add(digest)
            yield record


def _fits(number: int | None, bits: int) -> bool:
    return number is None or -(1 << bits) <= number < (1 << bits)


class Tables:
    """The three tables of an ingest, written as rows come; a context manager. Counts what it writes."""

    def __init__(self, folder: Path, *, with_bytes: bool, part_bytes: int, own: pa.Schema = NOTHING_OWN) -> None:
        self.images = 0
        self.failed = Failures()
        self.captions = 0
        self.captions_failed: Counter[str] = Counter()
        self.mended: Counter[str] = Counter()
        self._people: dict[str, set[int]] = {}
        self._split_images: Counter[str] = Counter()
        self._unlabelled = 0
        self._with_bytes, self._part_bytes = with_bytes, part_bytes
        self._image_rows: list[dict[str, Any]] = []
        self._bytes_in_part = self._bytes_in_batch = 0
        self._image_schema = with_own(IMAGES, own)
        self._image_table = TableWriter(folder / "images", self._image_schema)
        self._caption_table = _BatchedTable(folder / "captions", CAPTIONS)
        self._failure_table = _BatchedTable(folder / "failures", FAILURES)

    def __enter__(self) -> Tables:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._flush_batch()
            for table in (self._image_table, self._caption_table.finish(), self._failure_table.finish()):
                table.__exit__(None, None, None)

    def add(self, row: Loaded[Size] | Skipped) -> None:
        """Write one image with its captions, or one failure."""
        if isinstance(row, Skipped):
            self._add_failure(row)
        elif not self._with_bytes and row.record.path and row.record.path != printable(row.record.path):
            detail = "its name is no UTF-8, so the table cannot say where it lies; rename it, or set images to bytes"
            self._add_failure(skipped(row.record, "name_not_utf8", detail))
        else:
            self._add_image(row)

    def report(self, out: JobOutput) -> None:
        """Put the counts into a job's output. A failed caption is a failed row of captions/, or a text that lost its image; unlabelled are
        images of nobody known.
        """
        out.counts.read, out.counts.written = self.images + self.failed.counts.total(), self.images
        out.counts.unused.update(self.failed.counts)
        captions = Counts()
        captions.read, captions.written = self.captions + self.captions_failed.total(), self.captions
        captions.unused.update(self.captions_failed)
        out.facts["captions"] = captions.as_dict()
        if self.mended:
            out.facts["mended"] = dict(sorted(self.mended.items()))
        out.facts["unlabelled"] = self._unlabelled
        out.facts["splits"] = {
            split: {"images": count, "identities": len(self._people.get(split, ()))} for split, count in sorted(self._split_images.items())
        }

    def _add_image(self, row: Loaded[Size]) -> None:
        record = row.record
        if not self._with_bytes and record.path is None:
            raise DataError(f"{record.image_id}: images is path, but this image is no file of its own; set images to bytes")
        who = _who(record)
        self._image_rows.append(
            {
                "image_id": printable(record.image_id),
                "image": row.data if self._with_bytes else None,
                "path": printable(record.path) if record.path else None,
                "image_sha256": row.sha256,
                "width": row.found[0],
                "height": row.found[1],
                "attributes": record.attributes,
                **who,
                **record.own,
            }
        )
        self.images += 1
        self.mended.update(record.mended)
        self._split_images[record.split or "none"] += 1
        if record.person_id is None:
            self._unlabelled += 1
        else:
            self._people.setdefault(record.split or "none", set()).add(record.person_id)
        for position, caption in enumerate(record.captions):
            self._add_caption(caption, position, record, row.sha256, who)
        self._bytes_in_batch += len(row.data) if self._with_bytes else 0
        if len(self._image_rows) == _BATCH_ROWS or self._bytes_in_batch >= self._part_bytes // 4:
            self._flush_batch()

    def _add_caption(self, caption: Caption, position: int, record: ImageRecord, sha256: str, who: dict[str, Any]) -> None:
        own_id = caption.get("caption_id") or _caption_id(record.image_id, position, caption)
        text = None if caption["text"] is None else printable(caption["text"])
        keys = {"caption_id": own_id, "image_id": printable(record.image_id), "image_sha256": sha256}
        self._caption_table.append({**caption, "text": text, **keys, **who})
        if caption["status"] == "failed":
            self.captions_failed[str(caption["reason"]).partition(":")[0]] += 1
        else:
            self.captions += 1

    def _add_failure(self, row: Skipped) -> None:
        self.failed.add(row)
        if row.captions:
            self.captions_failed["image_failed"] += len(row.captions)
        texts = [None if caption["text"] is None else printable(caption["text"]) for caption in row.captions]
        self._failure_table.append(
            {
                "image_id": printable(row.image_id),
                "reason": row.reason,
                "detail": printable(row.detail),
                "path": printable(row.path) if row.path else None,
                "captions": texts or None,
                **_who(row),
            }
        )

    def _flush_batch(self) -> None:
        if not self._image_rows:
            return
        self._image_table.append(table_of(self._image_schema, self._image_rows))
        self._bytes_in_part += self._bytes_in_batch
        self._image_rows, self._bytes_in_batch = [], 0
        if self._bytes_in_part >= self._part_bytes:
            self._image_table.flush()
            self._bytes_in_part = 0


class _BatchedTable:
    """A TableWriter that takes single rows."""

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self._writer, self._schema = TableWriter(folder, schema), schema
        self._rows: list[dict[str, Any]] = []

    def append(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        if len(self._rows) == _BATCH_ROWS:
            self.finish()

    def finish(self) -> TableWriter:
        if self._rows:
            self._writer.append(table_of(self._schema, self._rows))
            self._rows = []
        return self._writer


def _who(record: ImageRecord | Skipped) -> dict[str, Any]:
    split = printable(record.split) if record.split is not None else None
    who = {"dataset": printable(record.dataset), "split": split, "person_id": record.person_id, "camera_id": record.camera_id}
    return who | ({"synthetic": record.synthetic} if isinstance(record, ImageRecord) else {})


def _caption_id(image_id: str, position: int, caption: Caption) -> str:
    """Of a caption that comes from a data set: its image, where it comes from, and its place among the image's captions."""
    parts = (image_id, str(caption.get("instruction_id")), str(position))
    return hashlib.sha256(printable("\0".join(parts)).encode()).hexdigest()[:32]
