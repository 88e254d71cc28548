"""Video files: opened by PyAV, which brings its own FFmpeg, and what their headers say. Knows containers; decodes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from reid_ray.errors import reason_of
from reid_ray.storage.file_systems import Store


class NotFootageError(Exception):
    """A video that cannot be used; `reason` is a short code to count by."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}")


@dataclass(frozen=True)
class Header:
    """What a video's container says: frames a second, seconds (None: not known), when it was made (None: not said)."""

    rate: float
    seconds: float | None
    created: str | None


def video_header(store: Store, name: str, *, max_pixels: int) -> Header:
    """What a video says of itself, without decoding a frame.

    Raises:
        NotFootageError: reason is unreadable_file, not_a_video, no_video_stream or too_many_pixels.
    """
    with opened(store, name) as container:
        stream = video_stream(container, max_pixels)
        rate = float(stream.average_rate or stream.guessed_rate or 25)
        seconds = None
        if stream.duration is not None:
            seconds = float(stream.duration * stream.time_base)
        elif container.duration is not None:
            seconds = container.duration / 1e6
        created = stream.metadata.get("creation_time") or container.metadata.get("creation_time")
        return Header(rate, seconds, created)


def opened(store: Store, name: str) -> Any:
    """A video file, open for reading; whoever opens it closes it.

    Raises:
        NotFootageError: reason is unreadable_file or not_a_video.
    """
    import av

    try:
        local = store.local_path(name)
        return av.open(str(local) if local is not None else store.open(name))
    except av.error.InvalidDataError as error:
        raise NotFootageError("not_a_video", reason_of(error)) from None
    except (OSError, ValueError) as error:
        raise NotFootageError("unreadable_file", reason_of(error)) from None


def video_stream(container: Any, max_pixels: int) -> Any:
    """The first stream of pictures in an open file.

    Raises:
        NotFootageError: reason is no_video_stream or too_many_pixels.
    """
    if not container.streams.video:
        raise NotFootageError("no_video_stream", "the container holds no pictures")
    stream = container.streams.video[0]
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > max_pixels:
        raise NotFootageError("too_many_pixels", f"the header claims {width} x {height} pixels, more than {max_pixels}")
    return stream
