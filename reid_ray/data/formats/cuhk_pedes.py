"""CUHK-PEDES (Li et al. 2017): reid_raw.json and imgs/{cam_a, cam_b, CUHK01, CUHK03, Market, test_query, train_query}/.

Entries are {split, captions, file_path, processed_tokens, id}. Most images have two captions, a few have more: all are read.
The images come from several data sets, so no camera is known. caption_all.json holds the same records without split: refused.
"""

from __future__ import annotations

from reid_ray.data.containers.json_captions import JsonLayout, find_annotations, read_json_captions
from reid_ray.data.formats.config import SourceConfig
from reid_ray.data.image_records import Records
from reid_ray.errors import DataError
from reid_ray.storage.file_systems import Store

DATASET = "CUHK-PEDES"
ANNOTATIONS = "reid_raw.json"


def read_cuhk_pedes(store: Store, source: SourceConfig) -> Records:
    """One record per image with all its captions; image_id is file_path.

    Raises:
        DataError: reid_raw.json is not there, or lacks the split.
    """
    if source.annotations is None and not store.is_file(ANNOTATIONS) and store.is_file("caption_all.json"):
        raise DataError(
            f"{store}: holds caption_all.json but not {ANNOTATIONS}; caption_all.json has the same captions without the split into "
            f"train, val and test, so it cannot be used: ask the authors for {ANNOTATIONS}"
        )
    file = find_annotations(store, source.annotations, (ANNOTATIONS,), DATASET)
    yield from read_json_captions(store, file, JsonLayout(source.name or DATASET, "file_path"))
