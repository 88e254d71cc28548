"""Changes over HTTP: what they answer, refuse and remember, and that an upload is read as it comes, under its limits."""

import errno
import json
import threading
from datetime import UTC, datetime, timedelta

import pytest
from opened_doors import with_tokens
from plain_encoder import PlainEncoder, picture_of, png_of
from whole_services import asked, service

from reid_ray.gallery.gallery_writer import GalleryWriter
from reid_ray.serve.api.application import make_api
from reid_ray.serve.api.upkeep.change_answers import ChangeDoer
from reid_ray.serve.api.upkeep.job_routes import job_routes, job_rules


@pytest.fixture(scope="module")
def replica(tmp_path_factory):
    with service(tmp_path_factory.mktemp("service"), most_mb=1, most_files=20) as (replica,):
        yield replica


@pytest.fixture
def filled(replica):
    """The service with a, b and c, by its own means, and nothing else."""
    asked(replica, ("POST", "/v1/items/delete", {"json": {"where": {"added_s": {"from": 0}}}}))
    reply = add(replica, *"abc")
    assert reply.json()["counts"]["added"] == 3, reply.text
    return replica


def form(*names, **fields):
    items = [{"file": f"{name}.png", "item_id": name, "camera_id": at} for at, name in enumerate(names)]
    data = {"items": json.dumps(items), **fields}
    return {"files": [("image", (f"{name}.png", png_of(name))) for name in names], "data": data}


def add(replica, *names, wait=20, **fields):
    return asked(replica, ("POST", f"/v1/jobs?wait={wait}", form(*names, **fields)))


def items(replica):
    return {each["item_id"] for each in asked(replica, ("POST", "/v1/browse", {"json": {"k": 100}})).json()["items"]}


@pytest.mark.slow
def test_what_is_added_is_found_at_once_by_the_process_that_added_it(filled):
    reply = asked(filled, ("POST", "/v1/search", {"json": {"text": "b", "k": 1}})).json()
    assert [(hit["item_id"], hit["item"]["camera_id"]) for hit in reply["hits"]] == [("b", 1)]
    assert reply["hits"][0]["score"] == pytest.approx(1.0, abs=1e-5)
    assert asked(filled, ("GET", reply["hits"][0]["thumbnail"])).content[:2] == b"\xff\xd8"


def test_deleting_answers_how_many_there_were_and_where_the_gallery_stands(filled):
    reply = asked(filled, ("POST", "/v1/items/delete", {"json": {"item_ids": ["a", "nobody"]}}))
    assert reply.status_code == 200
    assert (reply.json()["deleted"], reply.json()["items"], items(filled)) == (1, 2, {"b", "c"})
    reply = asked(filled, ("POST", "/v1/items/delete", {"json": {"where": {"camera_id": [1, 2]}, "expect": 3}}))
    assert (reply.status_code, items(filled)) == (409, {"b", "c"})


def test_an_erasure_has_a_deadline_then_a_receipt(filled):
    first = asked(filled, ("POST", "/v1/items/erase", {"json": {"item_ids": ["a"], "request": "late"}})).json()
    assert (first["done"], first["receipt"], items(filled)) == (False, None, {"b", "c"})
    now = asked(filled, ("POST", "/v1/items/erase", {"json": {"where": {"camera_id": 1}, "request": "soon", "now": True}})).json()
    assert (now["done"], now["receipt"]["items"]) == (True, 1)
    listed = asked(filled, ("GET", "/v1/erasures")).json()["erasures"]
    assert {each["request"]: each["done"] for each in listed} == {"late": True, "soon": True}
    assert asked(filled, ("GET", "/v1/erasures/soon")).json() == next(each for each in listed if each["request"] == "soon")
    assert asked(filled, ("GET", "/v1/erasures/..%2f..%2fsecret")).status_code in (404, 422)


