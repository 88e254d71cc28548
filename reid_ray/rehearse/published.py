"""Data sets of a few dozen synthetic people in their published layouts on disk, as the ingest job's readers expect them.

The layouts are the export job's; how people look is data/synthetic's. One image of each set is cut off and one of its captions is
empty, for no data set is without such. Knows formats; not configurations' chains.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from reid_ray.config.common import SyntheticConfig
from reid_ray.data.export.config import ExportJob
from reid_ray.data.export.layouts import WRITERS
from reid_ray.data.formats.config import SourceConfig
from reid_ray.data.image_records import Caption, ImageRecord, composed_caption
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.data.synthetic.sentences import SLOTS
from reid_ray.data.synthetic.street_video import street_video, write_video
from reid_ray.errors import ConfigError

# Another crowd for each format, so that no two data sets share pictures unless one is made of the other.
_SEEDS = {"cuhk_pedes": 11, "icfg_pedes": 12, "rstpreid": 13, "market1501": 14, "dukemtmc": 15, "msmt17": 16, "cuhk03": 17}
_BY_IMAGES = frozenset({"market1501", "dukemtmc", "msmt17", "cuhk03"})  # query and gallery in the place of test
_ONE_OF_EACH = frozenset({"luperson", "luperson_mllm"})  # nobody is seen twice, as far as anybody knows
_WITHOUT_VAL = frozenset({"icfg_pedes", "ufine6926"})
_IDENTITIES, _IMAGES_EACH = 24, 4
_DRESSED = 6  # identities whose clothes are a folder of clothes
_GALLERY = 66  # identities of a data set of crops: compressed vectors need 256 images to learn their codes from
_DAMAGED, _WITHOUT_WORDS = 1, 2  # numbers of the images that are cut off, and that have an empty caption
_CAPTIONERS = ("qwen", "shikra")  # of LUPerson-MLLM's release


def write_published(source: SourceConfig, folder: Path) -> None:
    """Write the data set that `source` reads into `folder`, which is made.

    Raises:
        ConfigError: the format has no layout that can be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if source.format == "folder":
        write_crops(folder, identities=_GALLERY)
        return
    if source.format not in WRITERS:
        raise ConfigError(
            f"source.format: {source.format} has no layout that a rehearsal can write; rehearse with one of {', '.join(WRITERS)}"
        )
    options = {"boxes": source.boxes} if source.format == "cuhk03" else {}
    config = ExportJob.model_validate({"tables": "synthetic", "format": source.format, "output": {"path": str(folder)}, **options})
    with WRITERS[config.format](folder, config) as writer:
        for record, data, captions in _rows(source.format):
            writer.add(record, data, captions)


def write_crops(folder: Path, *, identities: int) -> None:
    """Write a folder of crops named 0017_c3_0001.jpg, person, camera and number, each camera's in a folder of its own."""
    for number, (record, data, _) in enumerate(_rows("folder", identities)):
        file = folder / f"camera{record.camera_id}" / f"{record.person_id:04d}_c{record.camera_id}_{number:04d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)


def write_clothes(folder: Path) -> None:
    """Write what a few people wear as transparent pictures, those of each slot in a folder of its own, and one that is opaque."""
    people = SyntheticPeople(SyntheticConfig(identities=_DRESSED, images_per_identity=1, seed=18))
    for number, (picture, masks) in enumerate(zip(people.pictures(), people.masks(), strict=True)):
        for slot, mask in zip(SLOTS, masks, strict=True):
            file = folder / slot / f"{number:03d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            layered = Image.fromarray(np.dstack([picture, mask * np.uint8(255)]))
            (layered.convert("RGB") if number == _DAMAGED else layered).save(file)


def write_footage(folder: Path, *, frames: bool) -> None:
    """Write some seconds of a street as two cameras see it: videos, and one that is none, or a folder of frames for each camera."""
    folder.mkdir(parents=True)
    for number, camera in enumerate(("gateA", "gateB")):
        video = street_video(people=2, seconds=6, rate=5, seed=number)
        if frames:
            (folder / camera).mkdir()
            for frame, picture in enumerate(video.picture_FHW3):
                Image.fromarray(picture).save(folder / camera / f"{frame:06d}.jpg", quality=90)
        else:
            write_video(folder / f"{camera}_20260501_08000{number}.mp4", video)
    if not frames:
        (folder / "gateC_20260501_080002.mp4").write_bytes(b"cut off")


def _rows(format_: str, identities: int = _IDENTITIES) -> Iterator[tuple[ImageRecord, bytes, list[Caption]]]:
    alone = format_ in _ONE_OF_EACH
    people = SyntheticPeople(
        SyntheticConfig(
            identities=identities,
            images_per_identity=1 if alone else _IMAGES_EACH,
            cameras=2,
            seed=_SEEDS.get(format_, 10),
            val_share=0.25,
            test_share=0.25,
        )
    )
    texts = people.captions()
    for number, row in enumerate(people.image_table().to_pylist()):
        name = f"01_01_0001_{number:08d}" if alone else row["image_id"]
        data = row["image"] if format_ != "cuhk03" else _as_png(row["image"])
        record = ImageRecord(
            f"{name}.jpg" if format_ == "luperson_mllm" else name,
            "synthetic",
            split=_split_of(format_, row, number),
            person_id=row["person_id"],
            camera_id=row["camera_id"],
            attributes=row["attributes"] if format_ != "itcpr" else json.dumps({"instance_id": row["person_id"]}),
        )
        captions = _captions(format_, texts[number], number, person=row["person_id"])
        yield record, data[: len(data) // 2] if number == _DAMAGED else data, captions


def _split_of(format_: str, row: dict[str, Any], number: int) -> str:
    if format_ == "itcpr":
        return "gallery" if number % _IMAGES_EACH else "query"
    if format_ in _BY_IMAGES:
        if row["split"] == "test":
            return "gallery" if number % _IMAGES_EACH else "query"
        # MSMT17's val holds images of training persons; the others have none.
        return "val" if format_ == "msmt17" and number % _IMAGES_EACH == 3 else "train"
    if format_ == "ufine3c":
        return "test"
    return "train" if format_ in _WITHOUT_VAL and row["split"] == "val" else row["split"]


def _captions(format_: str, texts: tuple[str, ...], number: int, *, person: int) -> list[Caption]:
    if format_ == "itcpr":
        return [] if number % _IMAGES_EACH else [composed_caption(texts[0], f"instance {person}")]
    if format_ == "luperson_mllm":
        kinds = zip(("static", "dynamic"), texts, strict=True)
        return [{"kind": kind, "captioner": captioner, "text": text} for kind, text in kinds for captioner in _CAPTIONERS]
    without = ("",) if number == _WITHOUT_WORDS else ()
    return [{"kind": "human", "text": text} for text in (*texts, *without)]


def _as_png(jpeg: bytes) -> bytes:
    stream = io.BytesIO()
    Image.open(io.BytesIO(jpeg)).save(stream, format="PNG")
    return stream.getvalue()
