"""The application without Ray: what is answered and refused, with which status and sentence, and who may ask."""

import base64
import subprocess
import sys
import threading
import time

import httpx
import numpy as np
import pytest
from opened_doors import own_machine, with_tokens
from pydantic import ValidationError
from refusals import refused
from small_services import CAMERAS, ITEMS, Reading, red_jpeg, sent, small_gallery, small_operations

from reid_ray.errors import DataError, ResourceError
from reid_ray.serve.access.audit.chain_check import records_of
from reid_ray.serve.access.gatekeeper import Gatekeeper
from reid_ray.serve.access.roles import AccessRole
from reid_ray.serve.access.tokens.token_file import create_token
from reid_ray.serve.api.application import make_api
from reid_ray.serve.api.schema import BatchOut, BrowseOut, FacetsOut, InfoOut, ItemOut, SearchOut
from reid_ray.serve.client import SearchClient
from reid_ray.serve.config import SearcherConfig, ServeConfig, ServeJob
from reid_ray.serve.opened_access import check_access
from reid_ray.serve.process.doorway import Doorway
from reid_ray.versions import number_of

LIMITS = ServeConfig(max_text_chars=100, max_upload_bytes=4096, max_k=50, timeout_s=60)


class Moody(Reading):
    """Sleeps or fails where the text says so."""

    def encode_and_measure(self, texts):
        if any("sleep" in text for text in texts):
            time.sleep(1.0)
        if any("incomplete" in text for text in texts):
            raise ResourceError("a share is lost")
        return super().encode_and_measure(texts)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small_gallery(tmp_path_factory.mktemp("served") / "gallery")


@pytest.fixture(scope="module")
def operations(folder):
    return small_operations(folder, LIMITS, encoder=Moody())


@pytest.fixture(scope="module")
def access(tmp_path_factory):
    """Of a service without tokens."""
    return own_machine(tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="module")
def send(operations, access):
    """send(method, path, ...) -> response, from a client address, of a service without tokens."""
    made = {}

    def send(method, path, *, of=operations, **options):
        if of not in made:
            made[of] = make_api(of, access=access)
        return sent(made[of], method, path, **options)

    return send


@pytest.mark.slow
def test_a_text_gives_the_best_items_with_all_their_columns(send):
    reply = send("POST", "/v1/search", json={"text": "  4 🧥👜 ", "where": {"camera_id": [1, 2]}})
    assert reply.status_code == 200
    body = reply.json()
    assert time.time() - body["hits"][0]["item"].pop("added_s") < 3600
    assert body["hits"][0] == {
        "rank": 1,
        "score": 1.0,
        "generation": body["generation"],
        "item_id": "4",
        "item": {"item_id": "4", "image_id": "4.jpg", "person_id": 2, "camera_id": 1},
        "thumbnail": "v1/thumbnails?id=4",
    }
    assert {hit["item"]["camera_id"] for hit in body["hits"]} == {1, 2}
    assert (body["k"], body["gallery"], body["truncated"]) == (LIMITS.default_k, ITEMS, False)


