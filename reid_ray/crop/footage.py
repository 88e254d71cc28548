"""Footage: the videos or folders of frames of a source, each with its camera and the time of its first frame, cut into stretches.

A video is an ordered stream, for a track goes from one frame to the next. So that a day of one camera need not wait for one process,
it is cut into stretches of some minutes; a stretch looks a little beyond its end, and by the boxes that two neighbours both saw their
tracks are joined. Sixty-four cameras need no cut, one camera of a day does, and both keep a cluster busy. Knows names, times
and containers' headers; decodes nothing.
"""

from __future__ import annotations

import posixpath
import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fractions import Fraction
from itertools import groupby
from math import ceil
from zoneinfo import ZoneInfo

from reid_ray.crop.config import FootageConfig
from reid_ray.crop.video_files import NotFootageError, video_header
from reid_ray.data.images import is_image_name
from reid_ray.errors import ConfigError, DataError
from reid_ray.own_columns import camera_numbers
from reid_ray.storage.file_systems import Store, open_file_store, store_at
from reid_ray.storage.regular_files import printable

VIDEO_SUFFIXES = frozenset(
    ".mp4 .m4v .mov .mkv .avi .webm .mpg .mpeg .ts .mts .m2ts .wmv .flv .h264 .h265 .264 .265".split()  # noqa: SIM905 - as people read them
)
_PROBES = 16  # headers read at the same time
_US = 1_000_000
_EPSILON = 1e-6


@dataclass(frozen=True)
class Footage:
    """One camera's stream: a video file, or a folder of frames.

    Args:
        store: where it lies.
        name: the video, or the folder of the frames ("" for the store's own), below the store.
        state: (size, time of change) of the video.
        frames: names of the frames within the folder, in order; empty for a video.
        frame_us: microseconds of each frame since 1970, where its name tells; else empty.
        rate: frames a second; of a video the nominal one.
        seconds: how long it says it is; None: not known.
        camera: its name; None: not known.
        camera_id: its number.
        start_us: microseconds since 1970 of its first frame; None: not known.
    """

    store: Store
    name: str
    state: tuple[int, int] | None = None
    frames: tuple[str, ...] = ()
    frame_us: tuple[int, ...] = ()
    rate: float = 25.0
    seconds: float | None = None
    camera: str | None = None
    camera_id: int | None = None
    start_us: int | None = None

    @property
    def label(self) -> str:
        """How tables call it."""
        return printable(self.name or self.store.root.rpartition("/")[2])

    @property
    def place(self) -> str:
        """Where it lies, as a path or address that stands alone."""
        return self.store.locate(self.name) if self.name else str(self.store)

    def time_us(self, seconds: float) -> int | None:
        """Microseconds since 1970 of what is `seconds` after its first frame; None: not known."""
        return None if self.start_us is None else self.start_us + round(seconds * _US)


@dataclass(frozen=True)
class Stretch:
    """A part of a footage.

    Args:
        footage: what it is of; its frames are those of the stretch alone.
        start: seconds from which it counts.
        stop: seconds before which it counts; None: to the end.
        beyond: seconds before which it looks: a little into the next stretch.
        number: of `count` stretches of the footage.
        first: number of the first of its frames.
    """

    footage: Footage
    start: float
    stop: float | None
    beyond: float | None
    number: int
    count: int
    first: int = 0


def list_footage(config: FootageConfig) -> tuple[list[Footage], list[tuple[str, NotFootageError]]]:
    """Every stream of a source in the order of names, and (name, why) of the videos whose header cannot be read.

    Raises:
        DataError: there is none at all.
        ConfigError: a time names no zone, or is none.
    """
    store, names = _names(config)
    if config.kind == "frames":
        found, bad = [_of_frames(config, store, folder, files) for folder, files in names], []
    else:
        with ThreadPoolExecutor(_PROBES, thread_name_prefix="probe") as pool:
            probed = list(pool.map(lambda name: _probed(config, store, name), [name for name, _ in names]))
        found = [each for each in probed if isinstance(each, Footage)]
        bad = [each for each in probed if not isinstance(each, Footage)]
    numbers = camera_numbers(each.camera for each in found if each.camera is not None)
    return [each if each.camera is None else replace(each, camera_id=numbers[each.camera]) for each in found], bad


def stretches(found: Sequence[Footage], *, seconds: float, overlap: float) -> Iterator[Stretch]:
    """Each footage in stretches of `seconds`, which look `overlap` seconds beyond their end; the last goes to the end of all."""
    for footage in found:
        count = 1 if footage.seconds is None else max(1, round(footage.seconds / seconds))
        for number in range(count):
            start, stop = number * seconds, None if number == count - 1 else (number + 1) * seconds
            beyond = None if stop is None else stop + overlap
            if not footage.frames:
                yield Stretch(footage, start, stop, beyond, number, count)
                continue
            first, last = _place(footage, start), len(footage.frames) if beyond is None else _place(footage, beyond)
            some = replace(footage, frames=footage.frames[first:last], frame_us=footage.frame_us[first:last])
            yield Stretch(some, start, stop, beyond, number, count, first)


