"""The HTTP side without Ray: what is refused, with which status and sentence, and who may ask. An in-process searcher stands behind."""

import asyncio
import base64
import subprocess
import sys

import httpx
import pytest
from pydantic import ValidationError
from refusals import refused
from small_galleries import NamedThumbnails

from reid_ray.errors import ConfigError, DataError
from reid_ray.retrieval.search import Answer, Hit
from reid_ray.serve.app import IncompleteError, OverloadedError, make_api
from reid_ray.serve.client import SearchClient
from reid_ray.serve.config import ServeConfig, ServeJob
from reid_ray.serve.guard import digest_of
from reid_ray.versions import number_of

TOKEN = "correct-horse-battery"
LIMITS = ServeConfig(max_text_chars=100, max_upload_bytes=4096, max_k=50, timeout_s=0.5)


class Echo:
    """Gives back what it was asked, as one hit; holds the queries that got through."""

    def __init__(self):
        self.asked = []

    async def search(self, query):
        self.asked.append(query)
        if query.text == "overload":
            raise OverloadedError
        if query.text == "incomplete":
            raise IncompleteError
        if query.text == "sleep":
            await asyncio.sleep(5)
        if query.image == b"bad":
            return Answer((), 0.0, 0.0, batch=1, gallery=9, refused="not_an_image: no image format recognises these 3 bytes")
        hit = Hit(
            rank=1,
            generation=7,
            item_id="a/b",
            thumbnail="3",
            score=0.5,
            image_id="a/b.jpg",
            person_id=None,
            camera_id=2,
            dataset=None,
            split=None,
            synthetic=True,
        )
        return Answer((hit,), encode_ms=1.0, search_ms=2.0, batch=1, gallery=9, truncated=query.text == "long")

    async def describe(self):
        return {"items": 9, "cameras": [2], "dim": 4, "index_kind": "flat", "encoder_fingerprint": "e"}


@pytest.fixture
def thumbnails():
    return NamedThumbnails({"0": b"jpeg a", "1": b"jpeg b"})


@pytest.fixture
def send(thumbnails):
    """send(method, path, ...) -> response, from a client address, against a service with or without a token."""

    def send(method, path, *, token=None, client="127.0.0.1", host="localhost", searcher=None, **options):
        api = make_api(searcher or Echo(), thumbnails, LIMITS, token_digest=digest_of(token) if token else None)

        async def call():
            transport = httpx.ASGITransport(app=api, client=(client, 5))
            async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as http:
                return await http.request(method, path, **options)

        return asyncio.run(call())

    return send


def test_a_text_query_becomes_a_query_and_its_answer_json(send):
    echo = Echo()
    reply = send("POST", "/search/text", json={"text": "  a man 🧥👜 ", "camera_ids": [5, 2, 5]}, searcher=echo)
    assert reply.status_code == 200
    assert (echo.asked[0].text, echo.asked[0].k, echo.asked[0].camera_ids) == ("a man 🧥👜", LIMITS.default_k, (2, 5))
    body = reply.json()
    assert body["hits"] == [
        {
            "rank": 1,
            "score": 0.5,
            "generation": 7,
            "item_id": "a/b",
            "image_id": "a/b.jpg",
            "person_id": None,
            "camera_id": 2,
            "dataset": None,
            "split": None,
            "synthetic": True,
            "thumbnail": "thumbnails/3",
        }
    ]
    assert (body["k"], body["gallery"], body["latency_ms"]["encode"]) == (LIMITS.default_k, 9, 1.0)


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        ({"text": ""}, 422, "the query is empty"),
        ({"text": " \n\t "}, 422, "the query is empty"),
        ({"text": "x" * 101}, 422, "101 characters; the longest allowed is 100"),
        ({"text": "x" * 1_000_000}, 413, "larger than"),
        ({"text": "x", "k": 0}, 422, "k: "),
        ({"text": "x", "k": 51}, 422, "the most allowed is 50"),
        ({"text": "x", "k": "many"}, 422, "k: "),
        ({"text": "x", "camera_ids": []}, 422, "camera_ids: "),
        ({"text": "x", "colour": "red"}, 422, "colour: "),
        ({"k": 3}, 422, "text: Field required"),
        ([1], 422, "the request body"),
        ({"text": "overload"}, 503, "too many queries"),
        ({"text": "incomplete"}, 503, "share of the gallery"),
        ({"text": "sleep"}, 504, "no answer within 0.5 s"),
    ],
)
def test_a_bad_text_query_gets_a_status_and_one_sentence(send, body, status, sentence):
    reply = send("POST", "/search/text", json=body)
    assert reply.status_code == status
    assert list(reply.json()) == ["detail"]
    assert sentence in reply.json()["detail"]
    assert len(reply.json()["detail"]) < 400


