"""Configuration of the crop job: videos or folders of frames in, crops of people as an IMAGES table out."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator, model_validator

from reid_ray.config.base import Section
from reid_ray.config.common import OptionalRayConfig, OutputConfig, PoolConfig
from reid_ray.config.paths import PathOrAddress, PathOrName

_GROUPS = {"camera", "time"}
FRAME_RATE = 25.0
PERSON = "person"


class FootageConfig(Section):
    """Where the pictures come from, which camera took them, and when."""

    path: PathOrAddress = Field(description="a video file, or a folder of them, or of folders of frames; or an address (s3://, gs://, ...)")
    kind: Literal["videos", "frames"] = Field(
        "videos", description="videos: files that PyAV decodes; frames: each folder that holds pictures is one camera's, in order of names"
    )
    frame_rate: float = Field(FRAME_RATE, gt=0, description="frames only: pictures a second, where their names do not tell the time")
    pattern: str | None = Field(
        None,
        description="regular expression, searched in the path below `path`, with groups camera and time (one or both): of a video, or of a "
        "frame; time is that of a video's first frame, or of each frame",
    )
    time_format: str | None = Field(
        None, description="of the pattern's time, as Python's strptime has it, such as %Y%m%d_%H%M%S; null takes ISO 8601"
    )
    camera: str | None = Field(None, min_length=1, description="name of the one camera that took everything; or give a pattern, or neither")
    start: str | None = Field(
        None, description="ISO 8601 time of the first frame, of every video; null takes the pattern's, else the container's creation_time"
    )
    creation_time: bool = Field(True, description="believe the container's creation_time, where there is no other start")
    time_zone: str | None = Field(None, description="of times that name none, such as Europe/Vienna or UTC")
    max_pixels: int = Field(50_000_000, ge=1, description="a frame whose header claims more is not decoded")

    @field_validator("time_zone")
    @classmethod
    def _is_a_zone(cls, name: str | None) -> str | None:
        try:
            return name if name is None else ZoneInfo(name).key
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("is no time zone of the IANA database; give a name such as Europe/Vienna or UTC") from None

    @model_validator(mode="after")
    def _pattern_and_times_are_clear(self) -> Self:
        groups: set[str] = set()
        if self.pattern is not None:
            try:
                groups = set(re.compile(self.pattern).groupindex)
            except re.error as error:
                raise ValueError(f"pattern is no regular expression: {error}") from None
            if not groups or groups - _GROUPS:
                raise ValueError(f"pattern must name the groups camera and time, or one of them; it names {sorted(groups)}")
        if self.camera is not None and "camera" in groups:
            raise ValueError("camera names one camera, and pattern has a group camera; drop one of them")
        if self.start is not None and "time" in groups:
            raise ValueError("start is one time for all, and pattern has a group time; drop one of them")
        if self.time_format is not None and "time" not in groups:
            raise ValueError("time_format is for the pattern's group time, and there is none; drop it, or add the group")
        if self.kind == "videos" and self.frame_rate != FRAME_RATE:
            raise ValueError("frame_rate is for frames, and a video knows its own; drop it")
        if self.start is not None:
            try:
                at = datetime.fromisoformat(self.start)
            except ValueError:
                raise ValueError(f"start is {self.start!r}, no time as in 2026-05-01T08:00:00+02:00") from None
            if at.tzinfo is None and self.time_zone is None:
                raise ValueError("start names no time zone; write it, as in 2026-05-01T08:00:00+02:00, or give time_zone")
        return self


class DetectorConfig(Section):
    """What finds people on a frame."""

    kind: Literal["hog", "transformers"] = Field(
        "hog",
        description="hog: OpenCV's pedestrian detector, which needs no weights and no GPU; transformers: a model for object detection "
        "(RT-DETR, D-FINE, DETR, YOLOS, ...)",
    )
    model: PathOrName | None = Field(
        None, description="transformers only: folder or hub name, such as PekingU/rtdetr_r18vd or ustc-community/dfine-small-coco"
    )
    revision: str | None = Field(None, description="commit or tag of a hub model; null takes its main branch")
    label: str = Field(PERSON, min_length=1, description="transformers only: the model's class that is cut out")
    min_score: float | None = Field(
        None,
        description="boxes below it are none: of hog a distance from its border (null takes 0.3), of a model a probability (null: 0.5)",
    )
    max_overlap: float | None = Field(
        None,
        gt=0,
        le=1,
        description="of two boxes that share more (intersection over union) the better one counts; null takes 0.3 of hog, else 0.7",
    )

    @model_validator(mode="after")
    def _model_goes_with_kind(self) -> Self:
        if (self.kind == "transformers") != (self.model is not None):
            raise ValueError("model is for kind transformers, which needs it; give both, or neither")
        if self.kind == "hog" and (self.label != PERSON or self.revision is not None):
            raise ValueError("label and revision are for kind transformers; drop them")
        return self

    @property
    def most_shared(self) -> float:
        """The overlap that is borne."""
        return self.max_overlap if self.max_overlap is not None else 0.3 if self.kind == "hog" else 0.7

    @property
    def threshold(self) -> float:
        """The score that counts."""
        return self.min_score if self.min_score is not None else 0.3 if self.kind == "hog" else 0.5


class TrackerConfig(Section):
    """What tells which boxes of following frames are one person's."""

    kind: Literal["iou", "bytetrack"] = Field(
        "iou", description="iou: boxes that overlap where the track would be by now; bytetrack: ByteTrack of the package trackers"
    )
    min_overlap: float = Field(0.2, gt=0, le=1, description="intersection over union of a track's next box with where it is expected")
    patience_s: float = Field(1.5, ge=0, description="a person who is not seen for longer is another track, seconds")
    min_boxes: int = Field(3, ge=1, description="a track of fewer boxes is none: most of them are no person")


class CropsConfig(Section):
    """Which crops of a track are kept, and how they are cut."""

    per_track: int | None = Field(4, ge=1, description="the best crops of a track; null keeps all")
    best_by: Literal["size", "sharpness"] = Field("size", description="what makes a crop better: pixels, or how sharp its edges are")
    span_s: float = Field(0.5, ge=0, description="a track keeps at most one crop of each span of so many seconds")
    margin: float = Field(0.05, ge=0, le=1, description="of a box's width and height that is cut out on each side beyond it")
    min_height: int = Field(64, ge=8, description="a lower box is left out, pixels; hog enlarges frames so that it finds people so low")
    quality: int = Field(90, ge=1, le=95, description="of the JPEG files")


class CropJob(Section):
    """Cut people out of videos or frames, with camera, time, box and track."""

    footage: FootageConfig
    frames_per_second: float | None = Field(5.0, gt=0, description="frames looked at; null looks at all")
    detector: DetectorConfig = DetectorConfig()
    tracker: TrackerConfig = TrackerConfig()
    crops: CropsConfig = CropsConfig()
    stretch_s: float = Field(
        600.0,
        ge=10,
        description="a longer video is cut into stretches of so many seconds, which are worked on side by side; tracks go on across a cut",
    )
    pool: PoolConfig = Field(
        PoolConfig(batch_size=8), description="actors that decode, detect and track; batch_size: frames a model sees at once"
    )
    part_mb: int = Field(64, ge=1, le=1024, description="image bytes per Parquet part, MiB: bounds memory here and in every later reader")
    output: OutputConfig
    ray: OptionalRayConfig = OptionalRayConfig()
