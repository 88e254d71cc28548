"""The client and `reid-ray service`, over HTTP to a service in this process: every verb, patience, and what is refused."""

import http.server
import json
import threading
import time
from datetime import UTC, datetime, timedelta

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from plain_encoder import picture_of, png_of
from refusals import refused
from whole_services import service

from reid_ray.errors import ConfigError, ReidRayError
from reid_ray.serve import patient_http
from reid_ray.serve.client import SearchClient
from reid_ray.serve.patient_http import ServiceRefusedError
from reid_ray.serve.process.http_thread import bound_socket, running_server
from reid_ray.serve.service_command import service_command


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """What is asked for again is asked for at once."""
    monkeypatch.setattr(patient_http, "_FIRST_S", 0.01)


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    folder = tmp_path_factory.mktemp("service")
    with service(folder) as (replica,), bound_socket("127.0.0.1", 0) as listening, running_server(replica.api, listening):
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def client(url):
    with SearchClient(url) as client:
        if ids := [each["item_id"] for each in client.items()]:
            client.delete(ids)
        items = [{"file": f"{name}.png", "item_id": name, "camera_id": at} for at, name in enumerate("abc")]
        client.finished(client.add({f"{name}.png": png_of(name) for name in "abc"}, items=items))
        yield client


@pytest.fixture
def said(url, capsys, monkeypatch):
    """said("search", ...) -> exit code, standard output, standard error."""
    monkeypatch.setenv("REID_RAY_URL", url)

    def said(*words):
        code = service_command([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return said


@pytest.mark.slow
def test_searching_by_text_picture_and_item(client):
    assert client.text("b", k=1)["hits"][0]["item_id"] == "b"
    assert client.image(png_of("c"), k=1)["hits"][0]["item_id"] == "c"
    both = client.search(clues=[{"image": png_of("a")}, {"text": "zebra", "weight": 0.1}], k=2, where={"camera_id": [0, 1]})
    assert [hit["item_id"] for hit in both["hits"]] == ["a", "b"] or both["hits"][0]["item_id"] == "a"
    assert client.search(clues=[{"item": "a"}], k=1, without=["a"])["hits"][0]["item_id"] != "a"
    assert [hit["item_id"] for hit in client.pages(text="a", k=1)][:1] == ["a"]
    assert len(list(client.pages(text="a", k=1))) == 3
    answers = client.batch([{"text": "a", "k": 1}, {"clues": [{"item": "nobody"}]}])
    assert (answers[0]["hits"][0]["item_id"], list(answers[1])) == ("a", ["detail"])


def test_reading_the_gallery(client):
    assert {each["item_id"] for each in client.items(k=2)} == {*"abc"}
    assert client.facets(["camera_id"])["columns"]["camera_id"]["values"] == [{"value": each, "count": 1} for each in range(3)]
    assert client.item("b")["item"]["camera_id"] == 1
    assert client.thumbnail("b").size == picture_of("b").size
    assert client.thumbnail(client.text("b", k=1)["hits"][0]).size == (8, 8)
    assert client.info()["items"] == 3
    assert client.is_ready()


@pytest.mark.slow
def test_changing_and_looking_after_it(client):
    client.snapshot("kept")
    assert client.delete(where={"camera_id": 0}, expect=1)["deleted"] == 1
    assert client.restore("kept")["items"] == 3
    client.drop("kept")
    assert client.erase(["a"], request="one", now=True)["done"]
    assert client.erasure("one") in client.erasures()
    assert client.finished(client.compact())["state"] == "done"
    assert client.generations()["snapshots"] == []
    assert [job["kind"] for job in client.jobs(most=1)] == ["compact"]
    assert client.jobs()[0] == client.jobs(most=1)[0]
    with pytest.raises(ServiceRefusedError, match="expected") as refusal:
        client.delete(["b"], expect=5)
    assert refusal.value.status == 409


@pytest.mark.slow
def test_a_job_tells_its_progress_and_many_files_are_open_one_after_the_other(client, tmp_path):
    files, sizes, seen = {}, [], []
    for number in range(40):
        files[f"{number}.png"] = tmp_path / f"{number}.png"
        files[f"{number}.png"].write_bytes(png_of(number))
    job = client.add(files, sent=sizes.append)
    done = client.finished(job, progress=lambda state: seen.append(state["counts"]["done"]), every_s=0.01)
    assert (done["counts"]["added"], seen[-1], seen == sorted(seen)) == (40, 40, True)
    assert sum(sizes) == sum(path.stat().st_size for path in files.values())


@pytest.mark.slow
def test_a_table_is_added(client, tmp_path):
    pq.write_table(pa.table({"image_id": ["x", "y"], "image": [png_of("x"), png_of("y")]}), tmp_path / "t.parquet")
    assert client.finished(client.add_table(tmp_path / "t.parquet"))["counts"]["added"] == 2
    assert client.text("y", k=1)["hits"][0]["item_id"] == "y"


class Moody(httpx.BaseTransport):
    """Answers with what is next in a list: a status, or an error to raise; the last one for ever."""

    def __init__(self, *moods):
        self.moods, self.requests = list(moods), []

    def handle_request(self, request):
        request.read()
        self.requests.append(request)
        mood = self.moods.pop(0) if len(self.moods) > 1 else self.moods[0]
        if isinstance(mood, Exception):
            raise mood
        if isinstance(mood, str):  # of a proxy, before a replica that is gone; or of one that has just started
            return httpx.Response(404 if "routes" in mood else 500, text=mood)
        return httpx.Response(mood, json={"detail": "a sentence"}, headers={"Retry-After": "0"})


def moody(*moods, **options):
    transport = Moody(*moods)
    return SearchClient("http://localhost", transport=transport, **{"patience_s": 10.0, **options}), transport


BROKEN = (httpx.ConnectError("refused"), httpx.RemoteProtocolError("gone"), httpx.ReadError("cut"))


UNKNOWN = "Path '/v1/jobs' not found. Ping http://.../-/routes for available routes."


@pytest.mark.parametrize("mood", [429, 503, 502, "Internal Server Error", UNKNOWN, *BROKEN])
def test_a_request_is_made_again_and_a_change_bears_the_same_key(mood):
    client, transport = moody(mood, mood, 200)
    client.delete(["a"])
    client.close()
    keys = {request.headers["Idempotency-Key"] for request in transport.requests}
    assert (len(transport.requests), len(keys)) == (3, 1)
    assert len({request.content for request in transport.requests}) == 1


def test_an_upload_is_made_again_whole(tmp_path):
    (tmp_path / "a.png").write_bytes(png_of("a"))
    client, transport = moody(503, httpx.ReadError("cut"), 200)
    client.add({"a.png": tmp_path / "a.png", "b.png": b"bytes"})
    client.close()
    assert len(transport.requests) == 3
    for request in transport.requests:
        assert png_of("a") in request.content
        assert b"bytes" in request.content


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 500, 504])
def test_a_refusal_is_told_at_once(status):
    client, transport = moody(status)
    with pytest.raises(ServiceRefusedError, match="a sentence"):
        client.text("a")
    client.close()
    assert len(transport.requests) == 1


