"""The layouts of image-based data sets that the job export writes: Market-1501, DukeMTMC-reID, MSMT17 (V1, V2), CUHK03 (new protocol).

An image keeps its own name where that is one of the layout and agrees with the row; any other gets a name made of what the row says. One
whose camera nobody knows is written if its own name says the person and no camera, for no name could be made that says less.
Captions have no place here and are counted. Images are never encoded again: a row whose bytes are of another kind is left out.
CUHK03's release itself, cuhk-03.mat, is not written: it also holds the other boxes, the people that the new protocol leaves out and the
20 splits of the old one, none of which the tables have.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from reid_ray.data.export.config import ExportJob
from reid_ray.data.export.writer import CannotExpressError, Writer, suffix_of
from reid_ray.data.formats import cuhk03, market1501, msmt17
from reid_ray.data.image_records import Caption, ImageRecord


class ReidWriter(Writer):
    """What these layouts share: captions have no place, and every image needs a person, a camera, a split and one kind of file."""

    suffix = "jpg"
    cameras: int | None = None  # numbered from 1; None: any
    splits: Sequence[str] = tuple(market1501.FOLDERS.values())

    def add(self, record: ImageRecord, data: bytes, captions: Sequence[Caption]) -> None:
        """Write one image; its captions are counted as left out."""
        self.left_out["no_place_in_layout"] += len(captions)
        if record.split is None or record.split not in self.splits:
            raise CannotExpressError("split_not_in_layout")
        if record.person_id is None:
            raise CannotExpressError("no_person_id")
        if record.camera_id is None and not self.says_no_camera(record.image_id.rpartition("/")[2], record.person_id):
            raise CannotExpressError("no_camera_id")
        if record.person_id < 0:  # -1 is junk here, and nobody else has a sign
            raise CannotExpressError("person_id_not_in_layout")
        if record.camera_id is not None and (record.camera_id < 1 or (self.cameras is not None and record.camera_id > self.cameras)):
            raise CannotExpressError("camera_not_in_layout")
        if suffix_of(data) != self.suffix:
            raise CannotExpressError(f"not_{'jpeg' if self.suffix == 'jpg' else self.suffix}")
        self.put(record, data, split=record.split, person=record.person_id, camera=record.camera_id)

    def says_no_camera(self, name: str, person: int) -> bool:
        """Whether the layout's reader takes this name for this person's, by an unknown camera."""
        return False

    @abstractmethod
    def put(self, record: ImageRecord, data: bytes, *, split: str, person: int, camera: int | None) -> None:
        """Write an image that has all that the layout needs; camera is None only where says_no_camera is true."""


class MarketWriter(ReidWriter):
    """Market-1501: three folders, names 0002_c1s1_000451_03.jpg."""

    layout = market1501.MARKET
    made_name = "{person:04d}_c{camera}s1_{number:06d}_00.jpg"
    root = ""

    def __enter__(self) -> MarketWriter:
        self._numbered = 0  # images that had to be given a name
        self.cameras = self.layout.cameras
        for folder in market1501.FOLDERS:
            (self.folder / self.root / folder).mkdir(parents=True)
        return self

    def says_no_camera(self, name: str, person: int) -> bool:
        """Whether the name begins with this person and names no camera."""
        return name.endswith(f".{self.suffix}") and market1501.person_alone(name) == person

    def put(self, record: ImageRecord, data: bytes, *, split: str, person: int, camera: int | None) -> None:
        """Write the image into the folder of its split."""
        folder = {split: folder for folder, split in market1501.FOLDERS.items()}[split]
        name = record.image_id.rpartition("/")[2]
        match = self.layout.name.match(name)
        agrees = camera is None or (match is not None and (int(match["person"]), int(match["camera"])) == (person, camera))
        if not agrees or not self.names.take(f"{folder}/{name}"):
            if camera is None:
                raise CannotExpressError("repeated_name")
            name = self._made_name(folder, person, camera)
        self.write_image(str(Path(self.root) / folder / name), data, name=f"{folder}/{name}", image_id=record.image_id)

    def _made_name(self, folder: str, person: int, camera: int) -> str:
        while True:
            self._numbered += 1
            name = self.made_name.format(person=person, camera=camera, number=self._numbered)
            if self.names.take(f"{folder}/{name}"):
                return name


class DukeWriter(MarketWriter):
    """DukeMTMC-reID: Market's folders, names 0002_c1_f0044158.jpg, cameras 1 to 8."""

    layout = market1501.DUKE
    made_name = "{person:04d}_c{camera}_f{number:07d}.jpg"


class Cuhk03Writer(MarketWriter):
    """CUHK03 in Market's folders, as the new protocol's authors give it: {detected,labeled}/query/0001_c1_1.png, cameras 1 and 2."""

    layout = cuhk03.NEW_PROTOCOL
    made_name = "{person:04d}_c{camera}_{number}.png"
    suffix = "png"

    def __init__(self, folder: Path, config: ExportJob) -> None:
        super().__init__(folder, config)
        self.root = config.boxes


