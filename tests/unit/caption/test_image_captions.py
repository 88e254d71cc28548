"""Captioner with a scripted engine: which rows come of which images, replies and instructions."""

from __future__ import annotations

import io

import numpy as np
import pytest
from answered_works import captioned
from PIL import Image

from reid_ray.caption.config import CaptionerConfig
from reid_ray.caption.engines.protocol import Reply
from reid_ray.caption.ledger.write_ahead_log import ledger_rows
from reid_ray.caption.prompts import STATIC
from reid_ray.records import CAPTIONS, IMAGES, conform, table_of

GOOD = "A man in a grey coat and black shoes."


class ScriptedEngine:
    """Answers by a function of (instruction, picture)."""

    def __init__(self, answer) -> None:
        self.answer, self.asked, self.streams = answer, [], []

    def chat(self, conversations, keys):
        assert len(set(keys)) == len(keys) == len(conversations)
        self.streams += keys
        replies = []
        for (message,) in conversations:
            picture, text = message["content"][0]["image_pil"], message["content"][1]["text"]
            self.asked.append((text, picture.size))
            replies.append(self.answer(text, picture))
        return replies


def _png(width: int, height: int = 32) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def _images(*data: bytes | None):
    return table_of(
        IMAGES,
        [{"image_id": f"{n}.png", "image": d, "image_sha256": str(n), "path": f"/d/{n}.png", "person_id": n} for n, d in enumerate(data)],
    )


def _run(answer, images, **config):
    engine = ScriptedEngine(answer)
    rows = captioned(images, engine, CaptionerConfig(**config))
    conform(ledger_rows(rows, "run"), CAPTIONS, origin="captioner")
    return rows, engine


def test_every_image_ends_in_a_caption_or_a_reason_in_order():
    images = _images(_png(10), None, b"", b"text", _png(1000, 1000), _png(11), _png(12), _png(13))

    def answer(text, picture):
        replies = {
            10: Reply(GOOD, tokens=9),
            11: Reply(None, error="ValueError: too narrow"),
            12: Reply("", tokens=1),
            13: Reply("A man <", tokens=3),
        }
        return replies[picture.width]

    rows, engine = _run(answer, images)
    assert [row["image_id"] for row in rows] == images["image_id"].to_pylist()
    assert [row["image_outcome"] for row in rows] == [
        "ok", "missing", "empty", "not_an_image", "too_many_pixels", "rejected", "empty_answer", "markup",
    ]  # fmt: skip
    assert [row["status"] for row in rows] == ["ok"] + ["failed"] * 7
    assert [row["text"] for row in rows] == [GOOD] + [None] * 7
    assert "/d/1.png" in rows[1]["reason"]
    assert rows[5]["reason"] == "rejected: ValueError: too narrow"
    assert [row["tries"] for row in rows] == [1, 0, 0, 0, 0, 1, 1, 1]
    assert [row["person_id"] for row in rows] == list(range(8))
    assert len({row["caption_id"] for row in rows}) == 8
    assert len(engine.asked) == 4  # the undecodable ones cost no generation


def test_static_and_dynamic_give_two_captions_and_one_failure_leaves_the_other():
    def answer(text, picture):
        return Reply(GOOD) if text == STATIC else Reply("The [person/woman/man] in [clothing description].")

    rows, _ = _run(answer, _images(_png(10)), instructions=("dynamic", "static"))
    assert [(row["kind"], row["status"], row["image_outcome"]) for row in rows] == [("dynamic", "failed", "ok"), ("static", "ok", None)]
    assert rows[0]["reason"].startswith("left_over_slot")
    assert rows[0]["instruction_id"].startswith("dynamic/t")


def test_a_failed_dynamic_caption_is_replaced_by_a_static_one():
    def answer(text, picture):
        return Reply(GOOD) if text == STATIC or picture.width != 11 else Reply("A [hair description] <")

    rows, engine = _run(answer, _images(_png(10), _png(11)), instructions=("dynamic",))
    assert [(row["image_id"], row["kind"], row["status"], row["image_outcome"]) for row in rows] == [
        ("0.png", "dynamic", "ok", "ok"),
        ("1.png", "dynamic", "failed", "ok"),
        ("1.png", "static", "ok", None),
    ]
    assert rows[1]["tries"] == 2
    assert len(engine.asked) == 4


