"""WebPerson, 1M and 5M (Zheng et al., EMNLP 2025): images/ and one JSON list of one-key objects {path: {caption1, caption2}}.

The list is 100w.json in the set of one million; another name is found too where it is the only *.json. Nobody is labelled and nothing is
split: person and split stay null, and training says by images.identity whether an image's captions are one person's (the authors' loader
takes each caption for a person of its own). Captions spell line breaks as /n, which becomes a space here and is counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from reid_ray.data.containers.annotations import RepeatedKeys, stream_list
from reid_ray.data.containers.json_captions import find_annotations, image_prefix
from reid_ray.data.containers.values import is_safe_name, shown, slashes, without_spelled_breaks
from reid_ray.data.formats.config import SourceConfig
from reid_ray.data.image_records import Caption, ImageRecord, Records, Skipped, caption_of
from reid_ray.errors import DataError
from reid_ray.storage.file_systems import Store

DATASET = "WebPerson"
ANNOTATIONS = "100w.json"
IMAGES = "images"
CAPTIONER = "webperson"
_CAPTION = re.compile(r"caption(\d{1,9})")


def read_webperson(store: Store, source: SourceConfig) -> Records:
    """One record per image with its captions; image_id is the path below images/.

    Raises:
        DataError: there is no annotation file, or it is no list of such objects (judged by the first).
    """
    dataset = source.name or DATASET
    file = find_annotations(store, source.annotations, (ANNOTATIONS,), DATASET, or_any=True)
    prefix = image_prefix(store, IMAGES)
    for index, entry in enumerate(stream_list(store, file)):
        if index == 0 and not (isinstance(entry, dict) and len(entry) == 1 and isinstance(next(iter(entry.values())), dict)):
            raise DataError(
                f"{store}/{file}: its first item is no object {{path: {{caption1, caption2}}}}, so this is no list of {DATASET}"
            )
        yield from _records(store, entry, f"record {index}", dataset, prefix)


def _records(store: Store, entry: Any, place: str, dataset: str, prefix: str) -> Iterator[ImageRecord | Skipped]:
    if not isinstance(entry, dict) or not entry or isinstance(entry, RepeatedKeys):
        yield Skipped(place, dataset, "bad_annotation", f"{place} is {shown(entry)}, not an object of one path")
        return
    for path, value in entry.items():
        name = slashes(path).removeprefix(prefix)
        captions, mended = _captions(value)
        if not isinstance(value, dict) or isinstance(value, RepeatedKeys):
            yield Skipped(name, dataset, "bad_annotation", f"{place}: has no object of captions", captions=captions)
        elif not is_safe_name(name):
            detail = f"{place}: {shown(path)} should be a path below {IMAGES}/"
            yield Skipped(name, dataset, "unsafe_path", detail, captions=captions)
        else:
            yield ImageRecord(name, dataset, store, f"{IMAGES}/{name}", captions=captions, mended=mended)


def _captions(value: Any) -> tuple[tuple[Caption, ...], tuple[str, ...]]:
    """The rows of caption1, caption2, ..., and what was mended in them."""
    numbered = [(int(match[1]), key) for key in value if (match := _CAPTION.fullmatch(key))] if isinstance(value, dict) else []
    rows, mended = [], False
    for _, key in sorted(numbered):
        text = value[key]
        plain = without_spelled_breaks(text) if isinstance(text, str) else text
        mended = mended or plain != text
        rows.append(caption_of(plain, kind="static", captioner=CAPTIONER, instruction_id=key))
    return tuple(rows), ("line_break_spelled",) if mended else ()
