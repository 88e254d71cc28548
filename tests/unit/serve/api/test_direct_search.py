"""A plain question is answered without the framework's layers, and nobody who asks can tell."""

import asyncio
import json

import httpx
import pytest
from bad_inputs import LIMITS, bad_inputs
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from opened_doors import own_machine
from small_services import small_gallery, small_operations

from reid_ray.serve.api import direct_search
from reid_ray.serve.api.application import make_api
from reid_ray.serve.api.direct_search import DirectSearch
from reid_ray.serve.operations.search_operations import (
    IncompleteError,
    LateError,
    OverloadedError,
    QueryFailedError,
    RefusedError,
    StartingError,
)

JSON, OF_ROUTE = "application/json", "application/json; charset=utf-8"
BODIES = {
    bad.what: bad.options["content"] for bad in bad_inputs() if bad.path == "/v1/search" and bad.status != 413 and "content" in bad.options
}
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 60), st.floats(), st.text(max_size=5), st.lists(st.sampled_from(["1", "2"]), max_size=2)
)
CLUES = st.lists(
    st.fixed_dictionaries({}, optional={"text": st.sampled_from(["1 a", "nan"]), "item": st.text(max_size=3), "weight": VALUES})
)
QUESTIONS = st.fixed_dictionaries(
    {},
    optional={
        "text": st.sampled_from(["3 red", "1 one two three four five six", "nan", "", "x"]) | VALUES,
        "clues": CLUES | VALUES,
        "where": st.dictionaries(st.sampled_from(["camera_id", "other"]), VALUES, max_size=2),
        **dict.fromkeys(("k", "without", "threshold", "one_per", "cursor", "rerank", "exact", "unknown"), VALUES),
    },
)


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    folder = small_gallery(tmp_path_factory.mktemp("direct"))
    operations = small_operations(folder, LIMITS)
    api = make_api(operations, access=own_machine(folder.parent, audit=True))

    def both(body):
        """What the direct way says, and what the route does."""

        async def run():
            transport = httpx.ASGITransport(app=api, client=("127.0.0.1", 5), raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                return [await client.post("/v1/search", content=body, headers={"content-type": kind}) for kind in (JSON, OF_ROUTE)]

        return [seen(reply) for reply in asyncio.run(run())]

    yield both
    operations.close()


def seen(reply):
    """What does not differ from one asking to the next."""
    answer = reply.json()
    answer.pop("latency_ms", None)
    headers = {name: value for name, value in reply.headers.items() if name not in ("x-request-id", "content-length")}
    return reply.status_code, answer, headers


@pytest.mark.parametrize("what", BODIES)
def test_a_bad_body_gets_the_same_answer(asked, what):
    direct, of_route = asked(BODIES[what])
    assert direct == of_route


@given(QUESTIONS)
@settings(max_examples=examples(60), deadline=None)
def test_any_question_gets_the_same_answer(asked, question):
    direct, of_route = asked(json.dumps(question).encode())
    assert direct == of_route


@pytest.mark.parametrize(
    "error", [StartingError(), OverloadedError(), IncompleteError(), LateError(), QueryFailedError("x"), RefusedError("x")]
)
def test_an_error_of_the_search_gets_the_same_answer(tmp_path, monkeypatch, error):
    operations = small_operations(small_gallery(tmp_path))

    async def failing(*_):
        raise error

    monkeypatch.setattr(operations, "search", failing)
    direct, of_route = (
        seen(posted(make_api(operations, access=own_machine(tmp_path)), {"content-type": kind})) for kind in (JSON, OF_ROUTE)
    )
    assert direct == of_route
    assert direct[0] >= 400
    operations.close()


def test_the_framework_is_not_asked_about_a_good_question(tmp_path):
    async def framework(scope, receive, send):
        raise AssertionError

    operations = small_operations(small_gallery(tmp_path))
    direct = DirectSearch(framework, operations=operations)

    async def with_state(scope, receive, send):
        await direct({**scope, "state": {}}, receive, send)

    assert posted(with_state, {"content-type": JSON}).json()["hits"][0]["item_id"] == "3"
    operations.close()


def test_a_question_is_answered_once_and_counted_by_its_route(tmp_path, monkeypatch):
    operations, asked = small_operations(small_gallery(tmp_path)), []
    real = operations.search

    async def counted(query, *others):
        asked.append(query)
        return await real(query, *others)

    monkeypatch.setattr(operations, "search", counted)
    api = make_api(operations, access=own_machine(tmp_path))
    posted(api, {"content-type": JSON})
    posted(api, {"content-type": JSON}, b'{"text": 3}')
    assert len(asked) == 1
    metrics = asyncio.run(call(api, "GET", "/metrics")).text
    for status in (200, 422):
        assert f'reid_ray_service_requests_total{{method="POST",route="/v1/search",status="{status}"}} 1.0' in metrics
    operations.close()


def test_who_leaves_before_the_body_is_whole_is_not_searched_for(tmp_path, monkeypatch):
    async def never(*_):
        raise AssertionError

    monkeypatch.setattr(direct_search, "answered", never)
    operations, sent = small_operations(small_gallery(tmp_path)), []
    parts = [{"type": "http.request", "body": b'{"text": "3"}', "more_body": True}, {"type": "http.disconnect"}]

    async def receive():
        return parts.pop(0)

    async def send(message):
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/v1/search", "headers": headers, "client": ("127.0.0.1", 5), "query_string": b""}
    asyncio.run(make_api(operations, access=own_machine(tmp_path))(scope, receive, send))
    assert sent == []
    operations.close()


async def call(api, method, path, **options):
    transport = httpx.ASGITransport(app=api, client=("127.0.0.1", 5), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        return await client.request(method, path, **options)


def posted(api, headers, body=b'{"text": "3 red"}'):
    return asyncio.run(call(api, "POST", "/v1/search", content=body, headers=headers))
