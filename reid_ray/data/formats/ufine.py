"""UFineBench (Zuo et al., CVPR 2024): UFine6926 (train and test) and UFine3C (test alone), a JSON list and images/.

UFine6926's entries are {split, id, file_path, captions} with two long captions an image, 80.8 words on average; UFine3C's say from which
data set an image comes (source), have any number of captions, and some copies lack split: all of it is test. Long captions: most are
cut at CLIP's 77 tokens (lint counts them; model.text_length reads more).
"""

from __future__ import annotations

import json

from reid_ray.data.containers.json_captions import Entry, JsonLayout, find_annotations, read_json_captions
from reid_ray.data.formats.config import SourceConfig
from reid_ray.data.image_records import Records
from reid_ray.storage.file_systems import Store

IMAGES = "images"
UFINE6926, UFINE3C = "UFine6926", "UFine3C"
ANNOTATIONS = "{}_Annotations.json"


def read_ufine6926(store: Store, source: SourceConfig) -> Records:
    """One record per image; image_id is file_path. The annotation file may have any name if it is the only *.json."""
    layout = JsonLayout(source.name or UFINE6926, "file_path", images="")
    yield from read_json_captions(store, _file(store, source, UFINE6926), layout)


def read_ufine3c(store: Store, source: SourceConfig) -> Records:
    """One record per image; image_id is file_path; attributes are {"source": data set that the image comes from}."""
    layout = JsonLayout(source.name or UFINE3C, "file_path", images="", attributes=_source, unsplit=True, only_split="test")
    yield from read_json_captions(store, _file(store, source, UFINE3C), layout)


def _file(store: Store, source: SourceConfig, dataset: str) -> str:
    return find_annotations(store, source.annotations, (ANNOTATIONS.format(dataset),), dataset, or_any=True)


def _source(entry: Entry) -> str | None:
    return json.dumps({"source": entry["source"]}) if isinstance(entry.get("source"), str) else None