def test_snapshots_and_compaction(filled):
    assert asked(filled, ("POST", "/v1/snapshots", {"json": {"name": "kept"}})).json()["items"] == 3
    assert asked(filled, ("POST", "/v1/snapshots", {"json": {"name": "kept"}})).status_code == 409
    asked(filled, ("POST", "/v1/items/delete", {"json": {"item_ids": ["a", "b"]}}))
    assert asked(filled, ("POST", "/v1/snapshots/kept/restore")).json()["items"] == 3
    assert items(filled) == {*"abc"}
    said = asked(filled, ("GET", "/v1/generations")).json()
    assert [each["name"] for each in said["snapshots"]] == ["kept"]
    assert asked(filled, ("DELETE", "/v1/snapshots/kept")).status_code == 200
    assert asked(filled, ("DELETE", "/v1/snapshots/kept")).status_code == 404
    job = asked(filled, ("POST", "/v1/compact"))
    assert job.status_code == 202
    assert asked(filled, ("GET", f"/v1/jobs/{job.json()['job_id']}?wait=20")).json()["state"] == "done"


def test_a_change_that_is_asked_for_again_by_its_key_is_answered_the_same(filled):
    change = ("POST", "/v1/items/delete", {"json": {"where": {"camera_id": 0}, "expect": 1}, "headers": {"Idempotency-Key": "one"}})
    first, again = asked(filled, change, change)
    assert (first.status_code, again.json()) == (200, first.json())
    other = ("POST", "/v1/items/delete", {"json": {"item_ids": ["b"]}, "headers": {"Idempotency-Key": "one"}})
    assert asked(filled, other).status_code == 422
    assert items(filled) == {"b", "c"}
    upload = ("POST", "/v1/jobs?wait=20", {**form("x"), "headers": {"Idempotency-Key": "upload"}})
    jobs = asked(filled, upload, upload)
    assert jobs[0].json()["job_id"] == jobs[1].json()["job_id"]


def test_a_gallery_that_another_process_writes_is_said_to_be_busy(filled):
    filled.writing.turns._config.__dict__["wait_s"] = 0.2
    try:
        with GalleryWriter(filled.writing.gallery, wait_s=5):
            reply = asked(filled, ("POST", "/v1/items/delete", {"json": {"item_ids": ["a"]}}))
        assert (reply.status_code, reply.headers["retry-after"], "process" in reply.json()["detail"]) == (503, "2", True)
    finally:
        filled.writing.turns._config.__dict__["wait_s"] = 15.0
    assert items(filled) == {*"abc"}


