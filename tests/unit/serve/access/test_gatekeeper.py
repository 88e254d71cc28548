"""The gatekeeper of an application: who is let through to what, what the others are told, and what no request can do to the rest."""

import asyncio
import contextlib
import json
import os
import socket
import threading
import time

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request, Response
from starlette.routing import Route

from reid_ray.serve.access.audit.chain_check import records_of, verified
from reid_ray.serve.access.audit.noted import noted
from reid_ray.serve.access.config import AccessConfig, AuditConfig
from reid_ray.serve.access.gatekeeper import Gatekeeper
from reid_ray.serve.access.roles import AccessRole
from reid_ray.serve.access.route_table import RouteRule, RouteTable
from reid_ray.serve.access.service_access import open_access
from reid_ray.serve.access.tokens.token_file import create_token, revoke_token
from reid_ray.serve.api.access_routes import ACCESS_RULES, access_routes

RULES = RouteTable(
    {
        ("GET", "/"): RouteRule(None),
        ("GET", "/v1/live"): RouteRule(None, probe=True),
        **ACCESS_RULES,
        ("POST", "/v1/search"): RouteRule(AccessRole.SEARCH, 1000, searches=True, verb="search"),
        ("GET", "/v1/items/{item_id:path}"): RouteRule(AccessRole.SEARCH),
        ("POST", "/v1/jobs"): RouteRule(AccessRole.WRITE, 1 << 20, spooled=True),
        ("POST", "/v1/items/erase"): RouteRule(AccessRole.ADMIN, 1000),
        ("GET", "/v1/broken"): RouteRule(AccessRole.SEARCH),
    }
)
AUDIT = AuditConfig()
LIMITS = AccessConfig(body_timeout_s=0.3, body_kb_per_s=64, bodies_in_hand=4, searches_per_s=None)


def application(access):
    """Answers whatever is let through to it with what the gatekeeper told it."""
    api = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    api.include_router(access_routes(access))

    async def broken(request: Request) -> Response:
        raise RuntimeError("a woman in a red coat")

    async def anything(request: Request) -> Response:
        path, body = request.path_params["path"], await request.body()
        caller = request.state.caller
        noted(request.scope["state"], sought=["a red coat"], items=3, k=20)
        told = {"caller": caller and caller.name, "purpose": request.state.purpose, "bytes": len(body), "path": path}
        return Response(json.dumps(told), media_type="application/json", headers={"X-Frame-Options": "ALLOWALL"} if path == "" else {})

    api.add_route("/v1/broken", broken)
    api.add_route("/{path:path}", anything, methods=["GET", "HEAD", "POST", "DELETE", "PUT", "OPTIONS", "PATCH"])
    return api


class Doors:
    """A guarded application without a network, with three tokens, or without any."""

    def __init__(self, folder, *, tokens=True, rules=RULES, limits=LIMITS, audit=AUDIT):
        self.folder, self.tokens, file = folder, {}, None
        if tokens:
            file = folder / "tokens.json"
            self.tokens = {role.word: create_token(file, f"the-{role.word}", role, days=None) for role in AccessRole}
        limits = limits.model_copy(update={"tokens": file and str(file)})
        self.access = open_access(limits, audit, state=folder / "state", tls=False)
        self.book, self.sessions = self.access.book, self.access.sessions
        self.api = application(self.access)
        self.api.add_middleware(Gatekeeper, rules=rules, access=self.access)
        self.api.middleware_stack = self.api.build_middleware_stack()
        self.gatekeeper = self.api.middleware_stack.app

    def close(self):
        self.access.close()

    def recorded(self):
        return list(records_of(self.folder / "state" / "audit"))[1:]

    def ask(self, method, path, *, role=None, client="10.1.2.3", host="search.example", headers=(), **options):
        headers = dict(headers)
        if role is not None:
            headers["Authorization"] = f"Bearer {self.tokens[role]}"
        transport = httpx.ASGITransport(app=self.api, client=(client, 5))

        async def call():
            async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as http:
                return await http.request(method, path, headers=headers, **options)

        return asyncio.run(call())

    def cookie(self, role, purpose=None):
        return self.sessions.begin(self.book.caller_of(self.tokens[role]), purpose).partition(";")[0]