def test_patience_ends():
    for mood in (503, httpx.ConnectError("refused")):
        client, transport = moody(mood, patience_s=0.3)
        with pytest.raises(ReidRayError):
            client.text("a")
        client.close()
        assert 2 <= len(transport.requests) <= 7  # each waits twice as long as the one before


@pytest.mark.slow  # it waits
def test_whoever_waits_is_told_once_why_and_for_how_long(monkeypatch):
    told = []
    client, _ = moody(httpx.ConnectError("refused"), httpx.ConnectError("refused"), 200, patience_s=30.0, told=told.append)
    client.text("a")
    client.close()
    assert len(told) == 1
    assert "http://localhost: does not answer (refused); it is asked again for up to" in told[0]
    client, _ = moody(503, 200, told=told.append)  # busy for a moment
    client.text("a")
    client.close()
    assert len(told) == 1
    monkeypatch.setattr("reid_ray.serve.patient_http._SILENT_S", 0.0)
    client, _ = moody(503, 503, 200, told=told.append)
    client.text("a")
    client.close()
    assert len(told) == 2
    assert "busy or restarts (503)" in told[1]


def test_the_command_line_does_not_wait_in_silence(said):
    code, out, problem = said("info", "--url", "http://127.0.0.1:1", "--patience", "0.5", "--json")
    assert (code, out) == (2, "")
    first, last = problem.strip().splitlines()
    assert first.startswith("service: http://127.0.0.1:1: does not answer")
    assert "--patience" in first
    assert last.startswith("error: http://127.0.0.1:1: does not answer")