def test_a_gallery_that_cannot_be_written_to_is_said_in_a_sentence(filled, monkeypatch):
    def full(*words, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(GalleryWriter, "delete", full)
    reply = asked(filled, ("POST", "/v1/items/delete", {"json": {"item_ids": ["a"]}}))
    assert (reply.status_code, "No space left" in reply.json()["detail"]) == (503, True)
    monkeypatch.undo()
    assert asked(filled, ("POST", "/v1/items/delete", {"json": {"item_ids": ["a"]}})).json()["deleted"] == 1


class Blocked(PlainEncoder):
    """Embeds no picture until it is let go."""

    def __init__(self):
        self.arrived, self.go = threading.Event(), threading.Event()

    def encode_images(self, pictures):
        if len(pictures) > 1:  # a job's
            self.arrived.set()
            self.go.wait(20)
        return super().encode_images(pictures)

    def encode_texts(self, texts):
        return super().encode_images([picture_of(text) for text in texts])


@pytest.mark.slow
def test_searches_are_answered_while_a_job_embeds(tmp_path):
    encoder = Blocked()
    with service(tmp_path, encoder=encoder) as (replica,):
        job = add(replica, *"abc", wait=0).json()
        assert encoder.arrived.wait(20)
        for _ in range(3):
            assert asked(replica, ("POST", "/v1/search", {"json": {"text": "a"}})).status_code == 200
        assert asked(replica, ("GET", f"/v1/jobs/{job['job_id']}")).json()["state"] == "running"
        encoder.go.set()
        assert asked(replica, ("GET", f"/v1/jobs/{job['job_id']}?wait=20")).json()["counts"]["added"] == 3


def multipart(*parts, end=b"--B--\r\n"):
    body = b"".join(b"--B\r\n" + head + b"\r\n\r\n" + data + b"\r\n" for head, data in parts) + end
    return {"content": body, "headers": {"content-type": "multipart/form-data; boundary=B"}}


IMAGE = b'Content-Disposition: form-data; name="image"; filename="a.png"'
ITEMS = b'Content-Disposition: form-data; name="items"'


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"json": {}}, 422),
        ({}, 422),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=B"}}, 400),
        (multipart((IMAGE, b"x"), end=b""), 400),
        (multipart(), 422),
        (multipart((IMAGE, b"x"), (b'Content-Disposition: form-data; name="other"', b"x")), 422),
        (multipart((IMAGE, b"x"), (ITEMS, b"[]"), (ITEMS, b"[]")), 422),
        (multipart((IMAGE, b"x"), (IMAGE, b"x")), 422),
        (multipart((b"X-Nothing: here", b"x")), 422),
        (multipart((IMAGE, b"x"), (ITEMS, b"\xff")), 422),
        (multipart((IMAGE, b"x"), (ITEMS, b"[" * 100_000)), 422),
        (multipart((IMAGE, b"x"), (ITEMS, b'[{"file": "a.png", "zone": NaN}]')), 422),
        (multipart((IMAGE, b"x"), (ITEMS, b'{"file": "a.png"}')), 422),
        (multipart((IMAGE, b"x"), (b'Content-Disposition: form-data; name="caption"', b"yes")), 422),
        (multipart((IMAGE, b"x"), (b'Content-Disposition: form-data; name="caption"', b"true")), 422),
        (multipart((IMAGE, b"x"), (b'Content-Disposition: form-data; name="table"; filename="t"', b"x")), 422),
        (multipart((b'Content-Disposition: form-data; name="table"; filename="t"', b"PAR1 no table PAR1")), 422),
        (multipart((IMAGE, bytes((1 << 20) + 1))), 413),
        (multipart(*[(IMAGE.replace(b"a.png", b"%d.png" % n), b"x") for n in range(21)]), 413),
        ({**multipart((IMAGE, b"x")), "params": {"wait": "nan"}}, 422),
        ({**multipart((IMAGE, b"x")), "params": {"wait": "61"}}, 422),
    ],
)
def test_an_upload_that_is_none_is_refused_in_a_sentence_and_leaves_nothing(replica, options, status):
    before = len(asked(replica, ("GET", "/v1/jobs")).json()["jobs"])
    reply = asked(replica, ("POST", "/v1/jobs", options))
    assert (reply.status_code, list(reply.json())) == (status, ["detail"]), reply.text
    assert len(asked(replica, ("GET", "/v1/jobs")).json()["jobs"]) == before
    assert list((replica.writing.board._jobs).glob(".new-*")) == []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/items/delete", {}),
        ("/v1/items/delete", {"item_ids": [], "where": {"camera_id": 1}}),
        ("/v1/items/delete", {"item_ids": []}),
        ("/v1/items/delete", {"item_ids": [""]}),
        ("/v1/items/delete", {"item_ids": [5]}),
        ("/v1/items/delete", {"where": {}}),
        ("/v1/items/delete", {"where": {"nothing": 5}}),
        ("/v1/items/delete", {"where": {"camera_id": {"from": "x"}}}),
        ("/v1/items/delete", {"where": {"camera_id": 1}, "expect": "5"}),
        ("/v1/items/delete", {"where": {"camera_id": 1}, "expect": True}),
        ("/v1/items/delete", {"where": {"camera_id": 1}, "expect": -1}),
        ("/v1/items/delete", {"item_ids": ["a"], "more": 1}),
        ("/v1/items/erase", {"item_ids": ["a"]}),
        ("/v1/items/erase", {"item_ids": ["a"], "request": "../x"}),
        ("/v1/items/erase", {"item_ids": ["a"], "request": "x\n"}),
        ("/v1/items/erase", {"item_ids": ["a"], "request": "x", "now": 1}),
        ("/v1/snapshots", {"name": ""}),
        ("/v1/snapshots", {"name": "a/b"}),
        ("/v1/snapshots", None),
    ],
)
def test_a_change_that_is_none_is_refused_and_changes_nothing(filled, path, body):
    reply = asked(filled, ("POST", path, {"json": body}))
    assert (reply.status_code, list(reply.json())) == (422, ["detail"]), reply.text
    assert items(filled) == {*"abc"}


