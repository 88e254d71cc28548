"""The work of one stretch: frames -> people -> tracks -> the best crops of each track, as a table; by the actors, without Ray.

Knows how the steps follow each other; each is in a file of its own. What is held is a batch of frames and the crops that are kept so far:
a few of each track. Tracks have the stretch's own numbers; what neighbours need to join them goes along in the table's metadata.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from reid_ray.crop.best_crops import BestCrops
from reid_ray.crop.config import CropJob, CropsConfig
from reid_ray.crop.footage import Stretch
from reid_ray.crop.person_tracks import open_tracker
from reid_ray.crop.spotted import PersonDetector, Spotted
from reid_ray.crop.stills import FrameReader, Still
from reid_ray.data.images import encode_jpeg

FOUND = b"reid_ray.found"  # of the metadata of a stretch's table
_SHARP_HEIGHT = 128
CUT = pa.schema(
    [
        pa.field("track", pa.int64()),  # of the stretch
        pa.field("frame", pa.int64()),
        pa.field("seconds", pa.float64()),
        pa.field("box", pa.list_(pa.int64(), 4)),
        pa.field("detection", pa.float64()),
        pa.field("worth", pa.float64()),  # what makes a crop better than another
        pa.field("image", pa.binary()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
    ]
)
Sighting = tuple[int, int, list[float]]  # frame, track, box: within the seconds that two neighbours both see


@dataclass
class StretchAccount:
    """What a stretch tells beside its crops.

    frames: looked at, in its own seconds; boxes: found there; low: boxes that were left out as too low; lengths: boxes of each track;
    head and tail: sightings in the seconds that it shares with the stretch before and after it; failed: (name, reason, detail).
    """

    frames: int = 0
    boxes: int = 0
    low: int = 0
    lengths: dict[int, int] = field(default_factory=dict)
    head: list[Sighting] = field(default_factory=list)
    tail: list[Sighting] = field(default_factory=list)
    failed: list[tuple[str, str, str]] = field(default_factory=list)

    def packed(self) -> bytes:
        """As JSON."""
        return json.dumps(vars(self), separators=(",", ":")).encode()

    @classmethod
    def unpacked(cls, data: bytes) -> StretchAccount:
        """What `packed` packed."""
        values: dict[str, Any] = json.loads(data)
        values["lengths"] = {int(number): length for number, length in values["lengths"].items()}
        lists: dict[str, Any] = {name: [tuple(each) for each in values.pop(name)] for name in ("head", "tail", "failed")}
        return cls(**values, **lists)


def work_on(stretch: Stretch, config: CropJob, detector: PersonDetector, *, overlap: float) -> pa.Table:
    """The kept crops of a stretch in the schema CUT, with StretchAccount in its metadata."""
    rate, crops = config.frames_per_second, config.crops
    stills = FrameReader(stretch, rate=rate, max_pixels=config.footage.max_pixels, threads=max(1, int(config.pool.num_cpus)))
    tracker = open_tracker(config.tracker, rate=rate or stretch.footage.rate, least_score=config.detector.threshold)
    found, best = StretchAccount(), BestCrops(crops.per_track, span_s=crops.span_s)
    for some in _batches(stills, config.pool.batch_size):
        for still, people in zip(some, detector.people([each.picture_HW3 for each in some]), strict=True):
            boxes = _high_enough(people, crops.min_height)
            numbers = tracker.follow(boxes, still.seconds)
            own = stretch.stop is None or still.seconds < stretch.stop - 1e-6
            if own:
                found.frames, found.boxes, found.low = found.frames + 1, found.boxes + len(people), found.low + len(people) - len(boxes)
            for number, box_4, score in zip(numbers, boxes.box_N4, boxes.score_N, strict=True):
                if number is None:
                    continue
                sighting = (still.number, number, [round(float(side), 2) for side in box_4])
                if not own:
                    found.tail.append(sighting)
                    continue
                if stretch.number and still.seconds < stretch.start + overlap - 1e-6:
                    found.head.append(sighting)
                found.lengths[number] = found.lengths.get(number, 0) + 1
                best.offer(number, still.seconds, _worth(still, box_4, crops), partial(_cut, still, box_4, float(score), crops))
    found.failed = stills.failed
    rows = [{"track": number, **crop} for number, crop in best.all()]
    columns = {each.name: pa.array([row[each.name] for row in rows], each.type) for each in CUT}
    return pa.table(columns, schema=CUT.with_metadata({FOUND: found.packed()}))


def _batches(stills: FrameReader, size: int) -> Iterator[list[Still]]:
    frames = iter(stills)
    while some := list(islice(frames, size)):
        yield some


def _high_enough(people: Spotted, min_height: int) -> Spotted:
    high_N = people.box_N4[:, 3] - people.box_N4[:, 1] >= min_height
    return Spotted(people.box_N4[high_N], people.score_N[high_N])


def _worth(still: Still, box_4: np.ndarray, config: CropsConfig) -> float:
    """How good a crop of this box would be: its pixels, or how much its edges differ; a box that the frame cuts counts half."""
    height, width = still.picture_HW3.shape[:2]
    left, top, right, bottom = (float(side) for side in box_4)
    whole = left > 1 and top > 1 and right < width - 1 and bottom < height - 1
    worth = (right - left) * (bottom - top) if config.best_by == "size" else _sharpness(still.picture_HW3, box_4)
    return worth if whole else worth / 2


def _sharpness(picture_HW3: np.ndarray, box_4: Sequence[float] | np.ndarray) -> float:
    """Variance of the Laplacian of the box, at one height whatever its size: how much of its detail is there (Pech-Pacheco, 2000)."""
    left, top, right, bottom = (round(float(side)) for side in box_4)
    grey = Image.fromarray(picture_HW3[top:bottom, left:right]).convert("L")
    wide = max(3, round(grey.width * _SHARP_HEIGHT / grey.height))
    g_HW = np.asarray(grey.resize((wide, _SHARP_HEIGHT), Image.Resampling.BILINEAR), np.float32)
    inner_HW = g_HW[:-2, 1:-1] + g_HW[2:, 1:-1] + g_HW[1:-1, :-2] + g_HW[1:-1, 2:] - 4 * g_HW[1:-1, 1:-1]
    return float(inner_HW.var())


def _cut(still: Still, box_4: np.ndarray, score: float, config: CropsConfig) -> dict[str, Any]:
    height, width = still.picture_HW3.shape[:2]
    left, top, right, bottom = (float(side) for side in box_4)
    aside, above = config.margin * (right - left), config.margin * (bottom - top)
    x0, y0 = max(0, round(left - aside)), max(0, round(top - above))
    x1, y1 = min(width, round(right + aside)), min(height, round(bottom + above))
    crop = Image.fromarray(still.picture_HW3[y0:y1, x0:x1])
    box = [round(left), round(top), round(right), round(bottom)]
    image = encode_jpeg(crop, quality=config.quality)
    return {"frame": still.number, "box": box, "detection": score, "image": image, "width": crop.width, "height": crop.height}
