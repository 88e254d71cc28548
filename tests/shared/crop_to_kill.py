"""What kill_points.py runs: the crop job on frames, cut into stretches, over an older result; a scripted detector sees one box a frame."""

import contextlib
import hashlib
import io
import json
import os
import traceback
from pathlib import Path

import cv2  # noqa: F401 - loaded before a child is made, so that its calls are the job's
import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from reid_ray.crop import job
from reid_ray.crop.config import CropJob
from reid_ray.crop.spotted import Spotted
from reid_ray.storage import read_manifest
from reid_ray.storage.listing import differences, read_mark

COUNT_FROM_START = True
FRAMES, STRETCHES = 30, 3
_SIZE = (64, 128)  # width and height


class Scripted:
    """Sees one person, who moves a pixel a frame; notes in a file how many frames it was shown."""

    name, revision = "scripted", None

    def __init__(self, noted):
        self._noted = noted

    def people(self, pictures):
        with self._noted.open("a") as file:
            file.write("\n" * len(pictures))
        left = [int(picture[0, 0, 0]) for picture in pictures]
        return [Spotted(np.array([[x, 8, x + 24, 88]], np.float32), np.ones(1, np.float32)) for x in left]


def crop(folder, number):
    job.open_detector = lambda *_, **__: Scripted(folder / "looked")
    values = {
        "footage": {"path": str(folder / "frames"), "kind": "frames", "frame_rate": 1, "camera": f"gate{number}"},
        "frames_per_second": None,
        "stretch_s": 10.0,
        "crops": {"min_height": 16},
        "tracker": {"min_boxes": 2},
        "ray": {"execution": "in_process"},
        "output": {"path": str(folder / "out"), "if_exists": "replace"},
    }
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        job.run_crop(CropJob.model_validate(values))


def in_child(folder, number):
    """The job in a process of its own: what it leaves running must not be forked off later."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            crop(folder, number)
            status = 0
        except Exception:  # noqa: BLE001 - told, and the parent sees the status
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


def before(folder):
    (folder / "frames" / "a").mkdir(parents=True)
    for number in range(FRAMES):
        pixels = np.full((_SIZE[1], _SIZE[0], 3), number, np.uint8)
        pixels[8:88, number : number + 24] = 200
        pixels[0, 0] = number
        Image.fromarray(pixels).save(folder / "frames" / "a" / f"{number:04d}.png")
    in_child(folder, 1)


def run(folder):
    crop(folder, 2)


def after(folder):
    found, hidden = state(folder / "out"), folder / ".out.stretches"
    whole = [pq.read_metadata(file).num_rows for file in hidden.glob("*.parquet")] if hidden.exists() else []
    (folder / "looked").write_text("")
    in_child(folder, 2)
    left = sorted({entry.name for entry in folder.iterdir()} - {"out", "frames", "looked"})
    return {
        "dead": found,
        "kept": len(whole),
        "again": state(folder / "out"),
        "looked": (folder / "looked").read_text().count("\n"),
        "rows": digest(folder / "out"),
        "left": left,
    }


def state(out):
    """Number of the run whose whole result is there, None if none is."""
    mark = read_mark(out)
    if not (mark and mark["whole"]) or list(differences(out)):
        return None
    return int(read_manifest(out)["config"]["footage"]["camera"].removeprefix("gate"))


def digest(out):
    """Of the crops that are there, in their order."""
    rows = [[row["image_id"], row["image_sha256"], row["track"], row["frame"]] for row in pq.read_table(Path(out) / "images").to_pylist()]
    return [len(rows), hashlib.sha256(json.dumps(rows).encode()).hexdigest()]