def test_a_failed_dynamic_caption_is_asked_again_with_another_template():
    asked = []

    def answer(text, picture):
        if picture.width == 10:
            return Reply(GOOD, tokens=5)
        asked.append(text)
        return Reply("A [hair description] wears", tokens=3) if len(asked) < 3 else Reply(GOOD, tokens=5)

    images = _images(_png(10), _png(11))
    rows, _ = _run(answer, images, instructions=("dynamic",), template_tries=3)
    assert [(row["status"], row["tries"], row["tokens"], row["image_outcome"]) for row in rows] == [("ok", 1, 5, "ok"), ("ok", 3, 11, "ok")]
    assert len(set(asked)) == 3
    assert STATIC not in asked
    once, _ = _run(lambda text, picture: Reply(GOOD), images, instructions=("dynamic",))
    # The caption keeps the name of the template drawn first, so that a later run finds it; the row says which one gave the text.
    assert [row["caption_id"] for row in rows] == [row["caption_id"] for row in once]
    assert rows[0]["instruction_id"] == once[0]["instruction_id"]
    assert rows[1]["instruction_id"] != once[1]["instruction_id"]
    assert rows[1]["prompt_fingerprint"] != once[1]["prompt_fingerprint"]


def test_every_try_draws_from_a_random_stream_of_its_own():
    _, engine = _run(lambda text, picture: Reply("<"), _images(_png(10), _png(11)), instructions=("dynamic",), template_tries=4)
    assert len(engine.streams) == 2 * (4 + 1)  # and a static one in the end
    assert len(set(engine.streams)) == len(engine.streams)


def test_templates_of_ones_own_are_drawn():
    own = {"x": "The [person/woman/man] in [clothing description] has [hair description]."}
    engine = ScriptedEngine(lambda text, picture: Reply(GOOD if own["x"] in text else ""))
    rows = captioned(_images(_png(10), _png(11)), engine, CaptionerConfig(instructions=("dynamic",)), templates=own)
    assert [(row["instruction_id"], row["status"]) for row in rows] == [("dynamic/x", "ok")] * 2


def test_an_image_that_the_engine_refuses_is_not_asked_again():
    rows, engine = _run(lambda text, picture: Reply(None, error="too narrow"), _images(_png(10)), instructions=("dynamic", "static"))
    assert [(row["kind"], row["status"], row["tries"]) for row in rows] == [("dynamic", "failed", 1), ("static", "failed", 1)]
    assert len(engine.asked) == 2


def test_ids_are_stable_and_large_pictures_are_shrunk_before_the_model():
    first, engine = _run(lambda text, picture: Reply(GOOD), _images(_png(90, 100)), max_side=50)
    again, _ = _run(lambda text, picture: Reply(GOOD), _images(_png(90, 100)), max_side=50)
    other, _ = _run(lambda text, picture: Reply(GOOD), _images(_png(90, 100)), max_side=50, model="other/model")
    assert engine.asked[0][1] == (45, 50)
    assert first[0]["caption_id"] == again[0]["caption_id"] != other[0]["caption_id"]


def test_a_picture_that_is_shrunk_fast_has_the_same_size_and_other_keys():
    images = _images(_png(90, 100))
    slow, _ = _run(lambda text, picture: Reply(GOOD), images, max_side=50)
    fast, engine = _run(lambda text, picture: Reply(GOOD), images, max_side=50, shrink="fast")
    assert engine.asked[0][1] == (45, 50)
    assert fast[0]["caption_id"] == slow[0]["caption_id"]
    assert fast[0]["key"] != slow[0]["key"]


def test_no_rows_give_no_rows():
    rows, engine = _run(lambda text, picture: pytest.fail("asked"), IMAGES.empty_table())
    assert rows == []
    assert engine.asked == []
