"""RSTPReid (Zhu et al. 2021): data_captions.json and a flat imgs/ with names such as 0000_c14_0031.jpg.

Entries are {id, img_path, captions, split} with two captions; the key is img_path, not file_path; the camera (of 15) is in the name.
"""

from __future__ import annotations

import re
from functools import partial

from reid_ray.data.containers.json_captions import JsonLayout, find_annotations, read_json_captions
from reid_ray.data.containers.values import camera_in_name
from reid_ray.data.formats.config import SourceConfig
from reid_ray.data.image_records import Records
from reid_ray.storage.file_systems import Store

DATASET = "RSTPReid"
ANNOTATIONS = "data_captions.json"
NAME = re.compile(r"^(?P<person>\d+)_c(?P<camera>\d{1,9})_(?P<index>\d+)\.\w+$")


def read_rstpreid(store: Store, source: SourceConfig) -> Records:
    """One record per image with its captions; image_id is img_path. A name of another kind keeps its row, without a camera."""
    file = find_annotations(store, source.annotations, (ANNOTATIONS,), DATASET)
    yield from read_json_captions(store, file, JsonLayout(source.name or DATASET, "img_path", partial(camera_in_name, name=NAME)))