@pytest.fixture
def doors_with(tmp_path):
    """doors_with(...) -> Doors of these options, closed after the test."""
    with contextlib.ExitStack() as opened:
        yield lambda **options: opened.enter_context(contextlib.closing(Doors(tmp_path, **options)))


@pytest.fixture
def doors(doors_with):
    return doors_with()


@pytest.fixture
def own(doors_with):
    """A service without tokens."""
    return doors_with(tokens=False)


WANTS = [("/v1/search", "POST", 1), ("/v1/items/a/b.jpg", "GET", 1), ("/v1/jobs", "POST", 2), ("/v1/items/erase", "POST", 3)]


@pytest.mark.parametrize(("path", "method", "least"), WANTS)
def test_a_role_may_do_what_the_roles_below_it_may_and_no_more(doors, path, method, least):
    statuses = [doors.ask(method, path, role=role.word).status_code for role in AccessRole]
    assert statuses == [200 if role >= least else 403 for role in AccessRole]
    assert doors.ask(method, path).status_code == 401
    assert doors.ask("HEAD" if method == "GET" else method, path, role="admin").status_code == 200


@pytest.mark.parametrize(
    "authorization", ["", "Bearer", "Bearer ", "Bearer x", "Basic {}", "{}", "Bearer {}x", "Bearer {} {}", "Digest {}", "Bearer\t{}"]
)
def test_nothing_but_a_bearer_token_proves_who_asks(doors, authorization):
    reply = doors.ask("POST", "/v1/search", headers={"Authorization": authorization.replace("{}", doors.tokens["admin"])})
    assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer")


def test_a_path_without_a_rule_is_refused_and_told_apart_only_to_those_who_may_ask(doors):
    for path in ("/v1/none", "/v1/search/", "//v1/search", "/v1/live/x", "/v1/SEARCH", "/v1/items", "/V1/live"):
        assert doors.ask("GET", path).status_code == 401
        assert doors.ask("GET", path, role="admin").status_code == 404
    reply = doors.ask("DELETE", "/v1/search", role="admin")
    assert (reply.status_code, reply.headers["allow"]) == (405, "POST")
    assert doors.ask("OPTIONS", "/v1/search").status_code == 401


def test_a_path_that_hides_another_gets_the_rule_of_the_one_that_answers(doors):
    for path in ("/v1/items/..%2ferase", "/v1/items/erase", "/v1/%69tems/erase", "/v1/items%2Ferase"):
        reply = doors.ask("POST", path, role="search")
        assert reply.status_code in (403, 404, 405), path


HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


def test_every_answer_has_the_headers_that_protect_it_and_a_number(doors):
    asked = [("GET", "/", None), ("GET", "/v1/live", None), ("POST", "/v1/search", "search"), ("POST", "/v1/search", None)]
    asked += [("GET", "/none", "admin"), ("GET", "/v1/broken", "search"), ("POST", "/v1/items/erase", "write")]
    numbers = set()
    for method, path, role in asked:
        reply = doors.ask(method, path, role=role)
        assert {name: reply.headers.get_list(name) for name in HEADERS} == {name: [value] for name, value in HEADERS.items()}
        assert "frame-ancestors 'none'" in reply.headers["content-security-policy"]
        numbers.add(reply.headers["x-request-id"])
    assert len(numbers) == len(asked)


def test_a_clients_own_number_of_a_request_is_kept_unless_it_is_none(doors):
    assert doors.ask("GET", "/v1/live", headers={"X-Request-Id": "case-12.7"}).headers["x-request-id"] == "case-12.7"
    for bad in ("", "a b", "x" * 65, "a;b"):
        assert doors.ask("GET", "/v1/live", headers={"X-Request-Id": bad}).headers["x-request-id"] != bad


def test_what_fails_inside_is_told_without_a_word_of_it(doors, logged):
    reply = doors.ask("GET", "/v1/broken", role="search")
    assert (reply.status_code, list(reply.json())) == (500, ["detail"])
    assert "red coat" not in reply.text + "".join(logged)
    assert "test_gatekeeper.py" in "".join(logged)


@pytest.mark.parametrize(
    "header",
    [("X-Name", "müller".encode()), ("Reid-Purpose", "Fall 12: Ä".encode()), ("Cookie", b"a=\xff"), ("Authorization", b"Bearer \xc3\xa9")],
)
def test_a_header_beyond_ascii_is_refused_in_json(doors, header):
    reply = doors.ask("POST", "/v1/search", headers=dict([header]))
    assert (reply.status_code, header[0].lower() in reply.json()["detail"]) == (400, True)