class Cuhk03ImagesWriter(ReidWriter):
    """CUHK03 as extracted images, images_{boxes}/1_001_1_01.png, and the protocol's file cuhk03_new_protocol_config_{boxes}.mat.

    A name says camera pair, person within the pair, view and number, which no column holds: rows that are not named so have no place.
    """

    cameras = 2
    suffix = "png"

    def __enter__(self) -> Cuhk03ImagesWriter:
        self._rows: list[tuple[str, str, int, int]] = []  # name, split, person, camera of at most 14,097 images
        (self.folder / f"images_{self.config.boxes}").mkdir()
        return self

    def put(self, record: ImageRecord, data: bytes, *, split: str, person: int, camera: int | None) -> None:
        """Write the image under its own name and note it for the protocol's file."""
        name = record.image_id.rpartition("/")[2]
        match = cuhk03.NAME.match(name)
        if match is None or camera is None or int(match["view"]) != camera:
            raise CannotExpressError("name_not_in_layout")
        if not 0 <= person < 1 << 16:
            raise CannotExpressError("person_id_not_in_layout")
        if not self.names.take(name):
            raise CannotExpressError("repeated_name")
        self.write_image(f"images_{self.config.boxes}/{name}", data, name=f"{self.config.boxes}/{name}", image_id=record.image_id)
        self._rows.append((name, split, person, camera))

    def __exit__(self, *_: object) -> None:
        """Write the protocol's file: names, labels and cameras in the order of the names, and each split's places, counted from 1."""
        import numpy as np
        from scipy.io import savemat

        names = sorted(self._rows)
        place = {name: number for number, (name, *_) in enumerate(names, start=1)}
        filelist = np.empty((len(names), 1), dtype=object)
        filelist[:, 0] = [row[0] for row in names]
        columns = {"labels": [row[2] for row in names], "camId": [row[3] for row in names]}
        for split in self.splits:
            columns[f"{split}_idx"] = [place[name] for name, of, *_ in self._rows if of == split]
        content = {key: np.array(values, dtype=np.uint16).reshape(-1, 1) for key, values in columns.items()}
        super().__exit__()
        savemat(self.folder / f"cuhk03_new_protocol_config_{self.config.boxes}.mat", {"filelist": filelist, **content})


class Msmt17Writer(ReidWriter):
    """MSMT17: list_{train,val,query,gallery}.txt of "path pid", and two folders, named as V1 or V2 (config.msmt17_version) has them.

    The lists count persons from 0, those of query and gallery from 0 again. A name of MSMT17's own gives its person's number; other
    people are numbered as they come, and their images get names with the invented date 0303morning, for no column holds one. The job ingest
    gives the tables' own numbers back.
    """

    splits = tuple(msmt17.LISTS)

    def __enter__(self) -> Msmt17Writer:
        train, test = msmt17.VERSIONS[self.config.msmt17_version]
        self._folder_of = {"train": train, "val": train, "query": test, "gallery": test}
        self._number: dict[tuple[str, int], int] = {}  # (folder, person_id) -> number in the lists
        self._owner: dict[tuple[str, int], int] = {}  # (folder, number) -> person_id
        self._images: Counter[tuple[str, int]] = Counter()  # made names by (folder, number)
        for folder in (train, test):
            (self.folder / folder).mkdir()
        with ExitStack() as stack:
            self._lists: dict[str, BinaryIO] = {
                split: stack.enter_context((self.folder / file).open("wb")) for split, file in msmt17.LISTS.items()
            }
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        super().__exit__()

    def says_no_camera(self, name: str, person: int) -> bool:
        """Whether the name says no camera; who it is says the list."""
        return name.endswith(".jpg") and msmt17.camera_of_name(name) is None

    def put(self, record: ImageRecord, data: bytes, *, split: str, person: int, camera: int | None) -> None:
        """Write the image and its line."""
        folder = self._folder_of[split]
        name = record.image_id.rpartition("/")[2]
        agrees = msmt17.camera_of_name(name) == camera and name.endswith(".jpg")
        match = re.match(r"\d+", name) if agrees and camera is not None else None
        number = self._numbered(folder, person, int(match[0]) if match else None)
        path = f"{number:04d}/{name}" if camera is None else f"{name.partition('_')[0]}/{name}"
        if (match is None and camera is not None) or not self.names.take(f"{folder}/{path}"):
            if camera is None:
                raise CannotExpressError("repeated_name")
            path = self._made_path(folder, number, camera)
        # The reader counts the persons of query and gallery on from the last one of training, whoever that will be.
        renumbered = None if number == person and split in ("train", "val") else person
        self.write_image(f"{folder}/{path}", data, name=f"{folder}/{path}", image_id=record.image_id, person_id=renumbered)
        self._lists[split].write(f"{path} {number}\n".encode())

    def _made_path(self, folder: str, number: int, camera: int) -> str:
        while True:
            image = self._images[folder, number]
            self._images[folder, number] += 1
            path = f"{number:04d}/{number:04d}_{image:03d}_{camera:02d}_0303morning_{image:04d}_0.jpg"
            if self.names.take(f"{folder}/{path}"):
                return path

    def _numbered(self, folder: str, person: int, named: int | None) -> int:
        """The person's number in the lists: as earlier, else the one in the name, else the next that is free."""
        number = self._number.get((folder, person), named)
        if number is None:
            number = len(self._owner)
            while (folder, number) in self._owner:
                number += 1
        if (named is not None and named != number) or self._owner.get((folder, number), person) != person:
            raise CannotExpressError("name_of_another_person")
        self._number[folder, person], self._owner[folder, number] = number, person
        return number
