"""What is kept of a library's error: why it failed; no data, nothing that another run would write otherwise, not too much."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reid_ray.data.images import BadImageError
from reid_ray.errors import reason_of

CAPTION = "A man in a red coat carries a blue bag."


@pytest.mark.parametrize(
    "data",
    [
        CAPTION,
        CAPTION.encode(),
        "Eine Frau trägt Rot, die Größe stimmt nicht",
        "the woman's coat",
        'she said "no" to the man\'s "yes"',
        {"text": CAPTION, "images": [Image.new("RGB", (3, 3))]},
        [[CAPTION, CAPTION], {"deep": {"er": ["a b", {"est": CAPTION}]}}],
        np.arange(100, 120, dtype=np.uint8),
        b"\xff\xd8\xff" + bytes(range(256)),
    ],
    ids=lambda data: type(data).__name__,
)
def test_no_data_stay_in_a_reason(data):
    kept = reason_of(ValueError(f"Failed to apply a processor on data={data!r} with kwargs={{}}, twice: {data!r}; size 7 is above 5"))
    assert "ValueError: Failed to apply a processor" in kept
    assert "size 7 is above 5" in kept
    for word in ("man", "coat", "Frau", "Größe", "woman", "yes", "PIL", "101", "xff", "deep"):
        assert word not in kept


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8 a man in a coat" + np.random.default_rng(0).bytes(60_000),
        np.random.default_rng(1).bytes(60_000),
        "a man's coat " * 2000,
        [[CAPTION] * 3000],
        np.full((60, 30, 3), 101).tolist(),
        {"text": CAPTION * 500},
    ],
    ids=["picture", "bytes", "text", "texts", "pixels", "request"],
)
@pytest.mark.parametrize("end", [None, 9_000, 400])
def test_data_without_an_end_do_not_stay_either_and_cost_no_time(data, end):
    """A message is cut by this project at 10,000 characters, and by libraries wherever they like."""
    kept = reason_of(ValueError(f"cannot take data {data!r} of this kind"[:end]))
    assert kept.startswith("ValueError: cannot take data ...")
    for word in ("man", "coat", "101", "\\x"):
        assert word not in kept


def test_the_innermost_cause_speaks():
    with pytest.raises(ValueError, match="Failed") as outer:
        try:
            raise KeyError("image_mean")
        except KeyError as inner:
            raise ValueError("Failed to apply Processor") from inner
    assert reason_of(outer.value) == "KeyError: 'image_mean'"


@pytest.mark.parametrize(
    "said",
    [
        lambda: f"{object()} is no picture",
        lambda: f"lost at {id(object()):#x}",
        lambda: f"cannot read {tempfile.mkdtemp()}/picture.png: no such file",
        lambda: f"request {__import__('uuid').uuid4()} was lost",
        lambda: f"request {__import__('uuid').uuid4().hex} was lost",
    ],
)
def test_two_runs_keep_the_same_reason(said):
    anew = []
    for _ in range(2):
        anew.append([object() for _ in range(100)])  # so that addresses differ
        anew.append(reason_of(RuntimeError(said())))
    assert anew[1] == anew[3]


@pytest.mark.parametrize(
    "said",
    [
        "absolute aspect ratio must be smaller than 200, got 1000.0",
        "The decoder prompt (length 1500) is longer than the maximum model length of 1024.",
        "[Errno 13] Permission denied: '/data/crops/my pictures/a.jpg'",
        "mdb_get: MDB_CORRUPTED: Located page was wrong type",
        "image file is truncated (12 bytes not processed)",
        "it isn't a picture, and can't be one",
        "key 'image_mean' is missing",
    ],
)
def test_what_says_the_cause_stays_as_it_was_said(said):
    assert reason_of(OSError(said)) == f"OSError: {said}"


def test_a_reason_is_one_short_line_whatever_was_said():
    for said in ("a\nb\n\tc", "x" * 10_000_000, "'" * 100_000, "[" * 100_000, "<" * 100_000, "", "[{" * 50_000):
        kept = reason_of(RuntimeError(said))
        assert kept.startswith("RuntimeError")
        assert len(kept) <= 200
        assert "\n" not in kept


def test_an_images_reason_is_cleaned_wherever_it_comes_from():
    error = BadImageError("unreadable", f"cannot identify {object()!r} in {CAPTION!r}")
    assert str(error) == "unreadable: cannot identify ... in ..."
    assert json.dumps(error.detail)


def test_no_module_keeps_a_bare_exceptions_words_in_a_row():
    """Reply, Skipped and marks get what reason_of lets through."""
    package = Path(__file__).resolve().parents[2] / "reid_ray"
    for file in ("caption/engines/vllm_engine.py", "caption/streaming/engine_loop.py", "caption/streaming/work_stream.py"):
        text = (package / file).read_text()
        assert "{error}" not in text
        assert "str(error)" not in text
