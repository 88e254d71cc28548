"""Pictures of questions, decoded beside the searches in a few threads: small ones at once, large ones one after the other.

What a search does with a picture costs milliseconds; what a file of a few kilobytes may make a decoder do costs seconds and hundreds of
megabytes. So no picture is decoded where searches run, none is handed on larger than `keep_pixels`, and large ones wait for each other
alone. Memory beyond the files: WHOLE_BYTES for the one large picture, and 16 bytes a pixel of keep_pixels for each thread: with the
defaults 384 MiB at most. Knows files and pixels; not encoders, galleries or who asks.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from PIL import Image

from reid_ray.data.images import DEFAULT_MAX_PIXELS, BadImageError, decode_shrunk, open_checked

KEEP_PIXELS: Final = 4_000_000
WHOLE_BYTES: Final = 256 << 20  # what a decoder may take for one picture
_THREADS: Final = 2
_WAITING: Final = 16
# Bytes a pixel that decoding takes until the picture is shrunk, measured with Pillow 13 on 50 MP. A baseline JPEG is shrunk on the way; of
# a progressive one all coefficients are kept.
_BYTES_A_PIXEL: Final = {"JPEG": 2, "WEBP": 16}
_OF_PROGRESSIVE: Final = 7
_OF_OTHERS: Final = 6


class TooManyPicturesError(Exception):
    """Too many large pictures wait to be decoded; ask again later."""


class QueryPictures:
    """Decodes pictures of questions; threads may share it.

    Args:
        max_pixels: a picture whose header claims more is refused.
        keep_pixels: larger ones are shrunk to it, and take turns.
        waiting: large pictures that may wait; beyond them TooManyPicturesError.
    """

    def __init__(self, *, max_pixels: int = DEFAULT_MAX_PIXELS, keep_pixels: int = KEEP_PIXELS, waiting: int = _WAITING) -> None:
        self._max_pixels, self._keep_pixels, self._waiting = max_pixels, keep_pixels, waiting
        self._small = ThreadPoolExecutor(_THREADS, thread_name_prefix="query-picture")
        self._large = ThreadPoolExecutor(1, thread_name_prefix="large-query-picture")
        self._lock = threading.Lock()
        self._in_hand = 0  # large ones that wait or are decoded

    def decode(self, data: bytes) -> Future[Image.Image]:
        """The picture, RGB and upright, later; cancel it and a picture that waits is never decoded.

        The future raises BadImageError (as decode_image, and too_many_pixels where decoding takes more memory than WHOLE_BYTES) or
        TooManyPicturesError.
        """
        answer: Future[Image.Image] = Future()
        self._small.submit(self._sort, data, answer)
        return answer

    def close(self) -> None:
        """Forget what waits, and let go of the threads."""
        self._small.shutdown(wait=False, cancel_futures=True)
        self._large.shutdown(wait=False, cancel_futures=True)

    def _sort(self, data: bytes, answer: Future[Image.Image]) -> None:
        try:
            large = self._is_large(data)
        except BadImageError as error:
            _end(answer, error)
            return
        if not large:
            self._decode(data, answer)
            return
        with self._lock:
            crowded = self._in_hand > self._waiting
            self._in_hand += not crowded
        if crowded:
            _end(answer, TooManyPicturesError())
        else:
            self._large.submit(self._decode_in_turn, data, answer)

    def _decode_in_turn(self, data: bytes, answer: Future[Image.Image]) -> None:
        try:
            self._decode(data, answer)
        finally:
            with self._lock:
                self._in_hand -= 1

    def _decode(self, data: bytes, answer: Future[Image.Image]) -> None:
        if not answer.set_running_or_notify_cancel():
            return
        try:
            answer.set_result(decode_shrunk(data, max_pixels=self._max_pixels, keep_pixels=self._keep_pixels))
        except BaseException as error:  # noqa: BLE001 - handed to whoever asked
            answer.set_exception(error)

    def _is_large(self, data: bytes) -> bool:
        picture = open_checked(data, max_pixels=self._max_pixels)
        pixels = picture.width * picture.height
        each = _OF_PROGRESSIVE if picture.info.get("progressive") else _BYTES_A_PIXEL.get(picture.format or "", _OF_OTHERS)
        if pixels * each > WHOLE_BYTES:
            raise BadImageError(
                "too_many_pixels",
                f"decoding {picture.width} x {picture.height} pixels of {picture.format} takes about {pixels * each >> 20} MiB, more than "
                f"{WHOLE_BYTES >> 20}; send it smaller, or as a JPEG",
            )
        return pixels > self._keep_pixels


def _end(answer: Future[Image.Image], error: Exception) -> None:
    if answer.set_running_or_notify_cancel():
        answer.set_exception(error)
