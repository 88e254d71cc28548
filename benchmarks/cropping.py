"""Recall, precision, identity switches and speed of the crop job beside plain OpenCV, on a street video whose people were drawn by hand.

    python benchmarks/cropping.py --out benchmarks/results/cropping-DATE.json --video vtest.avi [--quick]

The video is vtest.avi of OpenCV's samples (in Debian's package opencv-doc, below /usr/share/doc/opencv-doc/examples/data); it is no part
of this repository, its boxes are: benchmarks/street_boxes.json says how they were drawn, before any detector was tried. A found box is
right if it shares half with a true one (intersection over union), each true one once. Plain OpenCV is cv2.VideoCapture and
HOGDescriptor.detectMultiScale on each frame: with all defaults; with each box trimmed as OpenCV's own sample peopledetect.py does; and
on frames enlarged as the job enlarges them. The job's parameters were chosen on frames 60 to 170; the others are held out. A switch is a
person whose track is another one than on the drawn frame before on which it was found. Speed: what an actor does with a stretch (decode,
detect, follow, cut, encode) beside a plain loop with the same parameters and with the defaults, turn by turn, one thread each, by CPU
time, which other programs on the machine disturb less than the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.harness import Report, run_benchmark, time_turns
from reid_ray.crop.config import CropJob
from reid_ray.crop.detectors import open_detector
from reid_ray.crop.footage import Stretch, list_footage
from reid_ray.crop.spotted import PersonDetector, Spotted, overlaps
from reid_ray.crop.stretch_work import work_on

_TRUTH = Path(__file__).with_name("street_boxes.json")
_DRAWN = ((5.0, 17.6), (32.0, 44.6), (59.0, 71.6))  # seconds of the video that are looked at, around the drawn frames
_TUNED = 170  # the last frame on which parameters were chosen
_GOAL = 0.9
Found = Mapping[int, tuple[np.ndarray, Sequence[int]]]  # frame -> boxes [N, 4], and the track of each


class Remembering:
    """A detector that looks at each picture once."""

    def __init__(self, detector: PersonDetector) -> None:
        self._detector, self._known = detector, dict[bytes, Spotted]()
        self.name, self.revision = detector.name, detector.revision

    def people(self, pictures: Sequence[np.ndarray]) -> list[Spotted]:
        """As the detector."""
        found = []
        for picture in pictures:
            key = picture.tobytes()[::101]
            if key not in self._known:
                (self._known[key],) = self._detector.people([picture])
            found.append(self._known[key])
        return found


def run(report: Report, quick: bool, video: str) -> None:
    truth = {int(frame): boxes for frame, boxes in json.loads(_TRUTH.read_text(encoding="utf-8"))["frames"].items()}
    if quick:
        truth = {frame: boxes for frame, boxes in truth.items() if frame <= _TUNED}
    plain = _plain(video, sorted(truth))
    scores = {name: _score(report, f"plain OpenCV, {name}", found, truth) for name, found in plain.items()}
    config = CropJob.model_validate(
        {"footage": {"path": video}, "crops": {"per_track": None, "min_height": 64, "margin": 0}, "output": {"path": "unused"}}
    )
    detector = Remembering(open_detector(config.detector, min_height=config.crops.min_height))
    for tracker in ("iou", "bytetrack"):
        followed = config.model_copy(update={"tracker": config.tracker.model_copy(update={"kind": tracker})})
        found = _job(followed, detector, [each for each in _DRAWN if each[0] * 10 < max(truth)])
        scores[tracker] = _score(report, f"the job, {tracker}", found, truth)
    for what, mine in scores["iou"].items():
        for name in plain:
            report.claim(f"{what} of the job beside plain OpenCV, {name}", mine - scores[name][what], ">=", 0)
    _speed(report, video, config, seconds=2.0 if quick else 6.0, repeats=2)


def _plain(video: str, frames: Sequence[int]) -> dict[str, Found]:
    import cv2

    cv2.setNumThreads(1)
    hog = _plain_hog()
    found: dict[str, dict[int, tuple[np.ndarray, Sequence[int]]]] = {
        name: {} for name in ("defaults", "trimmed", "enlarged", "enlarged and trimmed")
    }
    capture = cv2.VideoCapture(video)
    for number in range(max(frames) + 1):
        good, picture = capture.read()
        if not good or number not in frames:
            continue
        for name, enlarged in (("defaults", 1.0), ("enlarged", 1.5)):
            shown = picture if enlarged == 1 else cv2.resize(picture, None, fx=enlarged, fy=enlarged)
            boxes, _ = hog.detectMultiScale(shown)
            window_N4 = np.asarray(boxes, np.float32).reshape(-1, 4) / enlarged
            for trimmed in (False, True):
                aside, above = (0.15, 0.05) if trimmed else (0.0, 0.0)  # peopledetect.py
                left, top, wide, high = window_N4.T
                box_N4 = np.stack([left + aside * wide, top + above * high, left + (1 - aside) * wide, top + (1 - above) * high], axis=1)
                key = name if not trimmed else "trimmed" if name == "defaults" else "enlarged and trimmed"
                found[key][number] = (box_N4, [-1] * len(box_N4))
    return dict(found)


def _plain_hog() -> Any:
    import cv2

    hog = cv2.HOGDescriptor()
    hog.setSVMDetector(cv2.HOGDescriptor_getDefaultPeopleDetector())
    return hog


def _job(config: CropJob, detector: PersonDetector, spans: Sequence[tuple[float, float]]) -> Found:
    """What the job would keep of these spans of seconds, were it to keep every box of every track."""
    found: dict[int, list[dict[str, Any]]] = {}
    for number, (start, stop) in enumerate(spans):
        rows = work_on(_stretch(config, start, stop), config, detector, overlap=0.0).to_pylist()
        lengths: dict[int, int] = {}
        for row in rows:
            lengths[row["track"]] = lengths.get(row["track"], 0) + 1
        for row in rows:
            if lengths[row["track"]] >= config.tracker.min_boxes:
                found.setdefault(row["frame"], []).append({**row, "track": 100_000 * number + row["track"]})
    return {frame: (np.array([row["box"] for row in some], np.float32), [row["track"] for row in some]) for frame, some in found.items()}


def _stretch(config: CropJob, start: float, stop: float) -> Stretch:
    (footage,), _ = list_footage(config.footage)
    return Stretch(footage, start, stop, stop, 0, 2)


def _score(report: Report, what: str, found: Found, truth: Mapping[int, Mapping[str, Sequence[int]]]) -> dict[str, float]:
    """Add a row for the tuned frames, for the held out ones and for all; returns recall and precision of the held out ones, if any."""
    result: dict[str, float] = {}
    for name, frames in {
        "60 to 170, tuned": [frame for frame in truth if frame <= _TUNED],
        "all": list(truth),
        "330 to 710, held out": [frame for frame in truth if frame > _TUNED],
    }.items():
        if not frames:
            continue
        right = boxes = people = switches = 0
        last: dict[str, int] = {}
        for frame in sorted(frames):
            box_N4, tracks = found.get(frame, (np.zeros((0, 4), np.float32), []))
            names = list(truth[frame])
            shared = overlaps(box_N4, np.array([truth[frame][each] for each in names], np.float32))
            people, boxes = people + len(names), boxes + len(box_N4)
            for box, person in _pairs(shared):
                right += 1
                track = tracks[box]
                switches += track >= 0 and last.get(names[person], track) != track
                last[names[person]] = track
        result = {"recall": right / people, "precision": right / max(1, boxes)}
        followed = {"switches": switches, "people_followed": len(last)} if any(each >= 0 for each in last.values()) else {}
        rounded = {key: round(value, 4) for key, value in result.items()}
        report.row(what=what, frames=name, people=people, boxes=boxes, right=right, **rounded, **followed)
    return result


def _pairs(shared_NM: np.ndarray) -> list[tuple[int, int]]:
    """Boxes and true boxes that share half at least, as many as can be, each once."""
    from scipy.optimize import linear_sum_assignment

    pairs = zip(*linear_sum_assignment(np.where(shared_NM >= 0.5, 1 + shared_NM, 0), maximize=True), strict=True)
    return [(int(box), int(person)) for box, person in pairs if shared_NM[box, person] >= 0.5]


def _speed(report: Report, video: str, config: CropJob, *, seconds: float, repeats: int) -> None:
    import cv2

    detector = open_detector(config.detector, min_height=config.crops.min_height)
    usual = config.model_copy(update={"crops": config.crops.model_copy(update={"per_track": 4, "margin": 0.05})})
    job = partial(work_on, _stretch(config, 0.0, seconds), usual, detector, overlap=3.0)

    def loop(look: Callable[[Any], Any]) -> None:
        capture = cv2.VideoCapture(video)
        for number in range(round(seconds * 10)):
            _, picture = capture.read()
            if number % 2 == 0:  # five of the ten frames of a second, as the job
                look(picture)

    hog = _plain_hog()

    def same(picture: Any) -> Any:
        shown = cv2.resize(picture, None, fx=1.5, fy=1.5)
        return hog.detectMultiScale(shown, hitThreshold=0.3, winStride=(8, 8), padding=(16, 16), scale=1.12)

    runs: dict[str, Callable[[], Any]] = {
        "the job": job,
        "plain loop, the job's parameters": lambda: loop(same),
        "plain loop, defaults": lambda: loop(hog.detectMultiScale),
    }
    times = time_turns(runs, repeats=repeats)
    frames = round(seconds * 10) // 2
    for what, timing in times.items():
        report.row(what=what, looked_at=frames, frames_a_cpu_second=round(frames / timing.best_cpu_s, 2), **timing.row())
    for name in list(runs)[1:]:
        report.claim(f"frames a CPU second of the job beside the {name}", times[name].best_cpu_s / times["the job"].best_cpu_s, ">=", _GOAL)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--video")
    known, rest = parser.parse_known_args()
    if known.video is None and "--help" not in rest and "-h" not in rest:
        print("cropping.py needs --video vtest.avi (Debian: apt-get download opencv-doc; dpkg -x); nothing is measured")
        sys.exit(0 if "--quick" in rest else 2)
    sys.exit(run_benchmark(__doc__ or "", lambda report, quick: run(report, quick, known.video), rest))
