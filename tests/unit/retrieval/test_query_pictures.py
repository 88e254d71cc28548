"""Pictures of questions: a small one does not wait for large ones, no more than a few of these wait, and none takes too much memory."""

from __future__ import annotations

import io
import threading
from concurrent import futures

import pytest
from PIL import Image

from reid_ray.data.images import BadImageError, decode_shrunk
from reid_ray.retrieval import query_pictures
from reid_ray.retrieval.query_pictures import QueryPictures, TooManyPicturesError

KEEP = 10_000


def encoded(width: int, height: int, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 30)).save(buffer, kind, **options)
    return buffer.getvalue()


BOMB, SMALL = encoded(1000, 1000), encoded(50, 100)


@pytest.fixture
def held(monkeypatch):
    """Decoders that stay at a large picture until they are let go; `.begun` counts the large ones that were begun."""

    class Held:
        def __init__(self):
            self.begun, self.let_go = 0, threading.Event()

        def decode(self, data, **limits):
            if data == BOMB:
                self.begun += 1
                assert self.let_go.wait(30)
            return decode_shrunk(data, **limits)

    held = Held()
    monkeypatch.setattr(query_pictures, "decode_shrunk", held.decode)
    yield held
    held.let_go.set()


def test_a_small_picture_is_decoded_while_eight_bombs_take_turns(held):
    pictures = QueryPictures(max_pixels=10_000_000, keep_pixels=KEEP)
    bombs = [pictures.decode(BOMB) for _ in range(8)]
    assert pictures.decode(SMALL).result(30).size == (50, 100)
    assert not any(bomb.done() for bomb in bombs)
    assert held.begun <= 1
    held.let_go.set()
    assert {bomb.result(30).size for bomb in bombs} == {(100, 100)}
    pictures.close()


def test_only_so_many_large_pictures_wait_and_one_that_nobody_waits_for_is_never_decoded(held):
    pictures = QueryPictures(max_pixels=10_000_000, keep_pixels=KEEP, waiting=2)
    bombs = [pictures.decode(BOMB) for _ in range(4)]
    refused, _ = futures.wait(bombs, 30, futures.FIRST_COMPLETED)
    assert [type(bomb.exception()) for bomb in refused] == [TooManyPicturesError]
    left = [bomb for bomb in bombs if bomb not in refused]
    gone = [bomb for bomb in left if bomb.cancel()]  # all but the one at which the decoder is
    assert len(gone) >= 2
    held.let_go.set()
    assert {bomb.result(30).size for bomb in left if bomb not in gone} <= {(100, 100)}
    assert pictures.decode(BOMB).result(30).size == (100, 100)
    assert held.begun == 1 + len(left) - len(gone)
    pictures.close()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"no picture", "not_an_image"),
        (SMALL[:-30], "truncated"),
        (encoded(4000, 3000), "too_many_pixels"),
    ],
)
def test_what_cannot_be_decoded_says_why(data, reason):
    pictures = QueryPictures(max_pixels=10_000_000)
    error = pictures.decode(data).exception(30)
    assert isinstance(error, BadImageError)
    assert error.reason == reason
    pictures.close()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "side", "allowed"), [("WEBP", 4200, False), ("WEBP", 4000, True), ("PNG", 4200, True)])
def test_a_picture_whose_decoder_would_take_too_much_memory_is_refused_by_its_header(kind, side, allowed):
    data = encoded(side, side, kind, **({"method": 0} if kind == "WEBP" else {"compress_level": 1}))
    pictures = QueryPictures(keep_pixels=KEEP)
    answer = pictures.decode(data)
    error = answer.exception(30)
    assert (error is None) == allowed
    if not allowed:
        assert error.reason == "too_many_pixels"
    pictures.close()