def _place(footage: Footage, seconds: float) -> int:
    """The first of a folder's frames that is not before `seconds`."""
    if footage.frame_us:
        return bisect_left(footage.frame_us, footage.frame_us[0] + round(seconds * _US))
    return min(len(footage.frames), ceil(seconds * footage.rate - _EPSILON))


def _names(config: FootageConfig) -> tuple[Store, list[tuple[str, tuple[str, ...]]]]:
    """The store, and (video, ()) or (folder, its frames) of each footage."""
    store = store_at(config.path)
    if config.kind == "videos" and store.is_file():
        store, name = open_file_store(config.path)
        return store, [(name, ())]
    if not store.is_folder():
        raise DataError(f"{store}: does not exist; set footage.path to a {'video or a folder' if config.kind == 'videos' else 'folder'}")
    if config.kind == "videos":
        videos = [name for name in store.walk() if posixpath.splitext(name)[1].lower() in VIDEO_SUFFIXES]
        if not videos:
            raise DataError(
                f"{store}: holds no video ({', '.join(sorted(VIDEO_SUFFIXES))}); check footage.path, or set footage.kind to frames"
            )
        return store, [(name, ()) for name in sorted(videos)]
    pictures = sorted((posixpath.split(name) for name in store.walk() if is_image_name(name)), key=_counted)
    if not pictures:
        raise DataError(f"{store}: holds no picture; check footage.path, or set footage.kind to videos")
    return store, [(folder, tuple(file for _, file in some)) for folder, some in groupby(pictures, key=lambda each: each[0])]


def _counted(place: tuple[str, str]) -> tuple[str, list[tuple[int, str]]]:
    """Frames in the order of the numbers in their names: 2.jpg before 10.jpg."""
    folder, file = place
    return folder, [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", file)]


def _of_frames(config: FootageConfig, store: Store, folder: str, files: tuple[str, ...]) -> Footage:
    camera, _ = _said(config, posixpath.join(folder, files[0]))
    times = [_said(config, posixpath.join(folder, file))[1] for file in files]
    known = [each for each in times if each is not None]
    if len(known) == len(files):
        order = sorted(range(len(files)), key=lambda place: (known[place], files[place]))
        files, known = tuple(files[place] for place in order), [known[place] for place in order]
        seconds = (known[-1] - known[0]) / _US
        return Footage(store, folder, None, files, tuple(known), config.frame_rate, seconds, camera, None, known[0])
    return Footage(
        store, folder, None, files, (), config.frame_rate, len(files) / config.frame_rate, camera, None, _start(config, None, None)
    )


def _probed(config: FootageConfig, store: Store, name: str) -> Footage | tuple[str, NotFootageError]:
    camera, start = _said(config, name)
    footage = Footage(store, name, store.state(name), camera=camera)
    try:
        header = video_header(store, name, max_pixels=config.max_pixels)
    except NotFootageError as error:
        return printable(name), error
    return replace(footage, rate=header.rate, seconds=header.seconds, start_us=_start(config, start, header.created))


def _start(config: FootageConfig, said: int | None, created: str | None) -> int | None:
    if config.start is not None:
        return _microseconds(datetime.fromisoformat(config.start), config, config.start)
    if said is not None or created is None or not config.creation_time:
        return said
    try:
        at = datetime.fromisoformat(created)
    except ValueError:
        return None
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return _microseconds(at, config, created) if at.year > 1970 else None  # cameras without a clock write the epoch, or that of 1904


def _said(config: FootageConfig, name: str) -> tuple[str | None, int | None]:
    """(camera, microseconds since 1970) that a name tells, or that hold for all; None: not known."""
    match = None if config.pattern is None else re.search(config.pattern, name)
    groups = {} if match is None else match.groupdict()
    text, camera = groups.get("time"), groups.get("camera") or config.camera
    if text is None:
        return camera, None
    try:
        at = datetime.fromisoformat(text) if config.time_format is None else datetime.strptime(text, config.time_format)
    except ValueError:
        raise ConfigError(
            f"footage.pattern: finds the time {text!r} in {printable(name)}, which is not as {config.time_format or 'ISO 8601'} has it; "
            "set footage.time_format"
        ) from None
    return camera, _microseconds(at, config, text)


def _microseconds(at: datetime, config: FootageConfig, text: str) -> int:
    if at.tzinfo is None:
        if config.time_zone is None:
            raise ConfigError(f"footage.time_zone: {text!r} names no time zone; give the one of the camera's clock, such as Europe/Vienna")
        at = at.replace(tzinfo=ZoneInfo(config.time_zone))
    since = at.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return int(Fraction(since.days * 86_400 + since.seconds) * _US) + since.microseconds
