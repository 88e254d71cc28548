"""A search that fails, and clients that go, leave the service as it was: whatever comes out of a batch, later questions are answered.

Two faults of other batching servers are kept out here: an exception that ends the task which forms batches, and a client whose going
leaves a batch, or a future, that nobody will ever finish.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time

import httpx
import numpy as np
import pytest
from opened_doors import own_machine
from small_services import Reading, small_gallery, small_operations

from reid_ray.serve.api.application import make_api
from reid_ray.serve.process.http_thread import bound_socket, running_server

FAILURES = {
    "ValueError": ValueError("no"),
    "StopIteration": StopIteration(),
    "MemoryError": MemoryError(),
    "SystemExit": SystemExit(1),
    "KeyboardInterrupt": KeyboardInterrupt(),
    "RecursionError": RecursionError(),
    "CancelledError": asyncio.CancelledError(),
    "TimeoutError": TimeoutError(),
}


class Failing(Reading):
    """Raises what a text names; stays at the text "hold" until it is let go; knows what it was asked."""

    def __init__(self):
        self.asked, self.held, self.let_go = [], threading.Event(), threading.Event()

    def encode_and_measure(self, texts):
        self.asked += texts
        if "9 hold" in texts:
            self.held.set()
            assert self.let_go.wait(30)
        for text in texts:
            if text.split()[-1] in FAILURES:
                raise FAILURES[text.split()[-1]]
        if "1 few" in texts:
            return self.encode_texts(texts)[1:], np.ones(len(texts) - 1, np.int64)
        return super().encode_and_measure(texts)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small_gallery(tmp_path_factory.mktemp("after") / "gallery")


@pytest.fixture
def failing(folder, tmp_path):
    encoder = Failing()
    operations = small_operations(folder, encoder=encoder)
    yield encoder, make_api(operations, access=own_machine(tmp_path))
    encoder.let_go.set()
    operations.close()


def first_items(replies):
    return [reply.json()["hits"][0]["item_id"] if reply.status_code == 200 else reply.status_code for reply in replies]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FAILURES, "few"])
def test_what_a_question_raises_is_its_own_and_the_next_are_answered(failing, name):
    encoder, api = failing

    async def ask():
        transport = httpx.ASGITransport(app=api, client=("127.0.0.1", 5), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:

            def asked(text):
                return asyncio.create_task(http.post("/v1/search", json={"text": text, "k": 1}))

            first = asked("9 hold")
            await asyncio.to_thread(encoder.held.wait, 30)
            batch = [asked(text) for text in ("2", f"1 {name}", "3", "4")]  # one batch, once the first is through
            await asyncio.sleep(0.05)
            encoder.let_go.set()
            replies = await asyncio.wait_for(asyncio.gather(first, *batch), 30)
            return [*replies, await asyncio.wait_for(asked("5"), 30)]

    replies = asyncio.run(ask())
    assert first_items(replies) == ["9", "2", 500, "3", "4", "5"]
    assert replies[2].json() == {"detail": "the query failed inside the service; its log says where"}


@pytest.mark.slow
def test_clients_that_go_while_they_wait_are_not_worked_for_and_nobody_else_waits_for_them(failing):
    encoder, api = failing

    async def ask():
        transport = httpx.ASGITransport(app=api, client=("127.0.0.1", 5))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            at_work = asyncio.create_task(http.post("/v1/search", json={"text": "9 hold"}))
            await asyncio.to_thread(encoder.held.wait, 30)
            going = [asyncio.create_task(http.post("/v1/search", json={"text": f"7 going {number}"})) for number in range(50)]
            await asyncio.sleep(0.05)
            for each in (at_work, *going):
                each.cancel()
            await asyncio.gather(at_work, *going, return_exceptions=True)
            encoder.let_go.set()
            return [await asyncio.wait_for(http.post("/v1/search", json={"text": f"{row}"}), 30) for row in (1, 2)]

    assert first_items(asyncio.run(ask())) == ["1", "2"]
    assert not [text for text in encoder.asked if "going" in text]


@pytest.mark.slow
def test_a_server_does_not_work_for_clients_that_closed_their_connections_while_they_waited(failing):
    encoder, api = failing
    listening = bound_socket("127.0.0.1", 0)
    address = listening.getsockname()[:2]

    def sent(text):
        body = f'{{"text": "{text}"}}'.encode()
        client = socket.create_connection(address, 10)
        head = f"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + body)
        return client

    with running_server(api, listening):
        at_work = sent("9 hold")
        assert encoder.held.wait(30)
        going = [sent(f"7 going {number}") for number in range(20)]
        stays = sent("3 stays")
        time.sleep(0.3)
        for each in (at_work, *going):
            each.close()
        time.sleep(0.3)
        encoder.let_go.set()
        stays.settimeout(30)
        assert stays.recv(100).startswith(b"HTTP/1.1 200")
        stays.close()
        metrics = httpx.get(f"http://127.0.0.1:{address[1]}/metrics", trust_env=False).text
    assert "3 stays" in encoder.asked
    assert not [text for text in encoder.asked if "going" in text]
    assert 'reid_ray_service_requests_total{method="POST",route="/v1/search",status="499"} 20.0' in metrics


@pytest.mark.slow
def test_connections_that_break_before_their_answer_leave_a_service_that_answers(failing):
    encoder, api = failing
    encoder.let_go.set()
    listening = bound_socket("127.0.0.1", 0)
    port = listening.getsockname()[1]
    body = b'{"text": "7"}'
    head = f"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with running_server(api, listening):
        for sent in (head + body, head + body[:5], head[:40], b"", b"\x16\x03\x01 no HTTP\r\n\r\n", head + body):
            for _ in range(10):
                with socket.create_connection(("127.0.0.1", port), 10) as client:
                    client.sendall(sent)
        end = time.monotonic() + 30
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as http:
            assert first_items([http.post("/v1/search", json={"text": f"{row}"}) for row in (1, 2, 3)]) == ["1", "2", "3"]
        assert time.monotonic() < end