@pytest.mark.parametrize(
    ("method", "path", "options", "model"),
    [
        ("POST", "/v1/search", {"json": {"text": "1", "k": 2}}, SearchOut),
        ("POST", "/v1/search/batch", {"json": {"questions": [{"text": "1"}, {"text": ""}]}}, BatchOut),
        ("POST", "/v1/browse", {"json": {}}, BrowseOut),
        ("POST", "/v1/facets", {"json": {"columns": ["camera_id", "image_id"]}}, FacetsOut),
        ("GET", "/v1/items?id=3", {}, ItemOut),
        ("GET", "/v1/info", {}, InfoOut),
    ],
)
def test_answers_have_the_shape_that_openapi_says(send, method, path, options, model):
    body = send(method, path, **options).json()
    assert model.model_validate(body).model_dump() == body


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        ({"text": ""}, 422, "the query is empty"),
        ({"text": " \n\t "}, 422, "the query is empty"),
        ({"text": "x" * 101}, 422, "101 characters; the longest allowed is 100"),
        ({"text": "x" * 1_000_000}, 413, "larger than"),
        ({"text": "1", "k": 0}, 422, "k: "),
        ({"text": "1", "k": 51}, 422, "the most allowed is 50"),
        ({"text": "1", "k": "5"}, 422, "k: "),
        ({"text": "1", "k": True}, 422, "k: "),
        ({"text": "1", "k": 5.0}, 422, "k: "),
        ({"text": "1", "rerank": 51}, 422, "rerank: 51"),
        ({"text": "1", "where": {"colour": "red"}}, 422, "filter colour"),
        ({"text": "1", "where": {"camera_id": "one"}}, 422, "filter camera_id"),
        ({"text": "1", "one_per": "colour"}, 422, "one_per"),
        ({"text": "1", "cursor": "x"}, 422, "cursor"),
        ({"text": "1", "colour": "red"}, 422, "colour: "),
        ({"text": 1}, 422, "text: "),
        ({"text": "1", "clues": [{"text": "2"}]}, 422, "text or clues"),
        ({"clues": [{"text": "2", "item": "3"}]}, 422, "exactly one"),
        ({"clues": [{"text": "2", "weight": -1}]}, 422, "weight above 0"),
        ({"clues": [{"item": "nobody"}]}, 422, "clue 1"),
        ({"clues": [{"image": "§§"}]}, 422, "is not base64"),
        ({"clues": [{"image": ""}]}, 422, "0 bytes"),
        ({"clues": [{"image": base64.b64encode(b"no picture").decode()}]}, 422, "image: not_an_image"),
        ({"k": 3}, 422, "nothing is asked for"),
        ([1], 422, "the request body"),
        ({"text": "incomplete"}, 503, "share of the gallery"),
    ],
)
def test_a_bad_question_gets_a_status_and_one_sentence(send, body, status, sentence):
    reply = send("POST", "/v1/search", json=body)
    assert (reply.status_code, list(reply.json())) == (status, ["detail"])
    assert sentence in reply.json()["detail"]
    assert len(reply.json()["detail"]) < 400


@pytest.mark.slow
def test_a_question_that_takes_too_long_is_told_so(send, folder):
    hasty = small_operations(folder, ServeConfig(timeout_s=0.05), encoder=Moody())
    assert send("POST", "/v1/search", json={"text": "sleep"}, of=hasty).status_code == 504


def test_the_answer_says_whether_the_text_was_cut(send):
    assert send("POST", "/v1/search", json={"text": "3 of more words than are read"}).json()["truncated"] is True
    assert send("POST", "/v1/search", json={"text": "3"}).json()["truncated"] is False


def test_a_body_that_is_no_text_is_refused(send):
    headers = {"Content-Type": "application/json"}
    for content in (b"{", b"\xff\xfe", b'{"text": "\\ud800"}', b"[" * 50_000):
        assert send("POST", "/v1/search", content=content, headers=headers).status_code in (400, 422)


def test_a_body_without_a_length_is_cut_off_at_the_limit(send):
    number = 0

    async def endless(start):
        nonlocal number
        yield start
        while True:
            number += 1 << 14
            yield b"x" * (1 << 14)

    form = b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
    for path, kind, start in (
        ("/v1/search", "application/json", b'{"text": "'),
        ("/v1/search/upload", "multipart/form-data; boundary=b", form),
    ):
        number = 0
        reply = send("POST", path, content=endless(start), headers={"Content-Type": kind})
        assert reply.status_code == 413
        assert number < 1 << 18


def test_a_picture_is_the_same_by_upload_base64_and_data_url(send):
    text = base64.b64encode(red_jpeg(7)).decode()
    question = {"k": 7, "where": {"camera_id": [1, 0]}}
    replies = [
        send(
            "POST",
            "/v1/search/upload",
            files={"image": ("x.jpg", red_jpeg(7))},
            data={"question": '{"k": 7, "where": {"camera_id": [1, 0]}}'},
        ),
        send("POST", "/v1/search", json={**question, "clues": [{"image": text}]}),
        send("POST", "/v1/search", json={**question, "clues": [{"image": f"data:image/jpeg;base64,{text}"}]}),
    ]
    assert [reply.status_code for reply in replies] == [200, 200, 200]
    assert replies[0].json()["hits"] == replies[1].json()["hits"] == replies[2].json()["hits"]
    assert replies[0].json()["hits"][0]["item_id"] == "7"


