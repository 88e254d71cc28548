"""Any folder of image files, at any depth: identities from a pattern in the path, or each image its own, or unknown.

A path that the pattern does not match is skipped and counted: a pattern that misses files is usually wrong. Files without an image
suffix are counted too.
"""

from __future__ import annotations

import re

from reid_ray.data.containers.values import split_name, whole
from reid_ray.data.formats.config import SourceConfig
from reid_ray.data.image_records import ImageRecord, Records, Skipped
from reid_ray.data.images import is_image_name
from reid_ray.storage.file_systems import Store
from reid_ray.storage.object_store.pointer import place_name


def read_folder(store: Store, source: SourceConfig) -> Records:
    """One record per file in sorted order, folder by folder; image_id is the path relative to the folder."""
    dataset = source.name or place_name(store.root)
    pattern = re.compile(source.pattern) if source.pattern else None
    number = 0
    for path in store.walk():
        located = store.locate(path)
        if not is_image_name(path):
            yield Skipped(path, dataset, "no_image_file", "its suffix is none of an image", path=located)
            continue
        groups: dict[str, str | None] = {}
        if pattern is not None:
            match = pattern.search(path)
            if match is None:
                yield Skipped(path, dataset, "pattern_does_not_match", f"source.pattern is {source.pattern}", path=located)
                continue
            groups = match.groupdict()
        try:
            person_id = number if source.each_its_own else whole(groups.get("person_id"), "person_id")
            camera_id = whole(groups.get("camera_id"), "camera_id")
        except ValueError as error:
            yield Skipped(path, dataset, "pattern_does_not_match", str(error), path=located)
            continue
        number += 1
        yield ImageRecord(path, dataset, store, path, split=split_name(groups.get("split")), person_id=person_id, camera_id=camera_id)
