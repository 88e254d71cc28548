"""People on frames by OpenCV's HOG detector, which needs neither weights nor a GPU.

Knows pictures and boxes; not time, tracks or tables. The HOG detector (Dalal and Triggs, 2005; the weights are OpenCV's) looks
through a window of 64 x 128 pixels in which the person is 96 high: a frame is enlarged so that the lowest person wanted is so high, and
what it finds is cut to the person.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from reid_ray.crop.config import DetectorConfig
from reid_ray.crop.spotted import Spotted, best_boxes
from reid_ray.errors import ResourceError

HOG_MODEL = "opencv-hog"
_PERSON_OF_WINDOW = 96  # pixels of the window's 128, as the detector was taught
_SIDE, _TOP = 0.25, 0.125  # share of a window beside, and above and below the person: the 16 pixels of margin with which it was taught
_STEP = 1.12  # from one size of person to the next; chosen on frames 60 to 170 of benchmarks/street_boxes.json
_MOST_ENLARGED = 3.0


def require_hog() -> Any:
    """OpenCV with its HOG detector.

    Raises:
        ResourceError: it is not there.
    """
    try:
        import cv2
    except ImportError:
        raise ResourceError("detector.kind: hog needs OpenCV; install the extra video, or opencv-python-headless below 5") from None
    if not hasattr(cv2, "HOGDescriptor"):
        raise ResourceError(
            f"detector.kind: OpenCV {cv2.__version__} has no HOG detector any more; install opencv-python-headless below 5, or set kind to "
            "transformers"
        )
    return cv2


class HogDetector:
    """OpenCV's HOG detector with the people's weights that come with it."""

    name = HOG_MODEL

    def __init__(self, config: DetectorConfig, *, min_height: int) -> None:
        self._cv2 = require_hog()
        self._cv2.setNumThreads(1)  # several actors share the cores
        self.revision: str | None = self._cv2.__version__
        self._threshold, self._max_overlap = config.threshold, config.most_shared
        self._enlarged = min(_MOST_ENLARGED, max(1.0, _PERSON_OF_WINDOW / min_height))
        self._hog = self._cv2.HOGDescriptor()
        self._hog.setSVMDetector(self._cv2.HOGDescriptor_getDefaultPeopleDetector())

    def people(self, pictures: Sequence[np.ndarray]) -> list[Spotted]:
        """As PersonDetector."""
        return [self._on(picture) for picture in pictures]

    def _on(self, picture_HW3: np.ndarray) -> Spotted:
        height, width = picture_HW3.shape[:2]
        size = (round(width * self._enlarged), round(height * self._enlarged))
        shown = picture_HW3 if size == (width, height) else self._cv2.resize(picture_HW3, size, interpolation=self._cv2.INTER_LINEAR)
        found, scores = self._hog.detectMultiScale(
            np.ascontiguousarray(shown), hitThreshold=self._threshold, winStride=(8, 8), padding=(16, 16), scale=_STEP, groupThreshold=0
        )
        window_N4 = np.asarray(found, np.float32).reshape(-1, 4) / self._enlarged
        left_N, top_N, wide_N, high_N = window_N4.T
        box_N4 = np.stack(
            [left_N + _SIDE * wide_N, top_N + _TOP * high_N, left_N + (1 - _SIDE) * wide_N, top_N + (1 - _TOP) * high_N], axis=1
        )
        return best_boxes(box_N4, np.asarray(scores, np.float32).reshape(-1), (width, height), self._max_overlap)
