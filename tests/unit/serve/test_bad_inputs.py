"""What a service is asked that it cannot do gets its status and one sentence as JSON, and the next question is answered."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
from bad_inputs import LIMITS, bad_inputs
from small_services import Reading, small_gallery
from whole_services import service

BAD_INPUTS = list(bad_inputs())


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """asked(method, path, ...) -> response of one application that lives as long as this module."""
    folder = tmp_path_factory.mktemp("bad")
    small_gallery(folder / "gallery")
    with service(folder, encoder=Reading(), limits=LIMITS) as (replica,), asyncio.Runner() as runner:
        transport = httpx.ASGITransport(app=replica.api, client=("127.0.0.1", 5), raise_app_exceptions=False)
        http = httpx.AsyncClient(transport=transport, base_url="http://localhost")
        yield lambda method, path, **options: runner.run(http.request(method, path, **options))
        runner.run(http.aclose())


def test_the_table_has_at_least_a_hundred_rows_that_differ():
    assert len({str(bad) for bad in BAD_INPUTS}) == len(BAD_INPUTS) >= 100


@pytest.mark.parametrize("bad", BAD_INPUTS, ids=str)
def test_a_bad_input_gets_its_status_and_a_sentence_that_names_what_is_wrong(asked, bad):
    reply = asked(bad.method, bad.path, **bad.options)
    assert reply.status_code in (bad.status if isinstance(bad.status, tuple) else (bad.status,)), reply.text[:300]
    if reply.status_code >= 400:
        assert reply.headers["content-type"] == "application/json"
        assert list(json.loads(reply.content)) == ["detail"]
        detail = reply.json()["detail"]
        assert isinstance(detail, str)
        assert bad.names.lower() in detail.lower()
        assert 0 < len(detail) < 600
        assert "Traceback" not in detail
    assert asked("POST", "/v1/search", json={"text": "3", "k": 1}).json()["hits"][0]["item_id"] == "3"


@pytest.mark.parametrize(
    "other",
    [{"text": "2"}, {"text": "1", "where": {"camera_id": 1}}, {"text": "1", "threshold": 0.1}, {"text": "1", "without": ["5"]}],
    ids=["another text", "another filter", "another threshold", "another item left out"],
)
def test_a_cursor_goes_on_with_its_own_search_alone(asked, other):
    first = asked("POST", "/v1/search", json={"text": "1", "k": 2}).json()
    assert asked("POST", "/v1/search", json={"text": "1", "k": 2, "cursor": first["cursor"]}).status_code == 200
    reply = asked("POST", "/v1/search", json={**other, "k": 2, "cursor": first["cursor"]})
    assert reply.status_code == 422
    assert "cursor" in reply.json()["detail"]
    assert asked("POST", "/v1/browse", json={"k": 2, "cursor": first["cursor"]}).status_code in (409, 422)


@pytest.mark.parametrize(
    ("kind", "body", "said"),
    [
        (None, b'{"text": "a"}', "is of no stated type; send an object in JSON, with the header Content-Type: application/json"),
        ("text/plain", b'{"text": "a"}', "is not said to be JSON; send an object in JSON, with the header Content-Type: application/json"),
        ("application/x-www-form-urlencoded", b"text=a", "is not said to be JSON"),
        ("application/json", b"[" * 5_000, "cannot be read as JSON; it may be nested too deeply"),
        ("application/json; charset=utf-8", b"[1]", "Input should be a valid"),
    ],
    ids=["none", "text", "form", "deep", "list"],
)
def test_a_body_of_another_kind_is_told_what_to_send(asked, kind, body, said):
    reply = asked("POST", "/v1/search", content=body, headers={} if kind is None else {"content-type": kind})
    assert reply.status_code in (400, 422)
    assert said in reply.json()["detail"]


def test_a_body_that_is_no_json_is_told_where_it_breaks(asked):
    reply = asked("POST", "/v1/search", content=b'{"text": "a",, "k": 1}', headers={"content-type": "application/json"})
    assert reply.status_code == 422
    assert "no JSON from its character 1" in reply.json()["detail"]
