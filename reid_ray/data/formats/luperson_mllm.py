"""LUPerson-MLLM (Tan et al. 2024): a million LUPerson crops with four captions each, in four JSON files {image name: caption}.

Ts-qwen, Td-qwen, Ts-shikra, Td-shikra: s for the static instruction, d for the dynamic one, then the captioner. A name may carry
folders, of which only the last part counts. The images lie flat in LUPerson-MLLM/ or in LUPerson's own LMDB (key = name without
suffix). A dynamic caption that still holds a slot of its template is kept as a failed row. `CaptionFiles` writes the same four files, and
further ones for captioners that the release did not have.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

from reid_ray.data.containers.annotations import stream_pairs
from reid_ray.data.containers.caption_store import CaptionStore
from reid_ray.data.containers.json_captions import image_store
from reid_ray.data.containers.values import slashes
from reid_ray.data.formats.config import SourceConfig
from reid_ray.data.formats.luperson import lmdb_folder, open_lmdb
from reid_ray.data.image_records import Caption, ImageRecord, Records, Skipped, caption_of
from reid_ray.data.images import is_image_name
from reid_ray.errors import DataError
from reid_ray.storage.file_systems import Store

DATASET = "LUPerson-MLLM"
IMAGES = "LUPerson-MLLM"
CAPTIONERS = {"qwen": "Qwen-VL-Chat-7B", "shikra": "Shikra-7B"}
KINDS = {"s": "static", "d": "dynamic"}
_NAME_CHARACTERS, _MAX_FILES = 100, 128  # of a captioner's name in a file's; caption files of one data set
_LEFT_OVER = ("description]", "<")  # of a template
_FILE = re.compile(r"^T(?P<kind>[sd])-(?P<captioner>[\w.-]+)\.json$")


def read_luperson_mllm(store: Store, source: SourceConfig) -> Records:
    """One record per image with the captions of every T{s,d}-*.json at hand; image_id is the image's file name.

    Raises:
        DataError: there is no such file, or one is no JSON object of texts.
    """
    dataset = source.name or DATASET
    folder = next((f for f in (store, store.child("caption"), store.child("captions")) if f.is_folder() and _caption_files(f)), None)
    if folder is None:
        raise DataError(f"{store}: holds none of Ts-qwen.json, Td-qwen.json, Ts-shikra.json, Td-shikra.json (source.path)")
    with CaptionStore() as captions:
        for file in _caption_files(folder):
            captions.add_all(_captions(folder, file))
        images = image_store(store, source.images, IMAGES)
        database = lmdb_folder(images)
        yield from _of_lmdb(database, captions, dataset, source.max_file_mb << 20) if database else _of_folder(images, captions, dataset)


def file_name(kind: str, *, captioner: str | None, model: str | None) -> str:
    """The JSON file of a caption: Ts-qwen.json for a static caption by captioner qwen, or, where only the model is known, by its name."""
    letter = {word: letter for letter, word in KINDS.items()}[kind]
    name = captioner or {name: short for short, name in CAPTIONERS.items()}.get(model or "") or model or "unknown"
    return f"T{letter}-{re.sub(r'[^A-Za-z0-9._]+', '-', name).strip('-').lower()[:_NAME_CHARACTERS] or 'unknown'}.json"


class CaptionFiles:
    """Writes {image name: caption} objects into one file per kind and captioner, streaming; a context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, BinaryIO] = {}
        self._owners: dict[str, tuple[str | None, str | None]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> CaptionFiles:
        return self

    def name_of(self, kind: str, *, captioner: str | None, model: str | None) -> str:
        """file_name, with a digest where it is the name of another captioner's file already."""
        name, who = file_name(kind, captioner=captioner, model=model), (captioner, None if captioner else model)
        if self._owners.setdefault(name, who) == who:
            return name
        digest = blake2b(repr(who).encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
        return f"{name.removesuffix('.json')}-{digest}.json"

    def has_room_for(self, name: str) -> bool:
        """Whether the file `name` is open or may be: a table with a captioner of its own in every row would exhaust the open files."""
        return name in self._files or len(self._files) < _MAX_FILES

    def write(self, name: str, image_name: str, text: str) -> None:
        """Add one caption to the file `name` (see file_name); the caller sees to it that an image has at most one per file."""
        first = name not in self._files
        if first:
            self._files[name] = self._stack.enter_context((self._folder / name).open("wb"))
        pair = f"{json.dumps(image_name, ensure_ascii=False)}: {json.dumps(text, ensure_ascii=False)}"
        self._files[name].write(("{" if first else ", ").encode() + pair.encode())

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.write(b"}")
        self._stack.close()


def _caption_files(folder: Store) -> list[str]:
    return [name for name in folder.list_folder()[1] if _FILE.match(name)]


def _captions(folder: Store, file: str) -> Iterator[tuple[str, Caption]]:
    match = _FILE.match(file)
    assert match is not None  # _caption_files made it pass
    columns = {
        "kind": KINDS[match["kind"]],
        "captioner": match["captioner"],
        "model": CAPTIONERS.get(match["captioner"], match["captioner"]),
        "instruction_id": file.removesuffix(".json"),
    }
    for name, text in stream_pairs(folder, file):
        yield slashes(name).rpartition("/")[2], _unless_left_over(caption_of(text, **columns))


def _unless_left_over(caption: Caption) -> Caption:
    """A dynamic caption in which something of its template is left is a failed one, as in the authors' code."""
    left = next((mark for mark in _LEFT_OVER if caption["status"] == "ok" and mark in caption["text"]), None)
    if left is None or caption["kind"] != "dynamic":
        return caption
    return {**caption, "status": "failed", "reason": f"left_over_slot: holds {left}"}


def _once(captions: tuple[Caption, ...]) -> tuple[Caption, ...]:
    """An image's captions, one of each file: where a file says a name twice, the same caption is one, and different ones are nobody's."""
    by_file: dict[str, list[Caption]] = {}
    for caption in captions:
        same = by_file.setdefault(caption["instruction_id"], [])
        if caption not in same:
            same.append(caption)
    reason = "repeated_name: the file has another caption under this name"
    failed = {"status": "failed", "reason": reason}
    return tuple({**caption, **(failed if len(same) > 1 else {})} for same in by_file.values() for caption in same)


def _of_folder(images: Store, captions: CaptionStore, dataset: str) -> Records:
    for name in images.list_folder()[1]:
        if is_image_name(name):
            yield ImageRecord(name, dataset, images, name, captions=_once(captions.take(name)))
        else:
            yield Skipped(name, dataset, "no_image_file", "its suffix is none of an image", path=images.locate(name))
    for name, waiting in captions.orphans():
        yield Skipped(name, dataset, "missing", "has captions but no image file", path=images.locate(name), captions=waiting)


def _of_lmdb(folder: Store, captions: CaptionStore, dataset: str, max_bytes: int) -> Records:
    """The captioned quarter of LUPerson only: the other crops of its LMDB are no part of this data set."""
    with open_lmdb(folder, max_bytes) as database:
        for name in captions.images():
            entry = database.get((name.rpartition(".")[0] if "." in name else name).encode("utf-8", "surrogatepass"))
            waiting = _once(captions.take(name))
            if entry is None:
                yield Skipped(name, dataset, "missing", "has captions but no entry in the LMDB", captions=waiting)
            elif entry.value is None:
                detail = f"its place in the LMDB cannot be read: {entry.problem}"
                yield Skipped(name, dataset, "damaged_entry", detail, path=folder.locate("data.mdb"), captions=waiting)
            else:
                yield ImageRecord(name, dataset, data=entry.value, captions=waiting)
