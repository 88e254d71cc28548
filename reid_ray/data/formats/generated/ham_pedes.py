"""HAM-PEDES (Jiang et al., CVPR 2025): two captions for each of a million images of SYNTH-PEDES, as {path: [captions]}.

Read leniently, for it is met in several shapes: an object or a list of records, captions as a list, an object or a text, paths that begin
with another machine's folders. What was found so is counted. The images are those of SYNTH-PEDES, Part1/ to Part11/; the file does not
say whose they are, so persons are null.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from reid_ray.data.containers.annotations import RepeatedKeys, first_character, stream_list, stream_pairs
from reid_ray.data.containers.json_captions import find_annotations, image_store
from reid_ray.data.containers.values import is_safe_name, shown, slashes
from reid_ray.data.formats.config import SourceConfig
from reid_ray.data.image_records import Caption, ImageRecord, Records, Skipped, caption_of
from reid_ray.storage.file_systems import Store

DATASET = "HAM-PEDES"
ANNOTATIONS = ("HAM_PEDES.json", "HAM-PEDES.json")
CAPTIONER = "ham"
_PATH_KEYS, _CAPTION_KEYS = ("file_path", "image_path", "img_path", "image"), ("captions", "caption")
_ELSEWHERE = re.compile(r".+/(Part\d+/[^/]+/[^/]+)")


def read_ham_pedes(store: Store, source: SourceConfig) -> Records:
    """One record per path; image_id is the path from Part1, Part2, ... on.

    Raises:
        DataError: there is no annotation file, or it is neither an object nor a list.
    """
    dataset = source.name or DATASET
    file = find_annotations(store, source.annotations, ANNOTATIONS, DATASET, or_any=True)
    images = image_store(store, source.images, "")
    for place, path, value, mended in _rows(store, file):
        captions, also = _captions(value)
        if not isinstance(path, str) or not path:
            yield Skipped(place, dataset, "bad_annotation", f"{place}: has no path", captions=captions)
            continue
        name = slashes(path)
        elsewhere = ("path_of_elsewhere",) if (own := of_the_set(name)) != name else ()
        name = own
        if not is_safe_name(name):
            yield Skipped(name, dataset, "unsafe_path", f"{place}: {shown(path)} should be a path as Part1/7/1.jpg", captions=captions)
        elif not captions:
            yield Skipped(name, dataset, "bad_annotation", f"{place}: has {shown(value)}, not captions")
        else:
            yield ImageRecord(name, dataset, images, name, captions=captions, mended=(*mended, *elsewhere, *also))


def of_the_set(name: str) -> str:
    """A path without another machine's folders: from Part1, Part2, ... on, where it has that."""
    match = _ELSEWHERE.fullmatch(name)
    return match[1] if match else name


def _rows(store: Store, file: str) -> Iterator[tuple[str, Any, Any, tuple[str, ...]]]:
    """(place in the file, path, what stands for its captions, codes of what is other than published)."""
    if first_character(store, file) != "[":
        for index, (name, value) in enumerate(stream_pairs(store, file)):
            yield f"entry {index}", name, value, ()
        return
    for index, entry in enumerate(stream_list(store, file)):
        place = f"record {index}"
        path: Any = None
        if not isinstance(entry, dict) or isinstance(entry, RepeatedKeys):
            yield place, path, entry, ()
        elif len(entry) == 1 and (key := next(iter(entry))) not in (*_PATH_KEYS, *_CAPTION_KEYS):
            yield place, key, entry[key], ("records_for_object",)
        else:
            path, value = (next((entry[key] for key in keys if key in entry), None) for keys in (_PATH_KEYS, _CAPTION_KEYS))
            yield place, path, value, ("records_for_object",)


def _captions(value: Any) -> tuple[tuple[Caption, ...], tuple[str, ...]]:
    texts = value
    mended: tuple[str, ...] = ()
    if isinstance(value, dict) and not isinstance(value, RepeatedKeys):
        texts, mended = list(value.values()), ("object_for_list",)
    elif isinstance(value, str):
        texts, mended = [value], ("text_for_list",)
    if not isinstance(texts, list):
        return (), ()
    return tuple(caption_of(text, kind="static", captioner=CAPTIONER) for text in texts), mended