def test_uploads_and_the_clues_of_a_question_are_added(send):
    question = '{"clues": [{"item": "2", "weight": 0.5}]}'
    reply = send(
        "POST",
        "/v1/search/upload",
        files=[("image", red_jpeg(7)), ("image", red_jpeg(5))],
        data={"question": question, "image_weight": "2"},
    )
    scores = {hit["item_id"]: hit["score"] for hit in reply.json()["hits"]}
    norm = np.sqrt(4 + 4 + 0.25)
    assert [scores[each] for each in ("7", "5", "2", "0")] == pytest.approx([2 / norm, 2 / norm, 0.5 / norm, 0.0], abs=1e-6)


@pytest.mark.parametrize(
    ("options", "status", "sentence"),
    [
        ({"files": {"image": ("x.jpg", b"bad")}}, 422, "image: not_an_image"),
        ({"files": {"image": ("x.jpg", b"")}}, 422, "0 bytes"),
        ({"files": {"image": ("x.jpg", b"x" * 5000)}}, 413, "5000 bytes; the largest allowed is 4096"),
        ({"files": {"image": ("x.jpg", b"x" * 500_000)}}, 413, "larger than"),
        ({"files": {"picture": ("x.jpg", b"x")}}, 422, "image: Field required"),
        ({"files": {"image": ("x.jpg", red_jpeg(1))}, "data": {"question": '{"k": 99}'}}, 422, "the most allowed is 50"),
        ({"files": {"image": ("x.jpg", red_jpeg(1))}, "data": {"question": '{"k": "5"}'}}, 422, "k: "),
        ({"files": {"image": ("x.jpg", red_jpeg(1))}, "data": {"question": "{"}}, 422, "question: "),
        ({"files": [("image", red_jpeg(1))] * 9}, 422, "at most 8"),
    ],
)
def test_a_bad_upload_gets_a_status_and_one_sentence(send, options, status, sentence):
    reply = send("POST", "/v1/search/upload", **options)
    assert reply.status_code == status
    assert sentence in reply.json()["detail"]


def test_a_batch_answers_each_question_by_itself(send):
    questions = [{"text": "4", "k": 1}, {"text": ""}, {"clues": [{"item": "nobody"}]}, {"text": "6", "k": 2}]
    answers = send("POST", "/v1/search/batch", json={"questions": questions}).json()["answers"]
    assert [answer.get("detail", "")[:5] for answer in answers] == ["", "text:", "no_it", ""]
    assert [[hit["item_id"] for hit in answer.get("hits", [])][:1] for answer in answers] == [["4"], [], [], ["6"]]


def test_pages_of_a_search_and_of_the_gallery_hold_every_item_once(send):
    for path, asked, name in (("/v1/search", {"text": "3", "k": 5}, "hits"), ("/v1/browse", {"k": 5}, "items")):
        seen, cursor = [], None
        while True:
            body = send("POST", path, json={**asked, "cursor": cursor}).json()
            seen += [each["item_id"] for each in body[name]]
            cursor = body["cursor"]
            if cursor is None:
                break
        assert sorted(map(int, seen)) == list(range(ITEMS))
    assert seen == [f"{n}" for n in reversed(range(ITEMS))]
    assert send("POST", "/v1/browse", json={"cursor": "nobody"}).status_code == 409