def test_a_header_that_counts_may_not_be_there_twice(doors):
    scope = {"type": "http", "method": "GET", "path": "/v1/live", "client": ("10.0.0.1", 1), "query_string": b"", "scheme": "http"}
    for name in (b"Host", b"AUTHORIZATION", b"origin", b"sec-fetch-site"):
        sent = []

        async def send(message, sent=sent):
            sent.append(message)

        asyncio.run(doors.gatekeeper({**scope, "headers": [(name, b"a"), (name.lower(), b"b")]}, None, send))
        assert sent[0]["status"] == 400


def test_a_session_is_taken_from_the_services_own_pages_alone(doors):
    cookie = doors.cookie("write", "case 7")
    own_page = {"Cookie": cookie, "Sec-Fetch-Site": "same-origin"}
    reply = doors.ask("POST", "/v1/search", headers=own_page)
    assert (reply.status_code, reply.json()["caller"], reply.json()["purpose"]) == (200, "the-write", "case 7")
    assert doors.ask("POST", "/v1/search", headers={"Cookie": cookie, "Origin": "http://search.example"}).status_code == 200
    assert doors.ask("GET", "/v1/items/1", headers={"Cookie": cookie}).status_code == 200
    for forged in ({}, {"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}):
        assert doors.ask("POST", "/v1/search", headers={"Cookie": cookie, **forged}).status_code == 403
    assert doors.ask("GET", "/v1/items/1", headers={"Cookie": cookie, "Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert doors.ask("POST", "/v1/items/erase", headers=own_page).status_code == 403
    assert doors.ask("POST", "/v1/search", headers={**own_page, "Authorization": "Bearer x"}).status_code == 401
    assert doors.ask("GET", "/", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200  # a link to the page
    assert doors.ask("POST", "/v1/login", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403


def test_a_token_needs_no_sign_of_the_page_it_comes_from(doors):
    for headers in ({}, {"Origin": "http://other.example"}, {"Sec-Fetch-Site": "cross-site"}):
        assert doors.ask("POST", "/v1/search", role="search", headers=headers).status_code == 200


LOCAL_PATHS = [("GET", "/"), ("POST", "/v1/search"), ("GET", "/v1/items/1"), ("POST", "/v1/items/erase"), ("GET", "/none")]


@pytest.mark.parametrize(("method", "path"), LOCAL_PATHS)
def test_without_tokens_only_this_machine_by_its_own_name_is_answered(own, method, path):
    for client, host in (("10.1.2.3", "localhost"), ("127.0.0.1", "evil.example:8000"), ("127.0.0.1", "10.1.2.3")):
        assert own.ask(method, path, client=client, host=host).status_code == 403
        assert own.ask("GET", "/v1/live", client=client, host=host).status_code == 200
    for client, host in (("127.0.0.1", "localhost:8000"), ("::1", "[::1]:80"), ("127.0.0.1", "127.0.0.1")):
        assert own.ask(method, path, client=client, host=host).status_code in (200, 404)
    assert own.ask("POST", "/v1/items/erase", client="127.0.0.1", host="localhost").json()["caller"] == "local"


PROXIES = {
    "Forwarded": "for=10.1.2.3",
    "X-Forwarded-For": "10.1.2.3",
    "x-forwarded-proto": "https",
    "X-Forwarded-Host": "localhost",
    "X-Real-IP": "127.0.0.1",
    "Via": "1.1 squid",
    "True-Client-IP": "10.1.2.3",
    "CF-Connecting-IP": "10.1.2.3",
    "X-Client-IP": "10.1.2.3",
    "X-Envoy-External-Address": "10.1.2.3",
    "Proxy-Connection": "keep-alive",
}


@pytest.mark.parametrize("header", PROXIES)
def test_without_tokens_what_came_through_a_proxy_is_refused_and_told_why(own, doors, header):
    headers = {header: PROXIES[header]}
    for method, path in LOCAL_PATHS:
        refused = own.ask(method, path, headers=headers, client="127.0.0.1", host="localhost")
        assert refused.status_code == 403
        assert header.lower() in refused.json()["detail"]
        assert "access.tokens" in refused.json()["detail"]
    assert doors.ask("POST", "/v1/search", headers=headers, role="search").status_code == 200


def test_without_tokens_no_other_sites_page_acts_through_its_users_browser(own):
    local = {"client": "127.0.0.1", "host": "localhost:8000"}
    for headers, status in (
        ({}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost:8000"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:9000"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ):
        assert own.ask("POST", "/v1/items/erase", headers=headers, **local).status_code == status
    assert own.ask("GET", "/v1/items/1", headers={"Sec-Fetch-Site": "cross-site"}, **local).status_code == 403


def test_headers_of_ordinary_clients_are_no_sign_of_a_proxy(own):
    ordinary = {
        "User-Agent": "curl/8",
        "X-Request-ID": "7",
        "Accept": "*/*",
        "Origin": "http://localhost",
        "DNT": "1",
        "Sec-Fetch-User": "?1",
    }
    assert own.ask("POST", "/v1/search", headers=ordinary, client="127.0.0.1", host="localhost").status_code == 200


def test_wrong_tokens_are_limited_by_address_and_lock_nobody_else_out(doors):
    def guess(client):
        return doors.ask("POST", "/v1/search", headers={"Authorization": "Bearer guess"}, client=client)

    replies = [guess("10.9.9.9") for _ in range(12)]
    assert [reply.status_code for reply in replies] == [401] * 10 + [429] * 2
    assert 1 <= int(replies[-1].headers["retry-after"]) <= 60
    assert guess("10.9.9.8").status_code == 401
    assert doors.ask("POST", "/v1/search", role="search", client="10.9.9.9").status_code == 200
    assert [guess(f"2001:db8::{n:x}").status_code for n in range(1, 12)] == [401] * 10 + [429]


def test_searches_are_limited_by_caller_and_nothing_else_is(doors_with):
    doors = doors_with(limits=AccessConfig(searches_per_s=5, searches_at_once=5))
    replies = [doors.ask("POST", "/v1/search", role="search") for _ in range(8)]
    assert [reply.status_code for reply in replies] == [200] * 5 + [429] * 3
    assert replies[-1].headers["retry-after"] == "1"
    assert doors.ask("POST", "/v1/search", role="write").status_code == 200
    assert doors.ask("GET", "/v1/items/1", role="search").status_code == 200
    assert doors.gatekeeper.refused[429] == 3


def test_a_search_states_its_purpose_where_it_must(doors_with):
    doors = doors_with(audit=AuditConfig(purpose_required=True))
    assert doors.ask("POST", "/v1/search", role="search").status_code == 422
    for said, purpose in (("case 12", "case 12"), ("Fall%2012%3A%20%C3%84", "Fall 12: Ä")):
        reply = doors.ask("POST", "/v1/search", role="search", headers={"Reid-Purpose": said})
        assert reply.json()["purpose"] == purpose
    for bad in ("  ", "%20", "x" * 501):
        assert doors.ask("POST", "/v1/search", role="search", headers={"Reid-Purpose": bad}).status_code == 422
    assert doors.ask("GET", "/v1/items/1", role="search").status_code == 200
    cookie = {"Cookie": doors.cookie("search", "from login"), "Sec-Fetch-Site": "same-origin"}
    assert doors.ask("POST", "/v1/search", headers=cookie).json()["purpose"] == "from login"


def test_a_body_is_refused_by_its_length_or_as_soon_as_it_is_too_long(doors):
    sent = 0

    async def endless():
        nonlocal sent
        while True:
            sent += 400
            yield b"x" * 400

    reply = doors.ask("POST", "/v1/search", role="search", content=endless())
    assert (reply.status_code, "1000 bytes" in reply.json()["detail"]) == (413, True)
    assert sent <= 1600
    assert doors.ask("POST", "/v1/search", role="search", content=b"x" * 1001).status_code == 413
    assert doors.ask("GET", "/v1/items/1", role="search", content=b"x").status_code == 413
    assert doors.ask("POST", "/v1/search", role="search", content=b"x" * 1000).json()["bytes"] == 1000


def test_all_bodies_together_hold_no_more_memory_than_allowed(doors_with):
    rules = RouteTable({("POST", "/held"): RouteRule(None, 8 << 20), ("POST", "/spooled"): RouteRule(None, 8 << 20, spooled=True)})
    doors = doors_with(rules=rules, limits=AccessConfig(body_mb_in_hand=1))
    assert doors.ask("POST", "/held", content=bytes(2 << 20)).status_code == 503
    assert doors.ask("POST", "/spooled", content=bytes(2 << 20)).status_code == 200
    assert doors.ask("POST", "/held", content=bytes(1 << 20)).status_code == 200
    assert doors.gatekeeper._intake.held_bytes == 0


def test_every_request_that_counts_is_recorded_before_its_answer_with_what_the_route_noted(doors):
    reply = doors.ask("POST", "/v1/search", role="search", headers={"Reid-Purpose": "case 12"})
    (record,) = doors.recorded()
    assert {name: record[name] for name in ("who", "role", "verb", "outcome", "purpose", "items", "what", "request")} == {
        "who": "the-search",
        "role": "search",
        "verb": "search",
        "outcome": 200,
        "purpose": "case 12",
        "items": 3,
        "what": {"k": 20},
        "request": reply.headers["x-request-id"],
    }
    assert record["sought"] == [doors.access.audit.digests.sought("a red coat")]
    doors.ask("GET", "/v1/items/1", role="search")
    assert len(doors.recorded()) == 1


def test_a_change_is_on_record_before_it_is_begun(doors):
    doors.ask("POST", "/v1/items/erase", role="admin")
    assert [(record["verb"], record["outcome"], record["what"]) for record in doors.recorded()] == [
        ("asked", "begun", {"method": "POST", "path": "/v1/items/erase"})
    ]


def test_who_tried_what_they_may_not_is_recorded_and_a_flood_is_not(doors):
    doors.ask("POST", "/v1/items/erase", role="search")
    for _ in range(15):
        doors.ask("POST", "/v1/search", headers={"Authorization": "Bearer guess"})
        doors.ask("POST", "/v1/login", json={"token": "guess"}, client="10.7.7.7")
        doors.ask("GET", "/v1/none")
        doors.ask("POST", "/v1/login", headers={"Sec-Fetch-Site": "cross-site"})
    records = doors.recorded()
    assert [(record.get("who"), record["outcome"]) for record in records[:1]] == [("the-search", 403)]
    assert len(records) == 1 + 10 + 10
    verified(doors.folder / "state" / "audit")


def test_what_cannot_be_recorded_is_not_answered_and_nothing_is_changed(doors, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    asked = []
    doors.api.router.routes.insert(0, Route("/v1/items/erase", asked.append, methods=["POST"]))
    doors.ask("POST", "/v1/search", role="search")
    monkeypatch.setattr(os, "write", full)
    for path in ("/v1/search", "/v1/items/erase"):
        reply = doors.ask("POST", path, role="admin")
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "5")
        assert "audit log" in reply.json()["detail"]
    assert asked == []


def test_the_page_logs_in_with_a_token_and_out_again(doors):
    page = {"Sec-Fetch-Site": "same-origin"}
    reply = doors.ask("POST", "/v1/login", json={"token": doors.tokens["write"], "purpose": "case 3"}, headers=page)
    assert (reply.status_code, reply.json()) == (200, {"name": "the-write", "role": "write"})
    assert doors.tokens["write"] not in reply.headers["set-cookie"]
    session = {**page, "Cookie": reply.headers["set-cookie"].partition(";")[0]}
    assert doors.ask("POST", "/v1/search", headers=session).json()["purpose"] == "case 3"
    assert doors.ask("POST", "/v1/logout", headers=session).status_code == 204
    assert doors.ask("POST", "/v1/search", headers=session).status_code == 401
    verbs = [(record["verb"], record["who"], record.get("purpose")) for record in doors.recorded() if "who" in record]
    assert verbs == [("login", "the-write", "case 3"), ("search", "the-write", "case 3"), ("logout", "the-write", None)]


def test_a_login_that_is_none_is_refused(doors, own):
    for body, status in (
        ({"token": "x"}, 401),
        ({"token": 5}, 422),
        ({}, 422),
        ({"token": doors.tokens["search"], "purpose": "x" * 501}, 422),
        ({"token": doors.tokens["search"], "colour": 1}, 422),
        ({"token": "x" * 9000}, 413),
    ):
        reply = doors.ask("POST", "/v1/login", json=body)
        assert (reply.status_code, "set-cookie" in reply.headers) == (status, False)
    assert own.ask("POST", "/v1/login", json={"token": "x"}, client="127.0.0.1", host="localhost").status_code == 409


def test_an_administrator_reads_and_verifies_the_audit_log_and_others_do_not(doors):
    for _ in range(5):
        doors.ask("POST", "/v1/search", role="search")
    assert [doors.ask("GET", path, role="write").status_code for path in ("/v1/audit", "/v1/audit/verify")] == [403, 403]
    page = doors.ask("GET", "/v1/audit", role="admin", params={"limit": 4}).json()
    assert [record["n"] for record in page["records"]] == [8, 7, 6, 5]
    assert [record["n"] for record in doors.ask("GET", "/v1/audit", role="admin", params={"before": page["before"]}).json()["records"]] == [
        4,
        3,
        2,
        1,
    ]
    verdict = doors.ask("GET", "/v1/audit/verify", role="admin").json()
    assert (verdict["sound"], verdict["fault"]) == (True, None)
    (path,) = (doors.folder / "state" / "audit").glob("*.jsonl")
    path.write_bytes(path.read_bytes().replace(b'"search"', b'"delete"', 1))
    verdict = doors.ask("GET", "/v1/audit/verify", role="admin").json()
    assert (verdict["sound"], "line 2" in verdict["fault"]) == (False, True)


def test_a_session_ends_when_its_token_is_revoked(doors):
    cookie = {"Cookie": doors.cookie("search"), "Sec-Fetch-Site": "same-origin"}
    assert doors.ask("POST", "/v1/search", headers=cookie).status_code == 200
    revoke_token(doors.folder / "tokens.json", "the-search")
    doors.book._looked -= 2
    assert doors.ask("POST", "/v1/search", headers=cookie).status_code == 401


@pytest.fixture
def address(doors):
    """Where a real server has the guarded application."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(doors.api, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.005)
        yield listening.getsockname()
        server.should_exit = True
        thread.join(10)


def slow_body(address, token, *, length=900):
    """A connection that has sent the head of a request and one byte of its body."""
    connection = socket.create_connection(address, timeout=10)
    head = f"POST /v1/search HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nContent-Length: {length}\r\n\r\nx"
    connection.sendall(head.encode())
    return connection


@pytest.mark.slow
def test_hundreds_of_slow_bodies_freeze_nothing(doors, address):
    url = f"http://{address[0]}:{address[1]}"
    headers = {"Authorization": f"Bearer {doors.tokens['search']}"}
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(slow_body(address, doors.tokens["search"])) for _ in range(250)]
        http = stack.enter_context(httpx.Client(base_url=url, trust_env=False, timeout=5))
        times = []
        for _ in range(20):
            start = time.perf_counter()
            assert http.get("/v1/live").status_code == 200
            reply = http.post("/v1/search", content=b"y" * 900, headers=headers)
            assert reply.status_code == 200
            times.append(time.perf_counter() - start)
            time.sleep(0.02)
        assert max(times) < 1
        answers = [each.recv(4096).split(b"\r\n")[0] for each in slow]
    statuses = {answer.split()[1] for answer in answers}
    assert statuses <= {b"408", b"503"}
    assert b"408" in statuses
    assert doors.gatekeeper._intake.held_bytes == 0
    assert not doors.gatekeeper._intake._reading


@pytest.mark.slow
def test_a_slow_body_gives_way_to_a_quicker_one_and_is_told_so(doors_with):
    doors = doors_with(limits=AccessConfig(bodies_in_hand=2, body_timeout_s=30))

    async def ask(parts, pause):
        async def body():
            for part in parts:
                yield part
                await asyncio.sleep(pause)

        transport = httpx.ASGITransport(app=doors.api)
        async with httpx.AsyncClient(transport=transport, base_url="http://search.example") as http:
            return await http.post("/v1/search", content=body(), headers={"Authorization": f"Bearer {doors.tokens['search']}"})

    async def together():
        slow = [asyncio.ensure_future(ask([b"x"] * 40, pause)) for pause in (0.05, 0.1)]
        await asyncio.sleep(1.1)
        quick = await ask([b"x"] * 10, 0.04)
        return quick, await asyncio.gather(*slow)

    quick, slow = asyncio.run(together())
    assert quick.status_code == 200
    assert [reply.status_code for reply in slow] == [200, 503]
    assert slow[1].headers["retry-after"] == "5"
