"""The layouts of captioned data sets that the job export writes: a JSON list with an entry an image, and a folder of images.

CUHK-PEDES, ICFG-PEDES, RSTPReid, UFine6926, UFine3C, Interactive-PEDES, WebPerson, SYNTH-PEDES, HAM-PEDES, MALS. A caption is a text here
and no more: who wrote it, and by which instruction, is told by its key alone, where there are several.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, BinaryIO

from reid_ray.data.containers.json_captions import IMAGES
from reid_ray.data.containers.values import SPLITS, without_spelled_breaks
from reid_ray.data.export.writer import CannotExpressError, Writer, suffix_of
from reid_ray.data.formats import cuhk_pedes, icfg_pedes, interactive_pedes, rstpreid, ufine
from reid_ray.data.formats.generated import ham_pedes, mals, synth_pedes, webperson
from reid_ray.data.image_records import Caption, ImageRecord

_WORD = re.compile(r"[a-z0-9]+(?:'[a-z]+)?")


class JsonWriter(Writer):
    """CUHK-PEDES and its like: one JSON list and a folder of images. Needs identity, a split among train, val, test, and a caption."""

    file_name = cuhk_pedes.ANNOTATIONS
    images = IMAGES
    splits: Sequence[str] = SPLITS  # empty: a data set without
    labelled = True  # whether it says who is who
    brackets = b"[]"

    def __enter__(self) -> JsonWriter:
        file = self.folder / self.file_name
        file.parent.mkdir(exist_ok=True)
        self._file: BinaryIO = file.open("wb")
        self._file.write(self.brackets[:1])
        self._entries = 0
        return self

    def __exit__(self, *_: object) -> None:
        self._file.write(self.brackets[1:])
        self._file.close()
        super().__exit__()

    def add(self, record: ImageRecord, data: bytes, captions: Sequence[Caption]) -> None:
        """Write the image and the entry."""
        if self.labelled and record.person_id is None:
            raise CannotExpressError("no_person_id")
        if self.splits and record.split not in self.splits:
            raise CannotExpressError("split_not_in_layout")
        if not captions:
            raise CannotExpressError("no_caption")
        path = self.path_of(record, data)
        self.write_image(f"{self.images}/{path}" if self.images else path, data, name=path, image_id=record.image_id)
        entry = json.dumps(self.entry(record, path, captions))
        if self.brackets == b"{}":
            entry = entry[1:-1]  # an object of one key in the list is that key in the whole
        self._file.write((", " if self._entries else "").encode() + entry.encode())
        self._entries += 1
        self.captions += len(captions)

    def path_of(self, record: ImageRecord, data: bytes) -> str:
        """The image's path below imgs/."""
        return self.names.name_of(record.image_id, suffix_of(data))

    def entry(self, record: ImageRecord, path: str, captions: Sequence[Caption]) -> dict[str, Any]:
        """The JSON object of an image. processed_tokens are lower-case words; the authors' tokeniser is not published."""
        texts = _texts(captions)
        tokens = [_WORD.findall(text.lower()) for text in texts]
        return {"split": record.split, "captions": texts, "file_path": path, "processed_tokens": tokens, "id": record.person_id}


class IcfgWriter(JsonWriter):
    """ICFG-PEDES: as CUHK-PEDES, without val."""

    file_name = icfg_pedes.ANNOTATIONS[0]
    splits = ("train", "test")


class RstpWriter(JsonWriter):
    """RSTPReid: flat names <person>_c<camera>_<index>.jpg under the key img_path; one of unknown camera keeps a name that says none."""

    file_name = rstpreid.ANNOTATIONS

    def __enter__(self) -> RstpWriter:
        super().__enter__()
        self._numbered = -1  # the last number of a made name
        return self

    def path_of(self, record: ImageRecord, data: bytes) -> str:
        """The image's own name if it is of this kind and says this camera, else one made of person, camera and a running number."""
        match = rstpreid.NAME.match(record.image_id)
        if match and (record.camera_id is None or int(match["camera"]) == record.camera_id) and self.names.take(record.image_id):
            return record.image_id
        if record.camera_id is None:
            return self.names.name_of(record.image_id, suffix_of(data))
        if record.camera_id < 0 or (record.person_id or 0) < 0:
            raise CannotExpressError("camera_not_in_layout" if record.camera_id < 0 else "person_id_not_in_layout")
        while True:
            self._numbered = max(self._numbered + 1, self._entries)
            name = f"{record.person_id:04d}_c{record.camera_id}_{self._numbered:04d}.{suffix_of(data)}"
            if self.names.take(name):
                return name

    def entry(self, record: ImageRecord, path: str, captions: Sequence[Caption]) -> dict[str, Any]:
        """The JSON object of an image."""
        return {"id": record.person_id, "img_path": path, "captions": _texts(captions), "split": record.split}


class UFine6926Writer(JsonWriter):
    """UFine6926: images/, splits train and test."""

    file_name = ufine.ANNOTATIONS.format(ufine.UFINE6926)
    images = ""
    splits: Sequence[str] = ("train", "test")

    def path_of(self, record: ImageRecord, data: bytes) -> str:
        """The image's path, which begins with images/."""
        return f"{ufine.IMAGES}/{self.names.name_of(record.image_id.removeprefix(f'{ufine.IMAGES}/'), suffix_of(data))}"

    def entry(self, record: ImageRecord, path: str, captions: Sequence[Caption]) -> dict[str, Any]:
        """The JSON object of an image."""
        return {"split": record.split, "id": record.person_id, "file_path": path, "captions": _texts(captions)}