def test_the_answer_says_whether_the_text_was_cut(send):
    assert send("POST", "/search/text", json={"text": "long"}).json()["truncated"] is True
    assert send("POST", "/search/text", json={"text": "short"}).json()["truncated"] is False


def test_a_body_that_is_no_text_is_refused(send):
    headers = {"Content-Type": "application/json"}
    for content in (b"{", b"\xff\xfe", b'{"text": "\\ud800"}', b"[" * 50_000):
        assert send("POST", "/search/text", content=content, headers=headers).status_code in (400, 422)


def test_a_body_without_a_length_is_cut_off_at_the_limit(send):
    sent = 0

    async def endless(start):
        nonlocal sent
        yield start
        while True:
            sent += 1 << 14
            yield b"x" * (1 << 14)

    form = b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
    bodies = [("/search/text", "application/json", b'{"text": "'), ("/search/image", "multipart/form-data; boundary=b", form)]
    for path, content_type, start in bodies:
        sent = 0
        reply = send("POST", path, content=endless(start), headers={"Content-Type": content_type})
        assert reply.status_code == 413
        assert sent < 1 << 18


def test_an_image_arrives_the_same_by_multipart_base64_and_data_url(send):
    echo = Echo()
    data = bytes(range(256))
    text = base64.b64encode(data).decode()
    replies = [
        send("POST", "/search/image", files={"image": ("x.jpg", data)}, data={"k": 7, "camera_ids": [1, 0]}, searcher=echo),
        send("POST", "/search/image/base64", json={"image_base64": text, "k": 7, "camera_ids": [1, 0]}, searcher=echo),
        send(
            "POST",
            "/search/image/base64",
            json={"image_base64": f"data:image/jpeg;base64,{text}", "k": 7, "camera_ids": [0, 1]},
            searcher=echo,
        ),
    ]
    assert [reply.status_code for reply in replies] == [200, 200, 200]
    assert len({(query.image, query.k, query.camera_ids) for query in echo.asked}) == 1
    assert (echo.asked[0].image, echo.asked[0].camera_ids) == (data, (0, 1))


@pytest.mark.parametrize(
    ("path", "options", "status", "sentence"),
    [
        ("/search/image", {"files": {"image": ("x.jpg", b"bad")}}, 422, "image: not_an_image"),
        ("/search/image", {"files": {"image": ("x.jpg", b"")}}, 422, "0 bytes"),
        ("/search/image", {"files": {"image": ("x.jpg", b"x" * 5000)}}, 413, "5000 bytes; the largest allowed is 4096"),
        ("/search/image", {"files": {"image": ("x.jpg", b"x" * 500_000)}}, 413, "larger than"),
        ("/search/image", {"files": {"picture": ("x.jpg", b"x")}}, 422, "image: Field required"),
        ("/search/image", {"files": {"image": ("x.jpg", b"x")}, "data": {"k": 99}}, 422, "the most allowed is 50"),
        ("/search/image/base64", {"json": {"image_base64": "§§"}}, 422, "image_base64: is not base64"),
        ("/search/image/base64", {"json": {"image_base64": ""}}, 422, "0 bytes"),
    ],
)
def test_a_bad_image_query_gets_a_status_and_one_sentence(send, path, options, status, sentence):
    reply = send("POST", path, **options)
    assert reply.status_code == status
    assert sentence in reply.json()["detail"]


PATHS = [
    ("GET", "/"),
    ("GET", "/info"),
    ("GET", "/openapi.json"),
    ("GET", "/thumbnails/0"),
    ("POST", "/search/text"),
    ("GET", "/none"),
    ("GET", "/health/none"),
]