def test_facets_count_what_passes_and_what_is_beyond_the_limit_is_told(send):
    body = send("POST", "/v1/facets", json={"columns": ["camera_id"], "where": {"person_id": {"from": 2}}, "limit": 1}).json()
    expected = [sum(n % CAMERAS == camera for n in range(4, ITEMS)) for camera in range(CAMERAS)]
    best = max(range(CAMERAS), key=lambda camera: (expected[camera], -camera))
    assert body["columns"]["camera_id"] == {"values": [{"value": best, "count": expected[best]}], "others": sum(expected) - expected[best]}
    assert send("POST", "/v1/facets", json={"columns": ["colour"]}).status_code == 422


def test_items_and_pictures_are_there_by_id(send):
    assert send("GET", "/v1/items?id=3").json()["item"]["image_id"] == "3.jpg"
    picture = send("GET", "/v1/thumbnails?id=3")
    assert (picture.content, picture.headers["content-type"]) == (red_jpeg(3), "image/jpeg")
    for path in ("/v1/items?id=..%2Fx", "/v1/thumbnails?id=nobody"):
        assert send("GET", path).status_code == 404
    assert send("GET", "/v1/items").status_code == 422


def test_what_one_too_many_asks_is_refused_at_once_while_others_wait(folder, access):
    started, release = threading.Event(), threading.Event()

    class Held(Reading):
        def encode_and_measure(self, texts):
            started.set()
            assert release.wait(30)
            return super().encode_and_measure(texts)

    held = small_operations(folder, encoder=Held(), max_batch_size=1, max_queued_requests=2)
    held_replies = many_at_once(held, access, 5, started, release, refused=2)
    assert sorted(reply.status_code for reply in held_replies) == [200, 200, 200, 503, 503]
    assert {reply.headers.get("retry-after") for reply in held_replies if reply.status_code == 503} == {"1"}


@pytest.mark.slow
def test_metrics_count_routes_statuses_and_searches_and_name_nothing_that_was_asked(folder, send):
    operations = small_operations(folder)
    for question in ({"text": "3 canary"}, {"text": "4"}, {"text": ""}):
        send("POST", "/v1/search", of=operations, json=question)
    send("GET", "/v1/items?id=3canary", of=operations)
    send("GET", "/canary", of=operations)
    lines = send("GET", "/metrics", of=operations).text.splitlines()
    values = {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))}
    counted = {name: value for name, value in values.items() if name.startswith("reid_ray_service_requests_total")}
    assert {name.partition("{")[2]: value for name, value in counted.items()} == {
        'method="POST",route="/v1/search",status="200"}': 2.0,
        'method="POST",route="/v1/search",status="422"}': 1.0,
        'method="GET",route="/v1/items",status="404"}': 1.0,
        'method="none",route="none",status="404"}': 1.0,
    }
    assert (values["reid_ray_service_batch_size_count"], values["reid_ray_service_gallery_items"]) == (2.0, float(ITEMS))
    assert "canary" not in "\n".join(lines)


def many_at_once(operations, access, count, started, release, *, refused):
    """Replies to searches of which all but one arrive while the first is being answered, until so many are refused and the rest waits."""
    api = make_api(operations, access=access)
    import asyncio

    async def run():
        transport = httpx.ASGITransport(app=api, client=("127.0.0.1", 5))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=60) as http:
            first = asyncio.create_task(http.post("/v1/search", json={"text": "1"}))
            await asyncio.to_thread(started.wait, 30)
            others = [asyncio.create_task(http.post("/v1/search", json={"text": "2"})) for _ in range(count - 1)]
            end = time.monotonic() + 30
            while (sum(other.done() for other in others), operations.waiting) != (refused, count - 1 - refused):
                assert time.monotonic() < end
                await asyncio.sleep(0.01)
            release.set()
            return [await each for each in (first, *others)]

    return asyncio.run(run())


