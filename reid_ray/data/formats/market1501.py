"""Market-1501 (Zheng et al. 2015) and DukeMTMC-reID (Zheng et al. 2017): bounding_box_train/, query/, bounding_box_test/.

Names are 0002_c1s1_000451_03.jpg (person, camera, sequence, frame, box) in Market, 0002_c1_f0044158.jpg in Duke. Person -1 is junk (a
bad detection that the protocol ignores): skipped and counted. Person 0 is a distractor: it stays in the gallery as person 0.
A name that begins with the person and names no camera in any way keeps its row; its camera is unknown, and counted. Market's gt_bbox/ and
gt_query/ serve another protocol and are not read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from reid_ray.data.formats.config import SourceConfig
from reid_ray.data.image_records import ImageRecord, Records, Skipped
from reid_ray.data.images import is_image_name
from reid_ray.errors import DataError
from reid_ray.storage.file_systems import Store

FOLDERS = {"bounding_box_train": "train", "query": "query", "bounding_box_test": "gallery"}
_JUNK = -1
_PERSON_ALONE = re.compile(r"^(?P<person>-1|\d{1,9})_(?!.*c\d)[^/]*$")


@dataclass(frozen=True)
class MarketLayout:
    """How one data set of Market's three folders names its images."""

    dataset: str
    name: re.Pattern[str]  # groups person and camera
    cameras: int  # numbered from 1


MARKET = MarketLayout("Market-1501", re.compile(r"^(?P<person>-1|\d+)_c(?P<camera>\d+)s\d+_\d+_\d+\.jpg(?:\.jpg)?$"), 6)
DUKE = MarketLayout("DukeMTMC-reID", re.compile(r"^(?P<person>-1|\d+)_c(?P<camera>\d+)_f\d+\.jpg$"), 8)


def read_market1501(store: Store, source: SourceConfig) -> Records:
    """One record per image of Market-1501, cameras 1 to 6; image_id is folder/name."""
    inner = _inner(store, "Market-1501-v15.09.15")
    yield from read_market_layout(inner, replace(MARKET, dataset=source.name or MARKET.dataset))


def read_dukemtmc(store: Store, source: SourceConfig) -> Records:
    """One record per image of DukeMTMC-reID, cameras 1 to 8; image_id is folder/name."""
    inner = _inner(store, "DukeMTMC-reID")
    yield from read_market_layout(inner, replace(DUKE, dataset=source.name or DUKE.dataset))


def read_market_layout(store: Store, layout: MarketLayout) -> Records:
    """One record per image of the three folders.

    Raises:
        DataError: one of the folders is missing.
    """
    missing = [folder for folder in FOLDERS if not store.is_folder(folder)]
    if missing:
        raise DataError(f"{store}: lacks {', '.join(missing)}; {layout.dataset} has the folders {', '.join(FOLDERS)} (source.path)")
    for folder, split in FOLDERS.items():
        for file in store.list_folder(folder)[1]:
            yield _record(store, f"{folder}/{file}", split, layout)


def person_alone(path: str) -> int | None:
    """The person that a file's name begins with, if it names no camera, as in 0002_extra_17.jpg; else None."""
    match = _PERSON_ALONE.match(path.rpartition("/")[2])
    return int(match["person"]) if match else None


def _record(store: Store, path: str, split: str, layout: MarketLayout) -> ImageRecord | Skipped:
    dataset, located = layout.dataset, store.locate(path)
    match = layout.name.match(path.rpartition("/")[2])
    alone = person_alone(path) if match is None and is_image_name(path) else None
    if alone is not None and alone != _JUNK:
        return ImageRecord(path, dataset, store, path, split=split, person_id=alone, mended=("camera_unknown",))
    if match is None:
        reason = "unexpected_name" if is_image_name(path) else "no_image_file"
        return Skipped(path, dataset, reason, f"is not named as {dataset} names its images", split, path=located)
    person, camera = int(match["person"]), int(match["camera"])
    if person == _JUNK:
        return Skipped(path, dataset, "junk", "person -1: the protocol ignores these boxes", split, None, camera, located)
    if not 1 <= camera <= layout.cameras:
        detail = f"camera {camera}, but {dataset} has cameras 1 to {layout.cameras}"
        return Skipped(path, dataset, "unknown_camera", detail, split, person, camera, located)
    return ImageRecord(path, dataset, store, path, split=split, person_id=person, camera_id=camera)


def _inner(store: Store, folder: str) -> Store:
    """The archive unpacks into a folder of its own: take either."""
    return store.child(folder) if store.is_folder(folder) and not store.is_folder("bounding_box_train") else store
