"""FrameReader: the frames of a stretch at so many a second, decoded by PyAV, or read from a folder, with their number and second.

Knows containers, codecs and clocks; not what a frame shows. Which frames are taken depends on their times alone, so that two stretches
that overlap take the same ones. What is damaged is left out, and counted; a video that breaks off gives what it has.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from reid_ray.crop.footage import Stretch
from reid_ray.crop.video_files import NotFootageError, opened, video_stream
from reid_ray.data.images import BadImageError, decode_image
from reid_ray.errors import reason_of
from reid_ray.storage.regular_files import printable

_EPSILON = 1e-6
_MISSING_S = 2.0  # that a video may end before its header says


@dataclass(frozen=True)
class Still:
    """A frame: its number in the footage (of a video with frames of uneven length: nominal), its second, and uint8 RGB [H, W, 3]."""

    number: int
    seconds: float
    picture_HW3: np.ndarray


class FrameReader:
    """The frames of a stretch, to be gone through once; `failed` then holds (name, reason, detail) of what could not be used.

    Args:
        stretch: which part of which footage.
        rate: frames a second that are taken; None takes all.
        max_pixels: a larger frame is not decoded.
        threads: of the decoder.
    """

    def __init__(self, stretch: Stretch, *, rate: float | None, max_pixels: int, threads: int = 1) -> None:
        self.failed: list[tuple[str, str, str]] = []
        self._stretch, self._rate, self._max_pixels, self._threads = stretch, rate, max_pixels, threads

    def __iter__(self) -> Iterator[Still]:
        return self._of_folder() if self._stretch.footage.frames else self._of_video()

    def _damaged(self, name: str, reason: str, detail: str) -> None:
        self.failed.append((name, reason, detail))

    def _due(self, seconds: float) -> float:
        """When the frame after one at `seconds` is due."""
        return seconds + _EPSILON if self._rate is None else (int(seconds * self._rate + _EPSILON) + 1) / self._rate

    def _of_folder(self) -> Iterator[Still]:
        stretch, footage, due = self._stretch, self._stretch.footage, self._stretch.start
        for place, file in enumerate(footage.frames):
            number, name = stretch.first + place, posixpath.join(footage.name, file)
            seconds = (footage.frame_us[place] - (footage.start_us or 0)) / 1e6 if footage.frame_us else number / footage.rate
            if seconds < due - _EPSILON:
                continue
            due = self._due(seconds)
            try:
                picture = decode_image(footage.store.read_bytes(name), max_pixels=self._max_pixels)
            except BadImageError as error:
                self._damaged(printable(name), error.reason, error.detail)
            except OSError as error:
                self._damaged(printable(name), "unreadable_file", reason_of(error))
            else:
                yield Still(number, seconds, np.asarray(picture))

    def _of_video(self) -> Iterator[Still]:
        stretch, footage = self._stretch, self._stretch.footage
        damaged: Counter[str] = Counter()
        last = -1.0
        due = stretch.start
        try:
            for seconds, frame in self._decoded(damaged):
                last = max(last, seconds)
                if stretch.beyond is not None and seconds >= stretch.beyond - _EPSILON:
                    break
                if seconds < due - _EPSILON:
                    continue
                due = self._due(seconds)
                yield Still(round(seconds * footage.rate), seconds, frame.to_ndarray(format="rgb24"))
        except NotFootageError as error:
            self._damaged(footage.label, error.reason, error.detail)
        if damaged:
            why, count = damaged.most_common(1)[0]
            self._damaged(footage.label, "damaged_video", f"{damaged.total()} packets cannot be decoded, {count} of them: {why}")
        if stretch.beyond is None and footage.seconds is not None and last < footage.seconds - _MISSING_S:
            detail = f"its header says {footage.seconds:.0f} seconds, and the last frame is of {max(last, stretch.start):.0f}"
            self._damaged(footage.label, "video_breaks_off", detail)

    def _decoded(self, damaged: Counter[str]) -> Iterator[tuple[float, Any]]:
        """(seconds, frame) from the stretch's start, or a little before it, on."""
        if self._stretch.start > 0:
            early = self._from(self._stretch.start, damaged)
            first = next(early, None)
            # Some containers lead beyond the place that is sought; then all is decoded that stands before it.
            if first is not None and first[0] <= self._stretch.start + _EPSILON:
                yield first
                yield from early
                return
        yield from self._from(0.0, damaged)

    def _from(self, start: float, damaged: Counter[str]) -> Iterator[tuple[float, Any]]:
        import av

        with opened(self._stretch.footage.store, self._stretch.footage.name) as container:
            stream = video_stream(container, self._max_pixels)
            stream.codec_context.thread_count = self._threads
            if start > 0:
                origin = stream.start_time or 0
                try:
                    container.seek(origin + int(start / stream.time_base), stream=stream)
                except av.error.FFmpegError:
                    return
            last = -1.0
            origin_s = float((stream.start_time or 0) * stream.time_base)
            for counted, frame in enumerate(_frames(container, stream, damaged)):
                seconds = counted / self._stretch.footage.rate if frame.pts is None else float(frame.pts * frame.time_base) - origin_s
                if seconds > last:  # a clock that goes back would shuffle the tracks
                    last = seconds
                    yield seconds, frame


def _frames(container: Any, stream: Any, damaged: Counter[str]) -> Iterator[Any]:
    """Frames of a stream; a packet that cannot be decoded is counted, and the next one tried."""
    import av

    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.error.FFmpegError as error:
            damaged[reason_of(error)] += 1
            return
        try:
            yield from packet.decode()
        except av.error.EOFError:
            return
        except av.error.FFmpegError as error:
            damaged[reason_of(error)] += 1
