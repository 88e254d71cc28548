"""The access log says who asked which route with which outcome, and what was searched for only where it is told to."""

import json
import stat

import pytest
from opened_doors import own_machine
from small_services import sent, small_gallery, small_operations

from reid_ray.serve.access.config import AccessLogConfig
from reid_ray.serve.api.application import make_api


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    return small_gallery(tmp_path_factory.mktemp("gallery"))


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("texts", [False, True])
def test_a_line_for_each_request_and_texts_where_they_are_asked_for(gallery, tmp_path, texts):
    path = tmp_path / "access.jsonl"
    config = AccessLogConfig(path=str(path), texts=texts)
    api = make_api(small_operations(gallery), access=own_machine(tmp_path), access_log=config)
    sent(api, "POST", "/v1/search", json={"text": "3 canary"})
    sent(api, "GET", "/v1/items?id=canary")
    sent(api, "GET", "/canary")
    sent(api, "POST", "/v1/search", json={"text": ""}, headers={"x-request-id": "mine"})
    found = lines(path)
    assert [(each["method"], each["route"], each["status"]) for each in found] == [
        ("POST", "/v1/search", 200),
        ("GET", "/v1/items", 404),
        ("GET", None, 404),
        ("POST", "/v1/search", 422),
    ]
    assert found[3]["request"] == "mine"
    assert all(each["ms"] >= 0 and each["from"] and each["who"] for each in (found[0], found[1], found[3]))
    assert [each.pop("texts", None) for each in found[:3]] == ([["3 canary"], None, None] if texts else [None] * 3)
    assert "canary" not in str(found[:3])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.slow
def test_a_log_that_is_moved_away_is_begun_anew_and_one_that_cannot_be_written_fails_no_request(gallery, tmp_path, capsys):
    path = tmp_path / "logs" / "access.jsonl"
    path.parent.mkdir()
    api = make_api(small_operations(gallery), access=own_machine(tmp_path), access_log=AccessLogConfig(path=str(path)))
    sent(api, "GET", "/v1/live")
    path.rename(path.with_name("old"))
    sent(api, "GET", "/v1/live")
    assert [len(lines(each)) for each in (path, path.with_name("old"))] == [1, 1]
    path.unlink()
    path.mkdir()
    assert sent(api, "GET", "/v1/live").status_code == 200
