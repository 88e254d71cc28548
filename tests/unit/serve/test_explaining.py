"""Explanations and pictures over HTTP: what is said of words and patches, and that neither keeps a search waiting."""

from __future__ import annotations

import asyncio
import threading

import httpx
import numpy as np
import pytest
from bad_inputs import png
from opened_doors import own_machine
from PIL import Image
from small_galleries import make_gallery
from small_services import ITEMS, VECTORS, Reading, sent, small_gallery, small_operations

from reid_ray.data.images import encode_jpeg
from reid_ray.retrieval import query_pictures
from reid_ray.serve.api.application import make_api
from reid_ray.serve.api.schema import ExplainOut

RED, WHITE, REST = np.eye(3, dtype=np.float32)
CORNER = Image.new("RGB", (64, 128), (0, 0, 255))
CORNER.paste((255, 0, 0), (32, 0, 64, 32))


class Corner:
    """Knows the words red and white, and of a picture how red its upper right corner is."""

    dim, context, reads_texts, fingerprint = 3, 16, True, "e"

    def encode_texts(self, texts):
        sums = [0.1 * REST + ("red" in text.split()) * RED + ("white" in text.split()) * WHITE for text in texts]
        return np.stack([each / np.linalg.norm(each) for each in sums]).astype(np.float32)

    def encode_and_measure(self, texts):
        return self.encode_texts(texts), np.array([len(text.split()) for text in texts])

    def encode_images(self, pictures):
        reds = np.array([np.asarray(picture)[:32, 32:, 0].mean() / 255 for picture in pictures])[:, None]
        sums = reds * RED + (1 - reds) * REST
        return (sums / np.linalg.norm(sums, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def corner(tmp_path):
    rows = [{"item_id": "a/b ü", "thumbnail": encode_jpeg(CORNER)}, {"item_id": "bare", "thumbnail": b""}]
    operations = small_operations(make_gallery(tmp_path / "gallery", np.stack([RED, WHITE]), rows), encoder=Corner())
    yield make_api(operations, access=own_machine(tmp_path))
    operations.close()


@pytest.mark.slow
def test_words_have_their_places_in_the_text_that_was_sent_and_patches_those_of_the_picture(corner):
    text = "  a red coat, \U0001f9e5 white bag "
    reply = sent(corner, "POST", "/v1/explain", json={"text": text, "item_id": "a/b ü"})
    assert reply.status_code == 200
    found = ExplainOut.model_validate(reply.json())
    assert [text[word.start : word.end] for word in found.words] == [word.word for word in found.words]
    assert max(found.words, key=lambda word: word.effect).word == "red"
    hits = sent(corner, "POST", "/v1/search", json={"text": text}).json()["hits"]
    assert found.score == pytest.approx(next(hit["score"] for hit in hits if hit["item_id"] == "a/b ü"), abs=1e-6)
    heat_RC = np.array(found.patches.effects)
    assert heat_RC.shape == (found.patches.rows, found.patches.columns) == (8, 4)
    row, column = np.unravel_index(heat_RC.argmax(), heat_RC.shape)
    assert row < 2
    assert column >= 2


def test_pictures_and_items_are_clues_of_an_explanation_and_an_item_without_a_picture_has_words_alone(corner):
    clues = [{"item": "a/b ü", "weight": 2.0}, {"text": "white coat"}, {"text": "red", "weight": -0.5}]
    found = ExplainOut.model_validate(sent(corner, "POST", "/v1/explain", json={"clues": clues, "item_id": "bare"}).json())
    assert [(word.clue, word.word) for word in found.words] == [(1, "white"), (1, "coat"), (2, "red")]
    assert found.words[0].effect > 0
    assert (found.patches, found.picture_score) == (None, None)


class Held(Reading):
    """Stays at pictures until it is let go."""

    def __init__(self):
        self.held, self.let_go = threading.Event(), threading.Event()

    def encode_images(self, pictures):
        self.held.set()
        assert self.let_go.wait(30)
        return VECTORS[:1].repeat(len(pictures), axis=0)


@pytest.fixture
def held(tmp_path):
    encoder = Held()
    operations = small_operations(small_gallery(tmp_path / "gallery"), encoder=encoder)
    yield encoder, make_api(operations, access=own_machine(tmp_path))
    encoder.let_go.set()
    operations.close()


@pytest.mark.slow
def test_searches_are_answered_while_an_explanation_is_made_a_few_wait_and_the_next_is_refused(held):
    encoder, api = held

    async def ask(http):
        asked = [asyncio.create_task(http.post("/v1/explain", json={"text": "1", "item_id": "1"})) for _ in range(8)]
        await asyncio.to_thread(encoder.held.wait, 30)
        refused, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        while len(refused) < 3:
            await asyncio.sleep(0.01)
            refused = {each for each in asked if each.done()}
        search = await asyncio.wait_for(http.post("/v1/search", json={"text": "4"}), 30)
        encoder.let_go.set()
        return search, await asyncio.gather(*asked)

    search, replies = together(api, ask)
    assert search.json()["hits"][0]["item_id"] == "4"
    assert sorted(reply.status_code for reply in replies) == [200] * 5 + [503] * 3
    assert {reply.headers["retry-after"] for reply in replies if reply.status_code == 503} == {"1"}


@pytest.mark.slow
def test_a_picture_is_searched_by_while_eight_bombs_are_decoded(tmp_path, monkeypatch):
    """The bombs' decoder is held: whatever waits for it is not answered. Nothing here is measured in seconds."""
    bomb, let_go, begun = png(2100, 2000), threading.Event(), []

    def decode(data, **limits):
        if data == bomb:
            begun.append(data)
            assert let_go.wait(30)
        return decode_shrunk(data, **limits)

    decode_shrunk = query_pictures.decode_shrunk
    monkeypatch.setattr(query_pictures, "decode_shrunk", decode)
    operations = small_operations(small_gallery(tmp_path / "gallery"))

    async def ask(http):
        def by_picture(data):
            return asyncio.create_task(http.post("/v1/search/upload", files={"image": ("x.png", data)}, data={"question": '{"k": 1}'}))

        bombs = [by_picture(bomb) for _ in range(8)]
        await asyncio.sleep(0.05)
        normal = [
            await asyncio.wait_for(by_picture(png(16, 32)), 30),
            await asyncio.wait_for(http.post("/v1/search", json={"text": "5"}), 30),
        ]
        done = sum(each.done() for each in bombs)
        let_go.set()
        return normal, done, await asyncio.gather(*bombs)

    normal, done, bombs = together(make_api(operations, access=own_machine(tmp_path)), ask)
    assert [reply.json()["hits"][0]["item_id"] for reply in normal] == ["0", "5"]
    assert (done, len(begun)) == (0, 8)
    assert {reply.status_code for reply in bombs} == {200}
    assert len(sent(make_api(operations, access=own_machine(tmp_path)), "POST", "/v1/browse", json={}).json()["items"]) == ITEMS
    operations.close()


def together(api, ask):
    async def run():
        transport = httpx.ASGITransport(app=api, client=("127.0.0.1", 5), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=60) as http:
            return await ask(http)

    return asyncio.run(run())
