"""Bytes on a connection that are no request: told in JSON like every other error, bounded, and nobody else is kept from an answer."""

from __future__ import annotations

import contextlib
import json
import socket

import httpx
import pytest
from opened_doors import own_machine
from small_services import small_gallery, small_operations

from reid_ray.serve.api.application import make_api
from reid_ray.serve.process.http_thread import bound_socket, running_server

BODY = b'{"text": "1", "k": 1}'
HEAD = b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
LENGTH = b"Content-Length: %d\r\n\r\n" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
SENT = {
    "a TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "an unknown method": (b"FOO /v1/info HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "a path that is no ASCII": (b"GET /v1/\xc3\xa9 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "CONNECT": (b"CONNECT example.com:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", (400, 403, 404, 405)),
    "a NUL in a header": (HEAD + b"X-Name: a\x00b\r\n" + LENGTH + BODY, 400),
    "a header of 200,000 letters": (HEAD + b"X-Long: " + b"x" * 200_000 + b"\r\n" + LENGTH + BODY, 431),
    "a header without an end": (HEAD + b"X-Long: " + b"x" * 1_000_000, 431),
    "20,000 headers": (HEAD + b"".join(b"X-%d: y\r\n" % number for number in range(20_000)) + LENGTH + BODY, 431),
    "a path of 200,000 letters": (b"GET /v1/" + b"x" * 200_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", (400, 431)),
    "a length below 0": (HEAD + b"Content-Length: -1\r\n\r\n" + BODY, 400),
    "a length in words": (HEAD + b"Content-Length: many\r\n\r\n" + BODY, 400),
    "a length beyond 64 bits": (HEAD + b"Content-Length: 99999999999999999999\r\n\r\n" + BODY, 400),
    "two lengths": (HEAD + b"Content-Length: 21\r\n" + b"Content-Length: 22\r\n\r\n" + BODY, 400),
    "a length and chunks": (HEAD + b"Content-Length: 21\r\n" + CHUNKED + b"15\r\n" + BODY + b"\r\n0\r\n\r\n", 400),
    "a chunk of no size": (HEAD + CHUNKED + b"zz\r\n" + BODY, 400),
    "an unknown encoding": (HEAD + b"Transfer-Encoding: gzip\r\n\r\n" + BODY, 400),
    "a chunked question": (HEAD + CHUNKED + b"15\r\n" + BODY + b"\r\n0\r\n\r\n", 200),
    "a header that is no ASCII": (HEAD + b"X-Name: \xc3\xa9\xff\r\n" + LENGTH + BODY, 400),
    "three questions in a row": ((HEAD + LENGTH + BODY) * 3, 200),
}


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    operations = small_operations(small_gallery(tmp_path_factory.mktemp("raw") / "gallery"))
    listening = bound_socket("127.0.0.1", 0)
    with running_server(make_api(operations, access=own_machine(tmp_path_factory.mktemp("own"))), listening):
        yield listening.getsockname()[1]
    operations.close()


def answered(port, data):
    """Status, headers and body of the first reply to bytes."""
    with socket.create_connection(("127.0.0.1", port), 30) as client:
        with contextlib.suppress(ConnectionError):  # refused before all of it was sent
            client.sendall(data)
        reply = client.makefile("rb")
        status = int(reply.readline().split()[1])
        headers = dict(line.decode().strip().lower().split(": ", 1) for line in iter(reply.readline, b"\r\n"))
        return status, headers, reply.read(int(headers["content-length"]))


@pytest.mark.parametrize("name", SENT)
def test_what_is_no_request_gets_a_sentence_and_the_next_client_its_answer(port, name):
    data, expected = SENT[name]
    status, headers, body = answered(port, data)
    assert status in (expected if isinstance(expected, tuple) else (expected,))
    assert headers["content-type"] == "application/json"
    if status >= 400:
        assert list(json.loads(body)) == ["detail"]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30, verify=False) as http:
        assert http.post("/v1/search", json={"text": "3"}).json()["hits"][0]["item_id"] == "3"


@pytest.mark.slow
def test_a_connection_answers_one_question_after_the_other(port):
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30, verify=False) as http:
        for row in range(8):
            long = {"text": f"{row}", "k": 1, "without": ["x" * 4000] * 100}  # far larger than a head may be
            assert http.post("/v1/search", json=long).json()["hits"][0]["item_id"] == f"{row}"
