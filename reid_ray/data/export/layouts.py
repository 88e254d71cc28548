"""The layouts that the job export writes, one class each: names, keys and folders as their data sets have them.

Knows rows and files; not where rows come from. A layout that a row does not fit raises CannotExpressError with the reason to count.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from reid_ray.data.export.composed_layouts import ItcprWriter, SyncprWriter
from reid_ray.data.export.config import ExportFormat, ExportJob
from reid_ray.data.export.file_naming import is_possible
from reid_ray.data.export.json_layouts import (
    HamPedesWriter,
    IcfgWriter,
    InteractivePedesWriter,
    JsonWriter,
    MalsWriter,
    RstpWriter,
    SynthPedesWriter,
    UFine3CWriter,
    UFine6926Writer,
    WebPersonWriter,
)
from reid_ray.data.export.reid_layouts import Cuhk03ImagesWriter, Cuhk03Writer, DukeWriter, MarketWriter, Msmt17Writer
from reid_ray.data.export.writer import CannotExpressError, Writer, suffix_of
from reid_ray.data.formats import luperson, luperson_mllm
from reid_ray.data.formats.generic.webdataset import IMAGE_ID, ShardWriter
from reid_ray.data.image_records import Caption, ImageRecord


class LupersonWriter(Writer):
    """LUPerson: an LMDB lmdb/ whose keys are the image ids, which must be country_city_video_index."""

    def __enter__(self) -> LupersonWriter:
        import lmdb

        self._lmdb = lmdb
        self._environment = lmdb.open(str(self.folder / "lmdb"), map_size=1 << 30, sync=False)  # synced once, at the end
        return self

    def __exit__(self, *_: object) -> None:
        self._environment.sync(True)
        self._environment.close()
        super().__exit__()

    def add(self, record: ImageRecord, data: bytes, captions: Sequence[Caption]) -> None:
        """Store the image; captions have no place in this layout."""
        self.left_out["no_place_in_layout"] += len(captions)
        if not luperson.KEY.match(record.image_id) or not is_possible(record.image_id):
            raise CannotExpressError("id_is_no_key")
        while True:
            try:
                with self._environment.begin(write=True) as transaction:
                    if not transaction.put(record.image_id.encode(), data, overwrite=False):
                        raise CannotExpressError("repeated_name")
                return
            except self._lmdb.MapFullError:
                self._environment.set_mapsize(2 * self._environment.info()["map_size"])


class LupersonMllmWriter(Writer):
    """LUPerson-MLLM: LUPerson-MLLM/<name> and one JSON object {name: caption} per kind (static, dynamic) and captioner."""

    flat = True

    def __enter__(self) -> LupersonMllmWriter:
        self._files = luperson_mllm.CaptionFiles(self.folder)
        return self

    def __exit__(self, *_: object) -> None:
        self._files.__exit__()
        super().__exit__()

    def add(self, record: ImageRecord, data: bytes, captions: Sequence[Caption]) -> None:
        """Write the image and at most one caption into each file."""
        name = self.names.name_of(record.image_id, suffix_of(data))
        self.write_image(f"{luperson_mllm.IMAGES}/{name}", data, name=name, image_id=record.image_id)
        used: set[str] = set()
        for caption in captions:
            kind, captioner, model = caption["kind"], caption.get("captioner"), caption.get("model")
            if kind not in luperson_mllm.KINDS.values():
                self.left_out["kind_not_in_layout"] += 1
            elif (file := self._files.name_of(kind, captioner=captioner, model=model)) in used:
                self.left_out["second_caption_of_one_kind"] += 1
            elif not self._files.has_room_for(file):
                self.left_out["too_many_captioners"] += 1
            else:
                used.add(file)
                self._files.write(file, name, caption["text"])
                self.captions += 1


class WebdatasetWriter(Writer):
    """WebDataset: tar shards of <key>.<suffix> and <key>.json, which says the image_id."""

    keys = True
    marks_synthetic = True

    def __enter__(self) -> WebdatasetWriter:
        self._shards = ShardWriter(self.folder, self.config.samples_per_shard)
        return self

    def __exit__(self, *_: object) -> None:
        self._shards.__exit__()
        super().__exit__()

    def add(self, record: ImageRecord, data: bytes, captions: Sequence[Caption]) -> None:
        """Append one sample."""
        attributes = _attributes(record.attributes)
        key, _, suffix = self.names.name_of(record.image_id, suffix_of(data)).rpartition(".")
        fields = {
            IMAGE_ID: record.image_id,
            "dataset": record.dataset,
            "split": record.split,
            "person_id": record.person_id,
            "camera_id": record.camera_id,
            "synthetic": record.synthetic,
            "attributes": attributes,
            "captions": [caption["text"] for caption in captions],
        }
        self._shards.write(key, suffix, data, {name: value for name, value in fields.items() if value is not None})
        self.captions += len(captions)


def _attributes(text: str | None) -> dict[str, Any] | None:
    try:
        attributes = json.loads(text) if text is not None else None
    except ValueError:
        attributes = text
    if attributes is None or isinstance(attributes, dict):
        return attributes
    raise CannotExpressError("attributes_not_json")


WRITERS: dict[ExportFormat, Callable[[Path, ExportJob], Writer]] = {
    "cuhk_pedes": JsonWriter,
    "icfg_pedes": IcfgWriter,
    "rstpreid": RstpWriter,
    "market1501": MarketWriter,
    "dukemtmc": DukeWriter,
    "msmt17": Msmt17Writer,
    "cuhk03": Cuhk03Writer,
    "cuhk03_images": Cuhk03ImagesWriter,
    "luperson": LupersonWriter,
    "luperson_mllm": LupersonMllmWriter,
    "ufine6926": UFine6926Writer,
    "ufine3c": UFine3CWriter,
    "interactive_pedes": InteractivePedesWriter,
    "webperson": WebPersonWriter,
    "synth_pedes": SynthPedesWriter,
    "ham_pedes": HamPedesWriter,
    "mals": MalsWriter,
    "itcpr": ItcprWriter,
    "syncpr": SyncprWriter,
    "webdataset": WebdatasetWriter,
}