@pytest.mark.slow  # it waits
def test_retry_after_is_heeded():
    waits = []

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            waits.append(time.monotonic())
            self.send_response(503 if len(waits) == 1 else 200)
            self.send_header("Retry-After", "1")
            self.end_headers()
            self.wfile.write(b'{"jobs": [], "before": null}')

        def log_message(self, *words):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with SearchClient(f"http://127.0.0.1:{server.server_port}") as client:
            assert client.jobs() == []
        server.shutdown()
    assert waits[1] - waits[0] >= 1.0


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://localhost", "http://"])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(ConfigError, match="url"):
        SearchClient(url)


def test_a_token_goes_nowhere_unencrypted_unless_that_is_meant():
    with refused(ConfigError, "https"):
        SearchClient("http://search.example", token="t")
    SearchClient("http://search.example", token="t", plain=True).close()
    SearchClient("https://search.example", token="t").close()


def test_a_token_and_a_purpose_are_sent():
    client, transport = moody(200, token="secret", purpose="Fahndung nach Müller")
    client.text("a")
    client.close()
    headers = transport.requests[0].headers
    assert (headers["authorization"], headers["reid-purpose"]) == ("Bearer secret", "Fahndung nach M%C3%BCller")


@pytest.mark.slow
def test_the_command_line_searches_and_reads(client, said, tmp_path):
    (tmp_path / "b.png").write_bytes(png_of("b"))
    for words in (["--text", "b"], ["--image", tmp_path / "b.png"], ["--like", "b", "--unlike", "a", "--json"]):
        assert said("search", "-k", 1, *words)[0] == 0
    assert "   1  1.0000  b  " in said("search", "--text", "b", "--where", "camera_id=[1, 2]")[1]
    assert json.loads(said("search", "--text", "b", "--json")[1])["hits"][0]["item_id"] == "b"
    assert "camera_id: 0 1, 1 1, 2 1" in said("facets", "camera_id")[1]
    assert said("item", "b", "--save", tmp_path / "b.jpg")[0] == 0
    assert (tmp_path / "b.jpg").read_bytes()[:2] == b"\xff\xd8"
    assert said("item", "b", "--save", tmp_path / "b.jpg")[0] == 2
    page = said("browse", "-k", 2)[1]
    cursor = page.rpartition("--cursor ")[2].strip()
    assert len(said("browse", "-k", 2, "--cursor", cursor)[1].splitlines()) == 1
    assert said("info")[0] == said("ready")[0] == 0
    code, out, problem = said("explain", "b", "--image", tmp_path / "b.png")
    assert (code, "score" in out) == (0, True), problem


@pytest.mark.slow
def test_the_command_line_adds_with_a_bar(client, said, tmp_path):
    (tmp_path / "crops" / "cam1").mkdir(parents=True)
    for name in "de":
        (tmp_path / "crops" / "cam1" / f"{name}.png").write_bytes(png_of(name))
    (tmp_path / "crops" / "bad.jpg").write_bytes(b"no picture")
    (tmp_path / "crops" / "notes.txt").write_text("no picture, and not named as one")
    (tmp_path / "crops" / "other.png").write_bytes(png_of("f"))
    lines = [json.dumps({"file": f"cam1/{name}.png", "item_id": name, "camera_id": 9, "zon": "market"}) for name in "de"]
    (tmp_path / "items.jsonl").write_text("\n".join([*lines, "", json.dumps({"file": "bad.jpg"})]))
    code, out, err = said("add", tmp_path / "crops", "--items", tmp_path / "items.jsonl")
    assert (code, "2 items added, 1 refused" in out, "bad.jpg: not_an_image" in out) == (0, True, True)
    assert "1 picture not added, for" in out
    assert "new columns: zon\n" in out
    assert "add" in err
    assert client.item("d")["item"]["camera_id"] == 9
    code, out, _ = said("add", tmp_path / "crops", "--no-wait")
    job = client.jobs()[0]["job_id"]
    assert (code, job in out, said("job", job, "--wait")[0]) == (0, True, 0)
    assert job in said("jobs")[1]
    assert len(said("jobs", "--limit", 1)[1].splitlines()) == 1 < len(said("jobs")[1].splitlines())


