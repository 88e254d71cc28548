"""ICFG-PEDES (Ding et al. 2021): ICFG-PEDES.json (also met as ICFG_PEDES.json) and imgs/{train, test}/<person>/.

Entries are {split, captions, file_path, processed_tokens, id} with one caption an image. There is no val split. The folders
imgs/train and imgs/test are those of MSMT17, where the images come from, and are NOT this data set's split: only the key split is.
"""

from __future__ import annotations

from reid_ray.data.containers.json_captions import JsonLayout, find_annotations, read_json_captions
from reid_ray.data.formats.config import SourceConfig
from reid_ray.data.formats.msmt17 import camera_of_name
from reid_ray.data.image_records import Records
from reid_ray.storage.file_systems import Store

DATASET = "ICFG-PEDES"
ANNOTATIONS = ("ICFG-PEDES.json", "ICFG_PEDES.json")


def read_icfg_pedes(store: Store, source: SourceConfig) -> Records:
    """One record per image; image_id is file_path; the camera is MSMT17's, third field of the file name."""
    file = find_annotations(store, source.annotations, ANNOTATIONS, DATASET)
    yield from read_json_captions(store, file, JsonLayout(source.name or DATASET, "file_path", camera_of_name))