@pytest.mark.slow
def test_a_search_that_would_wait_too_long_is_told_before_its_body_is_read(folder, access):
    started, release = threading.Event(), threading.Event()

    class Held(Reading):
        def encode_and_measure(self, texts):
            started.set()
            assert release.wait(30)
            return super().encode_and_measure(texts)

    operations = small_operations(folder, encoder=Held(), max_wait_s=0.5, max_batch_size=1)
    operations._batcher._times.learn(1, 0.2)  # as if the last one had taken so long
    held_replies = many_at_once(operations, access, 4, started, release, refused=2)
    assert sorted(reply.status_code for reply in held_replies) == [200, 200, 503, 503]
    started.clear()
    release.clear()
    in_one_batch = small_operations(folder, encoder=Held(), max_wait_s=0.001, max_batch_size=3)
    in_one_batch._batcher._times.learn(1, 60.0)
    held_replies = many_at_once(in_one_batch, access, 5, started, release, refused=1)
    assert sorted(reply.status_code for reply in held_replies) == [200, 200, 200, 200, 503], "those of the next batch are taken"


def test_a_first_search_that_takes_long_refuses_none_after_it(folder, send):
    class SlowAtFirst(Reading):
        pause_s = 0.2

        def encode_and_measure(self, texts):
            time.sleep(self.pause_s)
            self.pause_s = 0.0
            return super().encode_and_measure(texts)

    operations = small_operations(folder, encoder=SlowAtFirst(), max_wait_s=0.1)
    assert [send("POST", "/v1/search", of=operations, json={"text": "1"}).status_code for _ in range(3)] == [200, 200, 200]


def test_a_service_lives_before_it_is_ready_and_is_not_ready_once_searches_fail(folder, send):
    from small_services import small_engine

    from reid_ray.serve.operations.search_operations import SearchOperations

    encoder = Reading()
    starting = SearchOperations(lambda: small_engine(folder, encoder), ServeConfig(), SearcherConfig())
    encoder.encode_and_measure = lambda texts: (np.eye(1, 16, dtype=np.float32), np.array([1]))
    states = [[send("GET", path, of=starting).status_code for path in ("/v1/live", "/v1/ready", "/v1/info")]]
    starting.load()
    states.append([send("GET", path, of=starting).status_code for path in ("/v1/live", "/v1/ready", "/v1/info")])
    encoder.encode_and_measure = lambda texts: 1 / 0
    starting._probed = (-1e9, True)
    states.append([send("GET", path, of=starting).status_code for path in ("/v1/live", "/v1/ready")])
    assert states == [[200, 503, 503], [200, 200, 200], [200, 503]]


PATHS = [
    ("GET", "/"),
    ("GET", "/v1/info"),
    ("GET", "/openapi.json"),
    ("GET", "/v1/thumbnails?id=0"),
    ("POST", "/v1/search"),
    ("GET", "/none"),
    ("GET", "/v1/live/none"),
]


def test_info_states_the_number_of_the_interface_and_a_client_refuses_a_newer_one(send):
    assert send("GET", "/v1/info").json()["format"] == number_of("service")
    for number, words in ((number_of("service"), None), (number_of("service") + 1, "http://there.* upgrade reid_ray")):
        transport = httpx.MockTransport(lambda _, number=number: httpx.Response(200, json={"format": number}))
        with SearchClient("http://there", transport=transport) as client:
            if words is None:
                assert client.info() == {"format": number}
            else:
                with pytest.raises(DataError, match=words):
                    client.info()


@pytest.mark.slow
def test_every_route_has_a_least_role_and_is_refused_to_whoever_lacks_it(operations, tmp_path):
    access, tokens = with_tokens(tmp_path)
    api = make_api(operations, access=access)
    routes = sorted((method, route.path) for route in api.routes for method in (route.methods or ()) if method != "HEAD")
    rules = next(each for each in api.user_middleware if each.cls is Gatekeeper).kwargs["rules"].rules
    assert sorted(set(routes)) == sorted(rules), "a route without a rule, or a rule without a route"
    opened = {path for (method, path), rule in rules.items() if rule.least is None}
    assert opened == {"/", "/page/{name}", "/v1/live", "/v1/ready", "/openapi.json", "/v1/login", "/v1/logout"}
    for (method, path), rule in rules.items():
        if rule.least is None:
            continue
        asked = {"client": "10.1.2.3", "host": "search.example"}
        assert sent(api, method, path, **asked).status_code == 401
        for role in AccessRole:
            reply = sent(api, method, path, headers={"Authorization": f"Bearer {tokens[role.word]}"}, **asked)
            assert (reply.status_code == 403) == (role < rule.least), (method, path, role)


