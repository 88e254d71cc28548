"""The tables of the crop job: each track's crops as rows of IMAGES with columns of their own, what could not be used in failures/.

Knows tables and counts; not pictures. A track of too few boxes is none, and is counted.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from reid_ray.crop.config import CropJob
from reid_ray.crop.footage import Footage
from reid_ray.crop.seams import JoinedTrack
from reid_ray.crop.stretch_work import StretchAccount
from reid_ray.data.failures import FAILURES
from reid_ray.own_columns import MADE, with_own
from reid_ray.records import IMAGES, table_of
from reid_ray.storage import JobOutput, TableWriter, sha256_of
from reid_ray.storage.regular_files import printable

CROPS = with_own(IMAGES, MADE)
_ROWS = 512
_SHOWN = 3
Row = dict[str, Any]


class CropTables:
    """images/ and failures/ of an output, written as tracks come; a context manager."""

    def __init__(self, output: JobOutput, config: CropJob) -> None:
        self._output, self._config = output, config
        self._dataset = printable(config.footage.path.partition("?")[0].rstrip("/").rpartition("/")[2])
        self._images = TableWriter(output.folder / "images", CROPS)
        self._failures = TableWriter(output.folder / "failures", FAILURES)
        self._rows: list[Row] = []
        self._bytes = 0
        self._boxes: Counter[str] = Counter()
        self._tracks: Counter[str] = Counter()
        self._footage: Counter[str] = Counter()
        self._cameras: Counter[str] = Counter()
        self._seen = ""
        self._told: set[tuple[str, str]] = set()
        self._first_failed: list[str] = []

    def __enter__(self) -> CropTables:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._flush(part=True)
            self._images.__exit__(None, None, None)
            self._failures.__exit__(None, None, None)

    def fail(self, name: str, reason: str, detail: str) -> None:
        """Count a video or frame that cannot be used, or not to its end; once, however many stretches met it."""
        if (name, reason) in self._told:
            return
        self._told.add((name, reason))
        self._output.counts.read += 1
        self._output.counts.unused[reason] += 1
        if len(self._first_failed) < _SHOWN:
            self._first_failed.append(f"{name} ({reason})")
        row = {"image_id": name, "reason": reason, "detail": printable(detail), "dataset": self._dataset}
        self._failures.append(table_of(FAILURES, [row]))

    def add_found(self, footage: Footage, found: StretchAccount) -> None:
        """Count what a stretch saw."""
        if footage.label != self._seen:
            self._seen, self._told = footage.label, set()
            self._footage.update(videos=1, camera_unknown=footage.camera is None, time_unknown=footage.start_us is None)
        self._footage["frames"] += found.frames
        self._boxes.update(found=found.boxes, too_low=found.low)
        for name, reason, detail in found.failed:
            self.fail(name, reason, detail)

    def add_track(self, footage: Footage, track: JoinedTrack) -> None:
        """Write the crops of a track, if it has enough boxes."""
        if track.length < self._config.tracker.min_boxes:
            self._tracks["too_short"] += 1
            self._boxes["of_short_tracks"] += track.length
            return
        self._tracks["kept"] += 1
        self._boxes["of_tracks"] += track.length
        self._cameras[footage.camera or "unknown"] += len(track.rows)
        for crop in track.rows:
            self._rows.append(self._row(footage, track, crop))
            self._bytes += len(crop["image"])
        self._output.counts.read += len(track.rows)
        self._output.counts.written += len(track.rows)
        if len(self._rows) >= _ROWS:
            self._flush(part=self._bytes >= self._config.part_mb << 20)

    def report(self) -> None:
        """Put the facts into the job's output."""
        facts = {"footage": self._footage, "boxes": self._boxes, "tracks": self._tracks, "crops_of_camera": self._cameras}
        self._output.facts.update({name: dict(sorted(counts.items())) for name, counts in facts.items()})
        self._output.facts["tracks"].setdefault("kept", 0)

    def failed_in_words(self) -> str | None:
        """The first videos and frames that cannot be used, or not to their end, and how many more there are; None if there is none."""
        more = sum(self._output.counts.unused.values()) - len(self._first_failed)
        names = ", ".join(self._first_failed) + (f" and {more:,} more" if more else "")
        return f"not used, or not to the end: {names}" if names else None

    def _row(self, footage: Footage, track: JoinedTrack, crop: Row) -> Row:
        left, top, right, bottom = crop["box"]
        return {
            "image_id": f"{footage.label}/{track.number:06d}_{crop['frame']:08d}.jpg",
            "image": crop["image"],
            "image_sha256": sha256_of(crop["image"]),
            "width": crop["width"],
            "height": crop["height"],
            "dataset": self._dataset,
            "camera_id": footage.camera_id,
            "camera": footage.camera and printable(footage.camera),
            "time": footage.time_us(crop["seconds"]),
            "track": f"{footage.label}#{track.number}",
            "frame": crop["frame"],
            "video": footage.label,
            "left": left,
            "top": top,
            "right": right,
            "bottom": bottom,
            "detection": crop["detection"],
        }

    def _flush(self, *, part: bool) -> None:
        if self._rows:
            self._images.append(table_of(CROPS, self._rows))
            self._rows = []
        if part and self._bytes:
            self._images.flush()
            self._bytes = 0
