"""The layouts of composed retrieval that the job export writes: ITCPR, SynCPR. A query is an image and a text that asks with it.

Such a text is kept as a failed row of its image (data/image_records.py), and its reason says what it asks for; a caption that describes the
image itself is none. Knows rows and files; not where rows come from.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, BinaryIO

from reid_ray.data.export.file_naming import Names
from reid_ray.data.export.json_layouts import attribute
from reid_ray.data.export.writer import CannotExpressError, Writer, suffix_of
from reid_ray.data.formats.composed import itcpr, syncpr
from reid_ray.data.image_records import Caption, ImageRecord, asked_for, is_composed
from reid_ray.data.images import is_image_name
from reid_ray.scratch import scratch_table

_FOLDER = "images"  # of what has no folder of its own


class ItcprWriter(Writer):
    """ITCPR: query.json, an entry for each text that asks, and gallery.json. A file that is in both stands on disk once."""

    composed = True

    def __enter__(self) -> ItcprWriter:
        self._files: dict[str, BinaryIO] = {split: (self.folder / file).open("wb") for split, file in itcpr.FILES.items()}
        self._entries = dict.fromkeys(self._files, 0)
        self._contents: dict[str, bytes] = {}  # path -> digest; some 23,000 images
        self._others = Names(flat=True)
        for file in self._files.values():
            file.write(b"[")
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.write(b"]")
            file.close()
        super().__exit__()

    def add(self, record: ImageRecord, data: bytes, captions: Sequence[Caption]) -> None:
        """Write the image and its entries; a caption that asks for nothing has no place."""
        split = record.split
        if split not in self._files:
            raise CannotExpressError("split_not_in_layout")
        asked = [caption for caption in captions if is_composed(caption) and split == "query"]
        if split == "query" and not asked:
            raise CannotExpressError("no_caption")
        self.left_out["no_place_in_layout"] += len(captions) - len(asked)
        instance, person = attribute(record, "instance_id"), record.person_id
        who = {
            "file_path": self._path(record, data),
            "datasets": attribute(record, "datasets") if record.dataset == itcpr.DATASET else record.dataset,
            "person_id": itcpr.DISTRACTOR if person is None else person,
        }
        entries: list[Caption | None] = [*asked] or [None]
        for caption in entries:
            own = instance if caption is None else itcpr.instance_in(asked_for(caption), otherwise=instance)
            text = {} if caption is None else {"caption": caption["text"]}
            entry = json.dumps({**who, "instance_id": itcpr.DISTRACTOR if own is None else own, **text})
            self._files[split].write((", " if self._entries[split] else "").encode() + entry.encode())
            self._entries[split] += 1
        self.captions += len(asked)

    def _path(self, record: ImageRecord, data: bytes) -> str:
        """Where the image lies: its id behind the split, if that is a path in a folder; written unless it is there."""
        own, digest = record.image_id.removeprefix(f"{record.split}/"), blake2b(data, digest_size=16).digest()
        if self._contents.get(own) == digest:
            return own
        direct = "/" in own and not own.lower().startswith(f"{_FOLDER}/") and is_image_name(own) and self.names.take(own)
        path = own if direct else f"{_FOLDER}/{self._others.name_of(record.image_id, suffix_of(data))}"
        self.write_image(path, data, name=f"{record.split}/{path}", image_id=record.image_id)
        self._contents[path] = digest
        return path


class SyncprWriter(Writer):
    """SynCPR: one JSON list of triplets, put together when all images are known; a table on disk, bounded memory."""

    composed = True

    def __enter__(self) -> SyncprWriter:
        self._sql = scratch_table()
        self._sql.execute("CREATE TABLE image (id TEXT PRIMARY KEY, path TEXT, caption TEXT) WITHOUT ROWID")
        self._sql.execute("CREATE TABLE asks (reference TEXT, target TEXT, cpr_id TEXT, edit TEXT)")
        return self

    def __exit__(self, *_: object) -> None:
        self._sql.close()
        super().__exit__()

    def add(self, record: ImageRecord, data: bytes, captions: Sequence[Caption]) -> None:
        """Write the image, and note its caption and what is asked with it."""
        asked = [caption for caption in captions if is_composed(caption)]
        own = [caption for caption in captions if not is_composed(caption)]
        if not asked and attribute(record, "role") != "target":
            raise CannotExpressError("in_no_triplet")
        path = self.names.name_of(record.image_id, suffix_of(data))
        self.write_image(path, data, name=path, image_id=record.image_id)
        # as JSON: SQLite takes neither NUL nor half of a surrogate pair in a text
        text = own[0]["text"] if own else None
        self._sql.execute("INSERT OR IGNORE INTO image VALUES (?, ?, ?)", tuple(map(json.dumps, (record.image_id, path, text))))
        for caption in asked:
            target, cpr_id = syncpr.target_in(asked_for(caption))
            row = (record.image_id, target, cpr_id, caption["text"])
            self._sql.execute("INSERT INTO asks VALUES (?, ?, ?, ?)", tuple(map(json.dumps, row)))
        self.left_out["second_caption"] += max(0, len(own) - 1)

    def finish(self) -> None:
        """Write the list."""
        with (self.folder / syncpr.ANNOTATIONS).open("wb") as file:
            file.write(b"[")
            for number, row in enumerate(self._sql.execute(_TRIPLETS)):
                reference, target, caption, wanted, cpr_id, edit = (json.loads(value) for value in row)
                entry: dict[str, Any] = {
                    "reference_image_path": reference,
                    "target_image_path": target,
                    "reference_caption": caption,
                    "target_caption": wanted,
                    "edit_caption": edit,
                    "cpr_id": cpr_id,
                }
                file.write((", " if number else "").encode() + json.dumps(entry).encode())
                self.captions += 1
            file.write(b"]")
        told = self._sql.execute(_CAPTIONS_IN_TRIPLETS).fetchone()[0]
        self.captions += told
        self.left_out["in_no_triplet"] += self._sql.execute("SELECT count(*) FROM image WHERE caption != 'null'").fetchone()[0] - told
        self.left_out["in_no_triplet"] += self._sql.execute("SELECT count(*) FROM asks").fetchone()[0] - (self.captions - told)


_TRIPLETS = """SELECT reference.path, target.path, reference.caption, target.caption, cpr_id, edit FROM asks
JOIN image AS reference ON reference.id = asks.reference JOIN image AS target ON target.id = asks.target ORDER BY asks.rowid"""
_CAPTIONS_IN_TRIPLETS = """SELECT count(*) FROM image WHERE caption != 'null' AND id IN
(SELECT reference FROM asks JOIN image ON image.id = target UNION SELECT target FROM asks JOIN image ON image.id = reference)"""
