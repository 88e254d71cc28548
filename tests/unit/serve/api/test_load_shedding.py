"""A search that is one too many is refused by its head, on a connection that goes on, and told what the application would tell it."""

import asyncio
import contextlib
import json
import socket
import threading
from types import SimpleNamespace

import httpx
import pytest
from opened_doors import own_machine
from small_services import Reading, sent, small_gallery, small_operations

from reid_ray.serve.access.config import AccessLogConfig
from reid_ray.serve.api.application import make_api
from reid_ray.serve.api.load_shedding import EarlyShedding
from reid_ray.serve.operations.search_operations import SearchOperations
from reid_ray.serve.process.doorway import Doorway
from reid_ray.serve.process.http_thread import bound_socket, running_server
from reid_ray.serve.process.strict_http import StrictHttp

BODY = json.dumps({"text": "3 red"}).encode()


class Full:
    """A service whose fullness a test decides, behind a socket."""

    def __init__(self, folder, monkeypatch, **options):
        self.is_full = self.framework = False
        self.operations = small_operations(small_gallery(folder))
        monkeypatch.setattr(SearchOperations, "is_full", lambda _, coming=0: self.is_full)
        self.api = make_api(self.operations, access=own_machine(folder), **options)
        self.passed = []
        doorway = Doorway()
        doorway.application = self.api
        self.server = contextlib.ExitStack()
        listening = bound_socket("127.0.0.1", 0)
        self.server.enter_context(running_server(self._watched(doorway), listening))
        self.address = listening.getsockname()

    def _watched(self, doorway):
        outer = self

        class Watched:
            state = property(lambda self: doorway.state)

            async def __call__(self, scope, receive, send):
                outer.passed.append(scope.get("path"))
                await doorway(scope, receive, send)

        return Watched()

    def close(self):
        self.server.close()
        self.operations.close()


@pytest.fixture
def full(tmp_path, monkeypatch):
    found = Full(tmp_path, monkeypatch)
    yield found
    found.close()


def request(body=BODY, *, first=b"POST /v1/search HTTP/1.1", further=b""):
    return first + b"\r\nHost: localhost\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n" % (further, len(body)) + body


class Connection:
    """Replies on one kept connection."""

    def __init__(self, address):
        self.client = socket.create_connection(address, 30)
        self.reader = self.client.makefile("rb")

    def ask(self, data):
        self.client.sendall(data)
        return self.reply()

    def reply(self):
        status = int(self.reader.readline().split()[1])
        headers = dict(line.decode().strip().lower().split(": ", 1) for line in iter(self.reader.readline, b"\r\n"))
        return status, headers, self.reader.read(int(headers["content-length"]))


def test_it_is_told_what_the_application_tells_and_the_connection_goes_on(full):
    connection = Connection(full.address)
    assert connection.ask(request())[0] == 200
    full.is_full = True
    early = [connection.ask(request()) for _ in range(2)]
    assert full.passed == ["/v1/search"], "the application was not asked"
    late = sent(full.api, "POST", "/v1/search", json={"text": "3 red"})
    for status, headers, body in early:
        assert (status, body) == (late.status_code, late.content) == (503, body)
        drawn = {"x-request-id", "date"}
        assert {n: v for n, v in headers.items() if n not in drawn} == {n: v.lower() for n, v in late.headers.items() if n not in drawn}
    assert early[0][1]["x-request-id"] != early[1][1]["x-request-id"]
    assert connection.ask(request(further=b"X-Request-Id: mine\r\n"))[1]["x-request-id"] == "mine"
    full.is_full = False
    status, _, body = connection.ask(request())
    assert (status, json.loads(body)["hits"][0]["item_id"]) == (200, "3")


def test_a_first_request_with_a_large_body_and_one_in_pieces_are_refused_and_their_bodies_dropped(full):
    full.is_full = True
    connection = Connection(full.address)
    assert connection.ask(request(bytes(300_000)))[0] == 503
    whole = request()
    connection.client.sendall(whole[:-8])
    assert connection.reply()[0] == 503, "before the body is whole"
    connection.client.sendall(whole[-8:])
    full.is_full = False
    assert connection.ask(request())[0] == 200


