"""References out of a folder of clothes and accessories: pictures with transparency, or with masks beside them.

Knows the folder's layout, a subfolder for each slot; how a thing is cut out is cut_out.py's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from reid_ray.data.bit_masks import decode_mask
from reid_ray.data.config import LoadConfig
from reid_ray.data.fetch import Loaded, load_all
from reid_ray.data.image_records import ImageRecord, Skipped
from reid_ray.data.images import BadImageError, decode_image, decode_with_alpha, is_image_name
from reid_ray.edit.bank.config import ReferenceFolderConfig, ReferencesJob
from reid_ray.edit.bank.cut_out import cut_out
from reid_ray.errors import ConfigError, DataError
from reid_ray.storage.file_systems import Store, open_store
from reid_ray.storage.regular_files import printable

Row = dict[str, Any]
_MAX_BYTES = 64 << 20  # of a picture
_LOAD = LoadConfig(processes=0)


def cut_folder(
    name: str, folder: ReferenceFolderConfig, config: ReferencesJob, held_out: frozenset[str]
) -> Iterator[tuple[Row, np.ndarray | None]]:
    """(a row without its id and picture, the thing) of each picture of a folder; of one that gives none (its whole row, None).

    Raises:
        DataError: the folder, or that of its masks, cannot be listed, or has no subfolder of a slot.
        ConfigError: values are given for a file that is not there.
    """
    store = open_store(str(folder.path))
    masks = None if folder.masks is None else open_store(str(folder.masks))
    files = [each for each in store.walk() if is_image_name(each) and each.partition("/")[0] in config.slots]
    if not files:
        raise DataError(f"folders.{name}.path: {store} has no picture in a subfolder named {', '.join(config.slots)}; sort them into such")
    if missing := sorted(set(folder.values) - set(files)):
        raise ConfigError(f"folders.{name}.values: {missing[0]} is no picture of {store}; name one as it lies below it")
    records = (ImageRecord(printable(each), name, store, each) for each in files)
    inspect = partial(_pixels, max_pixels=config.max_pixels)
    for loaded in load_all(records, inspect, _LOAD, remote=not store.is_local, max_bytes=_MAX_BYTES):
        image_id = loaded.image_id if isinstance(loaded, Skipped) else loaded.record.image_id
        row: Row = {"slot": image_id.partition("/")[0], "source_image_id": image_id, "source": name, "dataset": name}
        if isinstance(loaded, Skipped):
            yield _failed(row, f"{loaded.reason}: {loaded.detail}"), None
            continue
        row |= {"image_sha256": loaded.sha256, "values": folder.values.get(str(loaded.record.name), {})}
        if loaded.sha256 in held_out:
            yield {**_failed(row, "other_split: the same picture is in a split that scores"), "status": "refused"}, None
            continue
        try:
            picture_HW3, mask_HW = loaded.found[..., :3], _mask(loaded, masks)
            thing = cut_out(picture_HW3, mask_HW, min_side=config.min_side, max_side=config.max_side)
        except BadImageError as error:
            yield _failed(row, str(error)), None
            continue
        yield row, thing


def _pixels(data: bytes, *, max_pixels: int) -> np.ndarray:
    """uint8 [H, W, 4] of a picture with transparency, [H, W, 3] of another."""
    layered = decode_with_alpha(data, max_pixels=max_pixels)
    return np.asarray(decode_image(data, max_pixels=max_pixels) if layered is None else layered)


def _mask(loaded: Loaded[np.ndarray], masks: Store | None) -> np.ndarray:
    if masks is None:
        if loaded.found.shape[-1] == 3:
            raise BadImageError("no_mask", "the picture has no transparency, and folders has no masks")
        return np.asarray(loaded.found[..., 3] > 127)
    name = str(PurePosixPath(str(loaded.record.name)).with_suffix(".png"))
    try:
        data = masks.read_bytes(name, limit=_MAX_BYTES)
    except FileNotFoundError:
        raise BadImageError("no_mask", "there is no mask of this name") from None
    except OSError as error:
        raise BadImageError("mask_unreadable", str(error)) from None
    return decode_mask(data, width=loaded.found.shape[1], height=loaded.found.shape[0])


def _failed(row: Row, why: str) -> Row:
    digest = hashlib.sha256(f"{row['source']} {row['source_image_id']}".encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return {**row, "values": None, "reference_id": digest, "status": "failed", "reason": why}