@pytest.mark.slow
def test_what_is_searched_for_is_on_record_as_digests_and_found_by_text_and_picture(operations, tmp_path):
    access = own_machine(tmp_path, audit=True)
    api = make_api(operations, access=access)
    picture = red_jpeg(3)
    body = {"clues": [{"text": " 3 a man "}, {"image": base64.b64encode(picture).decode()}, {"item": "4"}], "k": 2}
    assert sent(api, "POST", "/v1/search", json=body, headers={"Reid-Purpose": "case 12"}).status_code == 200
    assert sent(api, "POST", "/v1/search/upload", files={"image": picture}).status_code == 200
    assert sent(api, "POST", "/v1/search/batch", json={"questions": [{"text": "1", "k": 3}, {"text": "2", "k": 4}]}).status_code == 200
    assert sent(api, "POST", "/v1/search", json={"text": ""}).status_code == 422
    access.close()
    digests = access.audit.digests
    _, question, upload, batch, refused_one = records_of(tmp_path / "state" / "audit")
    assert (question["purpose"], question["items"], question["outcome"], question["who"]) == ("case 12", 2, 200, "local")
    assert question["sought"] == [digests.sought("3 a man"), digests.sought(picture)]
    assert question["ids"] == [digests.item("4")]
    assert upload["sought"] == [digests.sought(picture)]
    assert (batch["sought"], batch["items"]) == ([digests.sought("1"), digests.sought("2")], 7)
    assert (refused_one["outcome"], refused_one["verb"]) == (422, "search")


@pytest.mark.parametrize("path", ["/v1/live", "/"])
def test_head_answers_like_get_without_a_body(send, path):
    head, get = send("HEAD", path), send("GET", path)
    assert (head.status_code, head.headers["content-type"]) == (200, get.headers["content-type"])


def test_the_page_loads_nothing_from_elsewhere(send):
    page = send("GET", "/")
    assert page.headers["content-type"].startswith("text/html")
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]


def test_a_service_open_to_the_network_needs_tokens_that_can_be_read(tmp_path):
    for host in ("0.0.0.0", "::", "192.168.0.4", "search.example"):
        with pytest.raises(ValidationError, match=r"access\.tokens is not set"):
            ServeJob.model_validate({"index": "x", "serve": {"host": host}})
    for host in ("127.0.0.1", "localhost", "::1"):
        check_access(ServeJob.model_validate({"index": "x", "serve": {"host": host}}))
    missing = tmp_path / "tokens.json"
    job = {"index": "x", "serve": {"host": "0.0.0.0"}, "access": {"tokens": str(missing)}}
    with refused(DataError, str(missing), "reid-ray tokens create"):
        check_access(ServeJob.model_validate(job))
    create_token(missing, "anna", AccessRole.SEARCH, days=None)
    check_access(ServeJob.model_validate(job))


@pytest.mark.slow
def test_the_job_refuses_an_open_host_without_a_token_in_one_sentence(root):
    command = [sys.executable, "jobs/serve.py", "--config", "jobs/configs/serve/serve.yaml", "serve.host=0.0.0.0"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2
    assert "serve.host 0.0.0.0 can be reached from other machines, but access.tokens is not set" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_process_lives_before_its_application_is_there_and_hands_over_to_it():
    doorway = Doorway()

    async def application(scope, receive, send):
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    asked = [("GET", "/v1/live"), ("HEAD", "/v1/live"), ("GET", "/v1/ready"), ("POST", "/v1/search")]
    starting = [sent(doorway, method, path) for method, path in asked]
    assert [reply.status_code for reply in starting] == [200, 200, 503, 503]
    assert (starting[1].content, list(starting[3].json())) == (b"", ["detail"])
    doorway.application = application
    assert {sent(doorway, method, path).status_code for method, path in asked} == {204}