@pytest.mark.slow
def test_the_command_line_changes(client, said):
    assert "1 item deleted, 2 left" in said("delete", "--where", "camera_id=0", "--expect", 1)[1]
    assert "gone from every file by" in said("erase", "--id", "b", "--request", "cli-1")[1]
    assert "gone from every file; " in said("erase", "--id", "c", "--request", "cli-2", "--now")[1]
    assert "cli-1" in said("erasures")[1]
    assert json.loads(said("erasures", "cli-2", "--json")[1])["receipt"]["items"] == 1
    for words in (
        ["audit", "--limit", 3],
        ["audit", "--verify"],
        ["snapshot", "cli"],
        ["restore", "cli"],
        ["generations"],
        ["drop", "cli"],
        ["compact"],
    ):
        assert said(*words)[0] == 0, words


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["search"], "--text"),
        (["search", "--text", "a", "--where", "nothing"], "--where"),
        (["search", "--image", "nowhere.png"], "nowhere.png"),
        (["add", "nowhere"], "nowhere"),
        (["delete"], "item_ids"),
        (["item", "nobody"], "nobody"),
        (["explain", "nobody", "--text", "a"], "nobody"),
        (["search", "--text", "a", "--like", "nobody"], "nobody"),
        (["delete", "--id", "nobody", "--expect", "1"], "nobody"),
        (["cancel", "nothing"], "404"),
        (["job", "../x"], "404"),
        (["info", "--url", "nothing"], "url"),
        (["info", "--url", "http://127.0.0.1:1", "--patience", "0"], "does not answer"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(said, words, named):
    code, _, problem = said(*words)
    assert (code, problem.startswith("error: "), named in problem) == (2, True, True), problem


@pytest.mark.slow
def test_ids_that_are_no_items_are_named_by_the_command_and_by_no_answer(client, said):
    with pytest.raises(ServiceRefusedError) as refusal:
        client.search(clues=[{"item": "nobody"}])
    assert "nobody" not in str(refusal.value)
    assert "not among the items: nobody" in said("delete", "--id", "a", "--id", "nobody")[1]
    assert "not among the items" not in said("delete", "--id", "b")[1]
    many = [word for number in range(200) for word in ("--id", f"n{number}")]
    code, told, _ = said("delete", "--id", "c", *many)  # so many were typed by no person, and are not looked for one page after the other
    assert (code, "not among the items" in told, list(client.items())) == (0, False, [])


@pytest.mark.slow
def test_people_read_when_an_item_was_added_and_may_filter_by_it_and_programs_read_seconds(client, said):
    (line,) = said("browse", "-k", 1, "--where", "camera_id=2")[1].splitlines()
    added = json.loads(line.partition("  ")[2])["added_s"]
    assert abs(datetime.now(UTC) - datetime.fromisoformat(added)) < timedelta(minutes=10)
    assert added.endswith("Z")
    assert "c  " in said("browse", "--where", f'added_s={{"from": "{added}"}}')[1]
    assert "no item passes" in said("browse", "--where", 'added_s={"to": "2020-01-01"}')[1]
    assert isinstance(json.loads(said("item", "c", "--json")[1])["item"]["added_s"], float)
    assert said("facets", "added_s")[1].startswith("added_s: 20")


def test_a_job_that_fails_ends_the_command_with_its_reason(client, said, tmp_path):
    vectors = pa.array([[1.0, *[0.0] * 11]], pa.list_(pa.float32()))
    made = {"kind": ["image"], "status": ["ok"], "encoder_fingerprint": ["another"]}
    pq.write_table(pa.table({"item_id": ["x"], "embedding": vectors, **made}), tmp_path / "t.parquet")
    code, _, problem = said("add", tmp_path / "t.parquet")
    assert (code, "another" in problem) == (2, True)
