"""The detector of a configuration: OpenCV's, or a model's. Knows which; not how they look."""

from __future__ import annotations

from reid_ray.crop.config import DetectorConfig
from reid_ray.crop.detection_models import ModelDetector
from reid_ray.crop.hog import HogDetector
from reid_ray.crop.spotted import PersonDetector


def open_detector(config: DetectorConfig, *, min_height: int, device: str = "cpu") -> PersonDetector:
    """The detector of a configuration, loaded.

    Args:
        config: which.
        min_height: the lowest person wanted, pixels.
        device: of a model.

    Raises:
        ConfigError, DataError: there is no such model, it is for another task, or has no such label.
        ResourceError: OpenCV is not installed, or a version without the detector.
    """
    if config.kind == "hog":
        return HogDetector(config, min_height=min_height)
    return ModelDetector.open(config, device=device)