class UFine3CWriter(UFine6926Writer):
    """UFine3C: test alone; an entry says from which data set its image comes."""

    file_name = ufine.ANNOTATIONS.format(ufine.UFINE3C)
    splits = ("test",)

    def entry(self, record: ImageRecord, path: str, captions: Sequence[Caption]) -> dict[str, Any]:
        """The JSON object of an image; one of another data set says so, one of this says whence it is if it did."""
        source = attribute(record, "source")
        if not isinstance(source, str) and record.dataset != ufine.UFINE3C:
            source = record.dataset
        return {**super().entry(record, path, captions), **({"source": source} if isinstance(source, str) else {})}


class WebPersonWriter(JsonWriter):
    """WebPerson: images/ and one-key objects {path: {caption1, caption2, ...}}; neither persons nor splits have a place."""

    file_name = webperson.ANNOTATIONS
    images = webperson.IMAGES
    splits = ()
    labelled = False

    def add(self, record: ImageRecord, data: bytes, captions: Sequence[Caption]) -> None:
        """Write the image and the entry, without captions in which the layout's reader would find a line break that is none."""
        plain = [caption for caption in captions if without_spelled_breaks(caption["text"]) == caption["text"]]
        self.left_out["reads_as_line_break"] += len(captions) - len(plain)
        super().add(record, data, plain)

    def entry(self, record: ImageRecord, path: str, captions: Sequence[Caption]) -> dict[str, Any]:
        """The JSON object of an image."""
        return {path: {f"caption{number}": text for number, text in enumerate(_texts(captions), start=1)}}


class SynthPedesWriter(JsonWriter):
    """SYNTH-PEDES: paths count from the data set, captions made of attributes have a key of their own; there is no split."""

    file_name = synth_pedes.ANNOTATIONS[0]
    images = ""
    splits = ()

    def entry(self, record: ImageRecord, path: str, captions: Sequence[Caption]) -> dict[str, Any]:
        """The JSON object of an image."""
        prompted = [caption for caption in captions if caption.get("instruction_id") == synth_pedes.OF_ATTRIBUTES]
        attributes = attribute(record, "attributes")
        return {
            "id": record.person_id,
            "file_path": path,
            **({"attributes": attributes} if isinstance(attributes, list) else {}),
            "captions": _texts([caption for caption in captions if caption not in prompted]),
            "prompt_caption": _texts(prompted),
        }


class HamPedesWriter(JsonWriter):
    """HAM-PEDES: one object {path: [captions]}; neither persons nor splits have a place."""

    file_name = ham_pedes.ANNOTATIONS[0]
    images = ""
    splits = ()
    labelled = False
    brackets = b"{}"

    def path_of(self, record: ImageRecord, data: bytes) -> str:
        """The image's path, from Part1, Part2, ... on, as the reader takes it."""
        return self.names.name_of(ham_pedes.of_the_set(record.image_id), suffix_of(data))

    def entry(self, record: ImageRecord, path: str, captions: Sequence[Caption]) -> dict[str, Any]:
        """The JSON object of an image."""
        return {path: _texts(captions)}


class MalsWriter(JsonWriter):
    """MALS: one file of gene_attrs/, with one caption an image and the labels, -1 where they are null."""

    file_name = f"{mals.FOLDER}/g{mals.ENDING}"
    images = ""
    splits = ()
    labelled = False

    def entry(self, record: ImageRecord, path: str, captions: Sequence[Caption]) -> dict[str, Any]:
        """The JSON object of an image; of several captions the first."""
        if further := len(captions) - 1:
            self.left_out["second_caption"] += further
            self.captions -= further
        label = attribute(record, "label")
        known = {"label": [-1 if value is None else value for value in label]} if isinstance(label, list) else {}
        return {"image": path, "caption": captions[0]["text"], "image_id": path.rpartition(".")[0].replace("/", "_"), **known}


class InteractivePedesWriter(JsonWriter):
    """Interactive-PEDES: people's captions, the two descriptions under keys of their own, and the dialogue."""

    file_name = interactive_pedes.ANNOTATIONS
    images = ""

    def entry(self, record: ImageRecord, path: str, captions: Sequence[Caption]) -> dict[str, Any]:
        """The JSON object of an image; a second text of one description is a caption."""
        described: dict[str, str] = {}
        others = []
        for caption in captions:
            key = caption.get("instruction_id")
            if key in interactive_pedes.DESCRIPTIONS and key not in described:
                described[key] = caption["text"]
            else:
                others.append(caption)
        said = {key: value for key in interactive_pedes.DIALOGUE if isinstance(value := attribute(record, key), list)}
        return {"split": record.split, "id": record.person_id, "file_path": path, "captions": _texts(others), **described, **said}


def _texts(captions: Sequence[Caption]) -> list[str]:
    return [caption["text"] for caption in captions]


def attribute(record: ImageRecord, name: str) -> Any:
    """One value of the image's attributes; None where they are no JSON object or lack it."""
    try:
        attributes = json.loads(record.attributes) if record.attributes else None
    except ValueError:
        return None
    return attributes.get(name) if isinstance(attributes, dict) else None
