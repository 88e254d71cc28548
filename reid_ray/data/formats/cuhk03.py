"""CUHK03 (Li et al. 2014) in the new protocol of Zhong et al. 2017: 767 identities to train, 700 to test; boxes detected or labeled.

Three layouts are read, whichever is there:
  cuhk03-np/{detected,labeled}/{bounding_box_train,query,bounding_box_test}/0001_c1_1.png    the export in Market's layout
  images_{detected,labeled}/1_001_1_01.png + cuhk03_new_protocol_config_{detected,labeled}.mat    extracted images and the protocol
  cuhk03_release/cuhk-03.mat + cuhk03_new_protocol_config_{detected,labeled}.mat    the release (HDF5) and the protocol
In the last one the pictures are arrays; they become PNG files here, losslessly. The release's own 20 splits of 100 test persons are
another protocol and are not read.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

from reid_ray.data.containers.mat5 import read_mat5
from reid_ray.data.containers.values import shown, whole
from reid_ray.data.formats.config import SourceConfig
from reid_ray.data.formats.market1501 import FOLDERS, MarketLayout, read_market_layout
from reid_ray.data.image_records import ImageRecord, Records, Skipped, skipped
from reid_ray.errors import DataError
from reid_ray.storage.file_systems import Store
from reid_ray.storage.regular_files import raise_if_system

Boxes = Literal["detected", "labeled"]
# What h5py raises on damaged files, found by fuzzing.
_DAMAGE: tuple[type[Exception], ...] = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RuntimeError,
    EOFError,
)
Place = tuple[str, Boxes, str]  # file, boxes, data set
SPLITS = ("train", "query", "gallery")
NEW_PROTOCOL = MarketLayout("CUHK03", re.compile(r"^(?P<person>\d+)_c(?P<camera>\d+)_\d+\.(?:png|jpg)$"), 2)
# camera pair, person within the pair, view (1 or 2: the camera), number of the image among the person's ten
NAME = re.compile(r"^(?P<pair>\d)_(?P<person>\d{3})_(?P<view>\d)_(?P<number>\d{2})\.png$")


def read_cuhk03(store: Store, source: SourceConfig) -> Records:
    """One record per image of the chosen boxes; image_id is folder/name in Market's layout, else detected/name or labeled/name.

    Raises:
        DataError: none of the three layouts is there, or the protocol file is not what it should be.
    """
    dataset = source.name or f"CUHK03-{source.boxes}"
    for exported in (store, store.child(source.boxes), store.child(f"cuhk03-np/{source.boxes}")):
        if all(exported.is_folder(folder) for folder in FOLDERS):
            yield from read_market_layout(exported, replace(NEW_PROTOCOL, dataset=dataset))
            return
    protocol = f"cuhk03_new_protocol_config_{source.boxes}.mat"
    images = f"images_{source.boxes}"
    release = next((name for name in ("cuhk03_release/cuhk-03.mat", "cuhk-03.mat") if store.is_file(name)), None)
    if not store.is_file(protocol) or not (store.is_folder(images) or release):
        raise DataError(
            f"{store}: is no CUHK03 in the new protocol; it needs cuhk03-np/{source.boxes}/bounding_box_train and its siblings, or "
            f"{protocol} beside {images}/ or cuhk03_release/cuhk-03.mat (source.path, source.boxes)"
        )
    entries = _protocol(store, protocol, source.boxes, dataset)
    if store.is_folder(images):
        for entry in entries:
            yield _of_file(entry, store, images)
    elif release:
        yield from _of_release(entries, store, release, source.boxes)


def _protocol(store: Store, file: str, boxes: Boxes, dataset: str) -> Iterator[ImageRecord | Skipped]:
    """The images of the protocol file, without bytes: split, label and view of each; indices in the file count from 1."""
    try:
        content = read_mat5(store.read_bytes(file))
    except (OSError, ValueError) as error:
        raise_if_system(error)
        raise DataError(f"{store}/{file}: cannot be read as the new protocol's file ({error}); fetch it again") from None
    vectors: dict[str, Any] = {name: content.get(name) for name in ("filelist", "labels", *(f"{key}_idx" for key in SPLITS))}
    if lacking := [name for name, vector in vectors.items() if not isinstance(vector, list)]:
        raise DataError(f"{store}/{file}: is not the new protocol's file: it lacks {', '.join(lacking)}")
    names, labels, *members = vectors.values()
    for split, indices in zip(SPLITS, members, strict=True):
        for index in indices:
            yield _entry(index, names, labels, split, (file, boxes, dataset))


def _entry(index: Any, names: list[Any], labels: list[Any], split: str, place: Place) -> ImageRecord | Skipped:
    """One image of a split; MATLAB writes indices and labels as whole numbers or as floats."""
    file, boxes, dataset = place
    try:
        number = whole(index, "an index")
        if number is None or not 1 <= number <= min(len(names), len(labels)):
            raise ValueError(f"{split}_idx has {shown(index)}, but there are {len(names)} names and {len(labels)} labels")
        name = names[number - 1]
        person = whole(labels[number - 1], f"label {number}")
    except ValueError as error:
        return Skipped(f"{split}_idx {shown(index)}", dataset, "bad_annotation", f"{file}: {error}", split)
    match = NAME.match(name) if isinstance(name, str) else None
    if match is None:
        return Skipped(f"{boxes}/{name}", dataset, "unexpected_name", f"filelist entry {number} of {file}", split, person)
    return ImageRecord(f"{boxes}/{name}", dataset, name=name, split=split, person_id=person, camera_id=int(match["view"]))


def _of_file(entry: ImageRecord | Skipped, store: Store, images: str) -> ImageRecord | Skipped:
    if isinstance(entry, Skipped):
        return entry
    return replace(entry, store=store, name=f"{images}/{entry.name}")


def _of_release(entries: Iterator[ImageRecord | Skipped], store: Store, file: str, boxes: Boxes) -> Records:
    import h5py

    try:
        stream = store.open(file)
    except OSError as error:
        raise_if_system(error)
        raise DataError(f"{store}/{file}: cannot be read ({error})") from None
    with stream:
        try:
            mat = h5py.File(stream, "r")
            pairs = [mat[reference] for reference in mat[boxes][0]]
        except _DAMAGE as error:
            raise_if_system(error)
            raise DataError(f"{store}/{file}: is not the CUHK03 release, an HDF5 file with cells {boxes} ({error!r:.200})") from None
        with mat:
            for entry in entries:
                yield entry if isinstance(entry, Skipped) else _picture(entry, mat, pairs)


def _picture(entry: ImageRecord, mat: Any, pairs: list[Any]) -> ImageRecord | Skipped:
    """The array of one name: cell `pair`, MATLAB row `person`, column `number`; HDF5 keeps MATLAB's axes in reverse."""
    match = NAME.match(entry.name or "")
    assert match is not None  # _protocol made the name pass
    pair, person, number = int(match["pair"]) - 1, int(match["person"]) - 1, int(match["number"]) - 1
    try:
        if not 0 <= pair < len(pairs) or not 0 <= number < pairs[pair].shape[0] or not 0 <= person < pairs[pair].shape[1]:
            return skipped(entry, "missing", "the release has no such cell")
        pixels = mat[pairs[pair][number, person]][()].T
        if pixels.ndim != 3 or pixels.dtype.name != "uint8" or pixels.shape[2] != 3:
            return skipped(entry, "missing", f"the cell is no picture but {pixels.dtype} of shape {pixels.shape}")
        return replace(entry, data=_png(pixels), name=None)
    except _DAMAGE as error:
        raise_if_system(error)
        return skipped(entry, "unreadable", f"the cell is damaged ({error!r:.200})")


def _png(pixels: Any) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