@pytest.mark.parametrize("key", ["", "x" * 201, "\x01"])
def test_a_key_that_is_none_is_refused(filled, key):
    reply = asked(filled, ("POST", "/v1/items/delete", {"json": {"item_ids": ["a"]}, "headers": {"Idempotency-Key": key}}))
    assert (reply.status_code, items(filled)) == (422, {*"abc"})


@pytest.mark.slow
def test_jobs_that_are_not_there_are_404_and_finished_ones_cannot_be_cancelled(filled):
    assert asked(filled, ("GET", "/v1/jobs/nothing")).status_code == 404
    assert asked(filled, ("DELETE", "/v1/jobs/nothing")).status_code == 404
    job = asked(filled, ("GET", "/v1/jobs")).json()["jobs"][0]
    assert asked(filled, ("DELETE", f"/v1/jobs/{job['job_id']}")).status_code == 409


def test_a_compaction_that_waits_is_cancelled_by_an_admin_alone(filled, tmp_path, monkeypatch):
    monkeypatch.setattr(filled.writing.board, "_next", lambda: None)  # its thread does not take it up
    job = asked(filled, ("POST", "/v1/compact")).json()["job_id"]
    access, tokens = with_tokens(tmp_path)
    routes = job_routes(filled.writing, ChangeDoer(filled.writing.answers)), job_rules(filled.writing.board.config)
    monkeypatch.setattr(filled, "api", make_api(filled.operations, access=access, further=[routes]))
    cancel = [("DELETE", f"/v1/jobs/{job}", {"headers": {"Authorization": f"Bearer {tokens[role]}"}}) for role in ("write", "admin")]
    refused, cancelled = asked(filled, *cancel)
    access.close()
    assert (refused.status_code, "only the role admin" in refused.json()["detail"]) == (403, True)
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")


@pytest.mark.slow
def test_jobs_are_listed_by_pages_with_the_first_of_what_they_refused(filled):
    broken = [("image", (f"{n}.png", b"no picture")) for n in range(15)]
    job = asked(filled, ("POST", "/v1/jobs?wait=20", {"files": broken})).json()
    before = datetime.fromisoformat(job["asked"])
    assert timedelta(0) <= datetime.now(UTC) - before < timedelta(minutes=5)
    assert len(job["refused"]) == 15
    first = asked(filled, ("GET", "/v1/jobs?limit=1")).json()
    assert [(each["job_id"], len(each["refused"]), each["counts"]["refused"]) for each in first["jobs"]] == [(job["job_id"], 10, 15)]
    rest = asked(filled, ("GET", "/v1/jobs", {"params": {"limit": 1000, "before": first["before"]}})).json()
    whole = asked(filled, ("GET", "/v1/jobs")).json()
    assert [each["job_id"] for each in whole["jobs"]] == [job["job_id"], *(each["job_id"] for each in rest["jobs"])]
    assert rest["before"] is whole["before"] is None
    assert asked(filled, ("GET", "/v1/jobs?of=unfinished")).json() == {"jobs": [], "before": None}
    for wrong in ("limit=0", "limit=1001", "of=some", f"before={'x' * 301}"):
        assert asked(filled, ("GET", f"/v1/jobs?{wrong}")).status_code == 422