def test_info_states_the_number_of_the_interface_and_a_client_refuses_a_newer_one(send):
    assert send("GET", "/info").json()["format"] == number_of("service")
    for number, words in ((number_of("service"), None), (number_of("service") + 1, "http://there.* upgrade reid_ray")):
        with SearchClient("http://there") as client:
            transport = httpx.MockTransport(lambda _, number=number: httpx.Response(200, json={"format": number}))
            client._http = httpx.Client(transport=transport, base_url="http://there")
            if words is None:
                assert client.info() == {"format": number}
            else:
                with pytest.raises(DataError, match=words):
                    client.info()


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_with_a_token_every_path_but_health_needs_it(send, method, path):
    basic = base64.b64encode(f"anyone:{TOKEN}".encode()).decode()
    wrong = [
        {},
        {"Authorization": "Bearer "},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": TOKEN},
        {"Authorization": "Basic §"},
    ]
    for headers in wrong:
        reply = send(method, path, token=TOKEN, headers={name: value.encode() for name, value in headers.items()})
        assert reply.status_code == 401
        assert "Bearer" in reply.headers["www-authenticate"]
    for scheme in (f"Bearer {TOKEN}", f"bearer {TOKEN}", f"Basic {basic}"):
        reply = send(
            method, path, token=TOKEN, client="10.1.2.3", host="search.example", headers={"Authorization": scheme}, json={"text": "a"}
        )
        assert reply.status_code == (404 if path.endswith("/none") else 200)
    assert send("GET", "/health", token=TOKEN, client="10.1.2.3").status_code == 200


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_without_a_token_only_this_machine_by_its_own_name_is_answered(send, method, path):
    for client, host in (("10.1.2.3", "localhost"), ("127.0.0.1", "evil.example:8000"), ("127.0.0.1", "10.1.2.3")):
        assert send(method, path, client=client, host=host, json={"text": "a"}).status_code == 403
    for client, host in (("127.0.0.1", "localhost:8000"), ("::1", "[::1]:80"), ("127.0.0.1", "127.0.0.1")):
        assert send(method, path, client=client, host=host, json={"text": "a"}).status_code != 403


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
@pytest.mark.parametrize(("method", "path"), [("POST", "/search/text"), ("GET", "/"), ("GET", "/thumbnails/0"), ("GET", "/info")])
@pytest.mark.slow
def test_without_a_token_what_came_through_a_proxy_is_refused_and_told_why(send, method, path, header):
    headers = {header: PROXIES[header]}
    refused = send(method, path, headers=headers, json={"text": "a"})
    assert refused.status_code == 403
    assert header.lower() in refused.json()["detail"]
    assert "serve.token_env" in refused.json()["detail"]
    headers["Authorization"] = f"Bearer {TOKEN}"
    assert send(method, path, headers=headers, json={"text": "a"}, token=TOKEN).status_code == 200


def test_headers_of_ordinary_clients_are_no_sign_of_a_proxy(send):
    ordinary = {
        "User-Agent": "curl/8",
        "X-Request-ID": "7",
        "Accept": "*/*",
        "Origin": "http://localhost",
        "DNT": "1",
        "Sec-Fetch-User": "?1",
    }
    assert send("POST", "/search/text", headers=ordinary, json={"text": "a"}).status_code == 200


@pytest.mark.parametrize("path", ["/health", "/"])
def test_head_answers_like_get_without_a_body(send, path):
    head, get = send("HEAD", path), send("GET", path)
    assert (head.status_code, head.headers["content-type"]) == (200, get.headers["content-type"])


def test_the_page_loads_nothing_from_elsewhere_and_thumbnails_are_jpeg(send):
    page = send("GET", "/")
    assert page.headers["content-type"].startswith("text/html")
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    reply = send("GET", "/thumbnails/1")
    assert (reply.content, reply.headers["content-type"]) == (b"jpeg b", "image/jpeg")
    assert send("GET", "/thumbnails/2").status_code == 404
    assert send("GET", "/thumbnails/-1").status_code == 404
    assert send("GET", "/thumbnails/..%2fx").status_code in (404, 422)


def test_health_is_bad_when_the_searcher_is(send):
    class Stuck(Echo):
        async def describe(self):
            raise OverloadedError

    assert send("GET", "/health").json() == {"status": "ok"}
    assert send("GET", "/health", searcher=Stuck()).status_code == 503


def test_a_service_open_to_the_network_needs_a_token_and_a_long_one(monkeypatch):
    for host in ("0.0.0.0", "::", "192.168.0.4", "search.example"):
        with pytest.raises(ValidationError, match="token_env is not set"):
            ServeJob.model_validate({"index": "x", "serve": {"host": host}})
    for host in ("127.0.0.1", "localhost", "::1"):
        assert ServeConfig(host=host).token() is None
    config = ServeConfig(host="0.0.0.0", token_env="SEARCH_TOKEN_OF_THE_TEST")
    with refused(ConfigError, "SEARCH_TOKEN_OF_THE_TEST"):
        config.token()
    monkeypatch.setenv("SEARCH_TOKEN_OF_THE_TEST", "short")
    with pytest.raises(ConfigError, match="has 5 characters"):
        config.token()
    monkeypatch.setenv("SEARCH_TOKEN_OF_THE_TEST", TOKEN)
    assert config.token() == TOKEN


def test_the_job_refuses_an_open_host_without_a_token_in_one_sentence(root):
    command = [sys.executable, "jobs/serve.py", "--config", "jobs/configs/serve/serve.yaml", "serve.host=0.0.0.0"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2
    assert "serve: host 0.0.0.0 can be reached from other machines, but token_env is not set" in done.stderr
    assert "Traceback" not in done.stderr