@pytest.mark.parametrize("later", [0, 8], ids=["a body that is there", "a body that comes later"])
@pytest.mark.parametrize("early", [True, False], ids=["by the head", "by the application"])
def test_a_connection_that_nobody_uses_after_a_refusal_is_closed(tmp_path, monkeypatch, later, early):
    monkeypatch.setattr(StrictHttp, "connection_made", impatient(StrictHttp.connection_made))
    full = Full(tmp_path, monkeypatch)
    full.is_full = True
    if not early:
        full.api.state.early_answer = None
    connection, whole = Connection(full.address), request()
    connection.client.sendall(whole[: len(whole) - later])
    assert connection.reply()[0] == 503
    connection.client.sendall(whole[len(whole) - later :])
    assert connection.client.recv(1) == b"", "within the 30 s that a test waits"
    full.close()


def impatient(connection_made):
    """Connections that are kept for a moment."""

    def made(self, transport):
        connection_made(self, transport)
        self.timeout_keep_alive = 0.3

    return made


@pytest.mark.parametrize(
    "data",
    [
        request(first=b"POST /v1/search HTTP/1.0"),
        request(further=b"Connection: close\r\n"),
        request(further=b"Expect: 100-continue\r\n"),
        request(further=b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n"),
    ],
    ids=["HTTP/1.0", "the last one", "a body that waits", "HTTP/2 offered"],
)
def test_who_does_not_go_on_with_the_connection_is_refused_by_the_application(full, data):
    full.is_full = True
    assert Connection(full.address).ask(data)[0] == 503
    assert full.passed == ["/v1/search"]


def test_only_searches_are_refused_early(full):
    full.is_full = True
    with httpx.Client(base_url=f"http://127.0.0.1:{full.address[1]}", trust_env=False, timeout=30, verify=False) as http:
        assert http.get("/v1/live").status_code == 200
        assert http.post("/v1/browse", json={}).status_code == 200
        assert [http.post(f"/v1/search{path}").status_code for path in ("/batch", "/upload", "")] == [503, 503, 503]
    assert full.passed == ["/v1/live", "/v1/browse"]


def test_requests_in_a_row_are_answered_in_their_order(full):
    """The second one's head is read while the first one is searched for."""
    started, release = threading.Event(), threading.Event()

    class Held(Reading):
        def encode_and_measure(self, texts):
            started.set()
            assert release.wait(30)
            return super().encode_and_measure(texts)

    full.operations.engine.encoder = Held()
    connection = Connection(full.address)
    connection.client.sendall(request())
    assert started.wait(30)
    full.is_full = True
    connection.client.sendall(request() * 2)
    release.set()
    assert [connection.reply()[0] for _ in range(3)] == [200, 503, 503]


def test_refusals_are_counted(full):
    full.is_full = True
    connection = Connection(full.address)
    for _ in range(3):
        connection.ask(request())
    full.is_full = False
    counted = sent(full.api, "GET", "/metrics").text
    assert 'reid_ray_service_requests_total{method="none",route="none",status="503"} 3.0' in counted


def test_an_access_log_has_refused_requests_too(tmp_path, monkeypatch):
    log = tmp_path / "access.log"
    full = Full(tmp_path, monkeypatch, access_log=AccessLogConfig(path=str(log)))
    full.is_full = True
    assert Connection(full.address).ask(request())[0] == 503
    full.close()
    assert json.loads(log.read_text())["status"] == 503


def test_heads_that_are_read_together_count_before_they_wait():
    class Three:
        """Three may wait, and none does yet."""

        def is_full(self, coming=0):
            return coming >= 3

    counted = []

    async def turns():
        early = EarlyShedding(Three(), SimpleNamespace(count_refused=counted.append))
        told = []
        for _ in range(2):
            told += [early(b"POST", b"/v1/search", []) for _ in range(5)]
            await asyncio.sleep(0)
        return told

    told = asyncio.run(turns())
    assert [each is not None for each in told] == 2 * [False, False, False, True, True]
    assert counted == [503] * 4


def test_those_that_come_wait_longer_than_those_before_them(tmp_path):
    operations = small_operations(small_gallery(tmp_path), max_batch_size=2, max_queued_requests=8, max_wait_s=0.5)
    operations._batcher._times.learn(2, 0.4)  # a batch of two
    assert [operations.is_full(coming) for coming in range(10)] == [False, False, True, True, True, True, True, True, True, True]
    operations.close()
