"""The real thing over HTTP: a folder of crops is embedded by Ray Data, indexed by FAISS, and searched through Ray Serve."""

import base64
import concurrent.futures
import contextlib
import io
import ipaddress
import json
import os
import shutil
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_hub import COMMIT, fake_hub, files_of, hub_environment
from gallery_pair import DIM, table, unit
from own_certificates import own_certificate
from PIL import Image
from ray import serve
from refusals import refused

from reid_ray.config.common import EmbedPoolConfig
from reid_ray.data.execution import ray_data_execution
from reid_ray.data.images import decode_image, encode_jpeg
from reid_ray.errors import ConfigError, DataError, ResourceError
from reid_ray.gallery.config import GalleryConfig
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.gallery.gallery_writer import GalleryWriter, create_gallery
from reid_ray.gallery.shards.ray_shard import start_shards
from reid_ray.gallery.shards.sharded_view import ShardedView
from reid_ray.gallery.verification import faults_of
from reid_ray.model.dual.config import ModelConfig
from reid_ray.model.dual.dual_encoder import build_dual_encoder
from reid_ray.model.pretrained import load_encoder
from reid_ray.records import CAPTIONS, EMBEDDINGS, table_of
from reid_ray.retrieval.embed_stream import embed_texts
from reid_ray.retrieval.gallery_command import gallery_command
from reid_ray.retrieval.index.config import IndexJob
from reid_ray.retrieval.index.job import run_index
from reid_ray.retrieval.query import Clue, Query
from reid_ray.retrieval.search import SearchEngine
from reid_ray.retrieval.searched_folder import SearchedGallery
from reid_ray.serve.access.roles import AccessRole
from reid_ray.serve.access.tokens.token_file import create_token
from reid_ray.serve.client import SearchClient
from reid_ray.serve.config import ServeJob
from reid_ray.serve.job import start_service
from reid_ray.serve.on_ray.build import build
from reid_ray.serve.operations.search_operations import refuse_what_cannot_work
from reid_ray.storage import read_table

pytestmark = pytest.mark.slow

TEXTS = ["a woman with long black hair wears a red coat", "the man carries a blue backpack", "a person in grey trousers and white shoes"]
GOOD = 40
OPEN_RAY = "everyone on this network may run code here"  # the tests' Ray has no token authentication


def tiny_encoder(folder, *, dim=16, seed=0):
    shape = {"vision_width": 32, "vision_layers": 2, "text_width": 32, "text_layers": 2, "embed_dim": dim, "vocab_size": 300, "context": 16}
    config = ModelConfig(image_height=64, image_width=32, scratch=shape)
    build_dual_encoder(config, TEXTS, seed=seed).save(folder, {})
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return tiny_encoder(tmp_path_factory.mktemp("encoder") / "model")


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    """40 good crops, one of them a PNG, and three broken files; names with a folder, a space and an emoji."""
    folder = tmp_path_factory.mktemp("crops")
    (folder / "cam é 🎥").mkdir()
    random = np.random.default_rng(0)
    for number in range(GOOD):
        blocks = random.integers(0, 256, (4, 2, 3), np.uint8).repeat(24, 0).repeat(24, 1)
        picture = Image.fromarray(blocks)
        name = f"{number:03d}.png" if number == 7 else f"cam é 🎥/{number:03d}.jpg" if number % 2 else f"{number:03d}.jpg"
        picture.save(folder / name)
    (folder / "a text.jpg").write_text("this is no image")
    (folder / "empty.jpg").write_bytes(b"")
    noise = encode_jpeg(Image.fromarray(random.integers(0, 256, (90, 40, 3), np.uint8)))
    (folder / "truncated.jpg").write_bytes(noise[: len(noise) // 2])
    (folder / "notes.txt").write_text("not listed")
    return folder


@pytest.fixture(scope="module")
def gallery(local_ray, encoder, crops, tmp_path_factory):
    """(index folder, manifest of the index job)."""
    folder = tmp_path_factory.mktemp("index") / "index"
    config = {
        "images": {"source": "folder", "path": str(crops)},
        "encoder": str(encoder),
        "embed": {"batch_size": 8},
        "thumbnail_height": 48,
    }
    return folder, run_index(IndexJob.model_validate({**config, "output": {"path": str(folder)}}))


def test_an_encoder_of_a_hub_makes_the_gallery_of_its_folder_and_a_search_finds_it_again(gallery, encoder, crops, tmp_path):
    name, (_, made) = "people/finder", gallery
    fetch = f"from reid_ray.retrieval.encoder_identity import require_encoder; require_encoder({name!r})"
    with fake_hub(name, files_of(encoder)) as hub:
        hub.card = {"license": "mit"}
        environment = hub_environment(hub.endpoint, os.environ["HF_HOME"])
        said = subprocess.run([sys.executable, "-c", fetch], env=environment, capture_output=True, text=True, check=True).stdout
    assert f"encoder: {name} at {COMMIT[:12]}: " in said
    assert "licence mit" in said
    images = {"source": "folder", "path": str(crops)}
    job = {
        "images": images,
        "encoder": name,
        "embed": {"batch_size": 8},
        "thumbnail_height": 48,
        "output": {"path": str(tmp_path / "index")},
    }
    facts = run_index(IndexJob.model_validate(job))["facts"]  # the tests' Ray is offline: all actors take what is there
    assert facts["encoder_path"] == f"{name}@{COMMIT}"
    assert {name: facts[name] for name in ("dim", "items", "encoder_fingerprint")} == {
        name: made["facts"][name] for name in ("dim", "items", "encoder_fingerprint")
    }
    fit = refuse_what_cannot_work(ServeJob.model_validate({"index": str(tmp_path / "index")}))
    assert fit.encoder == f"{name}@{COMMIT}"
    query = Query((Clue(text=TEXTS[0]),), 5)
    found, expected = (
        SearchEngine.load(str(index), None, threads=1, device="cpu", batch_size=4).answer([query])[0].hits
        for index in (tmp_path / "index", gallery[0])
    )
    assert [(hit.item_id, hit.score) for hit in found] == [(hit.item_id, hit.score) for hit in expected]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    """(the file of tokens, a token)."""
    file = tmp_path_factory.mktemp("tokens") / "tokens.json"
    return file, create_token(file, "anna", AccessRole.SEARCH, days=None)


@pytest.fixture(scope="module")
def trusted(tmp_path_factory):
    """(certificate and key, what a client trusts); without openssl no certificate."""
    if shutil.which("openssl") is None:
        return {}, True
    certificate, key = own_certificate(tmp_path_factory.mktemp("tls"))
    return {"certificate": str(certificate), "key": str(key)}, ssl.create_default_context(cafile=str(certificate))


@pytest.fixture(scope="module", params=["direct", "proxy"])
def service(gallery, tokens, trusted, request):
    job = {"index": str(gallery[0]), "runs_on": "ray", "start_timeout_s": 900, "searcher": {"num_cpus": 0.5}}
    job |= {
        "serve": {"port": 0, "max_upload_bytes": 1 << 20, "timeout_s": 120, "ingress": request.param},
        "access": {"tokens": str(tokens[0]), "searches_per_s": None, "open_ray": OPEN_RAY},
        "tls": trusted[0],
    }
    with start_service(ServeJob.model_validate(job)) as running:
        yield running


@pytest.fixture(scope="module")
def stranger(service, trusted):
    """A client without a token."""
    with httpx.Client(base_url=service.url, timeout=180, trust_env=False, verify=trusted[1]) as client:
        yield client


@pytest.fixture(scope="module")
def http(service, trusted, tokens):
    headers = {"Authorization": f"Bearer {tokens[1]}"}
    with httpx.Client(base_url=service.url, headers=headers, timeout=180, trust_env=False, verify=trusted[1]) as client:
        yield client


def embedded(encoder, crops, names, folder):
    """A table as the embed job writes it, of some crops."""
    pictures = [(crops / name).read_bytes() for name in names]
    loaded = load_encoder(encoder)
    vectors = loaded.encode_images([decode_image(picture) for picture in pictures])
    same = {"kind": "image", "status": "ok", "camera_id": 1}
    rows = [
        {**same, "item_id": name, "image_id": name, "embedding": vector.tolist(), "person_id": int(name[:3]) // 4}
        for name, vector in zip(names, vectors, strict=True)
    ]
    made = table_of(EMBEDDINGS, rows).append_column("thumbnail", pa.array(pictures, pa.binary()))
    folder.mkdir()
    pq.write_table(made.append_column("encoder_fingerprint", pa.array([loaded.fingerprint] * len(names))), folder / "part.parquet")
    return str(folder)


def seen_within_a_second(look):
    """Whether `look` is true within a second, and at the least a little while after a change."""
    end = time.monotonic() + 1.0
    while not (found := look()) and time.monotonic() < end:
        time.sleep(0.05)
    return found


@pytest.fixture(scope="module")
def crops_of_people(crops):
    return [f"{number:03d}.jpg" for number in range(0, 20, 2)]  # two of each of five persons


def test_a_served_gallery_shows_within_a_second_what_commands_add_delete_and_erase(local_ray, encoder, crops, crops_of_people, tmp_path):
    folder, names = tmp_path / "gallery", crops_of_people
    loaded, config = load_encoder(encoder), GalleryConfig(segment_rows=2, merge_rows=2, erase_within_hours=5 / 3600)
    create_gallery(folder, dim=loaded.dim, encoder=loaded.fingerprint, config=config)
    for number in (0, 2, 4):  # a segment each
        table_folder = embedded(encoder, crops, names[number : number + 2], tmp_path / f"{number}")
        assert gallery_command(["add", str(folder), table_folder]) == 0
    job = {"index": str(folder), "encoder": str(encoder), "runs_on": "ray", "start_timeout_s": 900, "serve": {"port": 0, "timeout_s": 120}}
    job["access"] = {"open_ray": OPEN_RAY}
    job["shares"] = {"count": 2, "num_cpus": 0.1, "lost": "say"}
    with (
        start_service(ServeJob.model_validate({**job, "searcher": {"num_cpus": 0.5}})) as running,
        httpx.Client(base_url=running.url, timeout=180, trust_env=False) as client,
    ):

        def found(name):
            answer = client.post(
                "/v1/search/upload", files={"image": ("crop", (crops / name).read_bytes())}, data={"question": '{"k": 20}'}
            )
            assert answer.json()["missing_shares"] == []
            return {hit["item_id"]: hit for hit in answer.json()["hits"]}

        assert set(found(names[0])) == set(names[:6])
        thumbnail = found(names[0])[names[0]]["thumbnail"]
        assert client.get(f"/{thumbnail}").content == (crops / names[0]).read_bytes()
        assert gallery_command(["add", str(folder), embedded(encoder, crops, names[6:], tmp_path / "second")]) == 0
        assert seen_within_a_second(lambda: set(found(names[9])) == set(names))
        assert gallery_command(["delete", str(folder), "--id", names[9]]) == 0
        assert seen_within_a_second(lambda: set(found(names[9])) == set(names[:9]))
        assert gallery_command(["erase", str(folder), "--where", "person_id=0"]) == 0
        assert seen_within_a_second(lambda: not {names[0], names[1]} & set(found(names[0])))
        assert client.get(f"/{thumbnail}").status_code == 404
        assert client.get("/v1/info").json()["items"] == 7
        end, picture = time.monotonic() + 60, (crops / names[0]).read_bytes()
        while left := [path.name for path in folder.rglob("*") if path.is_file() and picture in path.read_bytes()]:
            assert time.monotonic() < end, f"nobody but the service runs, and it has not carried the erasure out: {left}"
            time.sleep(0.2)
        assert set(found(names[0])) == set(names[2:9])


def test_replicas_flip_to_new_generations_together_while_they_are_asked(local_ray, encoder, tmp_path):
    """Two replicas, compactions one after the other: no search fails, and no answer is of an older generation than one long before it."""
    folder = tmp_path / "gallery"
    loaded = load_encoder(encoder)
    create_gallery(folder, dim=loaded.dim, encoder=loaded.fingerprint)
    with GalleryWriter(folder) as writer:
        writer.add(table(["a", "b", "c"], loaded.encode_texts(TEXTS)), encoder=loaded.fingerprint)
    job = {"index": str(folder), "encoder": str(encoder), "runs_on": "ray", "start_timeout_s": 900, "serve": {"port": 0, "timeout_s": 120}}
    job["access"] = {"open_ray": OPEN_RAY, "searches_per_s": None}
    seen, ended = [], threading.Event()

    def ask(url):
        with httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
            while not ended.is_set():
                began = time.monotonic()
                reply = client.post("/v1/search", json={"text": TEXTS[1], "k": 1})
                seen.append((began, time.monotonic(), reply.status_code, reply.json()["hits"][0]["item_id"], reply.json()["generation"]))

    with start_service(ServeJob.model_validate({**job, "searcher": {"num_cpus": 0.2, "replicas": 2}})) as running:
        askers = [threading.Thread(target=ask, args=(running.url,)) for _ in range(2)]
        for asker in askers:
            asker.start()
        for number in range(4):
            with GalleryWriter(folder) as writer:
                writer.add(table([f"more {number}"], loaded.encode_texts([f"a dog {number}"])), encoder=loaded.fingerprint)
                writer.compact()
                newest = writer.view.generation
            end = time.monotonic() + 60
            while not seen or seen[-1][4] != newest:
                assert time.monotonic() < end
                time.sleep(0.05)
        ended.set()
        for asker in askers:
            asker.join()
        lose_a_replica(running.url)
    assert {(status, hit) for _, _, status, hit, _ in seen} == {(200, "b")}
    for began, _, _, _, generation in seen:
        assert generation >= max((each for _, done, _, _, each in seen if done < began - 2.0), default=0)


def listeners(url):
    """The processes that listen at a service's port."""
    port = int(url.rpartition(":")[2])
    pids = {each["Pid"] for each in ray_actors() if "Replica" in each["ActorClassName"] and psutil.pid_exists(each["Pid"])}
    found = [psutil.Process(pid) for pid in pids]
    return [one for one in found if any(each.laddr.port == port for each in one.net_connections("inet") if each.status == "LISTEN")]


def ray_actors():
    import ray

    return [each for each in ray._private.state.actors().values() if each["State"] == "ALIVE"]


def lose_a_replica(url):
    """Kill one of two replicas that listen by themselves: the client is answered all the while, and Ray Serve starts another."""
    before = listeners(url)
    assert len(before) == 2
    with SearchClient(url) as client:
        before[0].kill()
        before[0].wait(60)
        end = time.monotonic() + 120
        while len(now := listeners(url)) < 2:
            assert client.search(text=TEXTS[1], k=1)["hits"][0]["item_id"] == "b"
            assert time.monotonic() < end, "no other replica was started"
        assert before[1].pid in {one.pid for one in now}


def test_two_shares_in_actors_answer_as_one_and_again_after_one_was_lost(local_ray, tmp_path):
    import ray

    folder, rng = tmp_path / "gallery", np.random.default_rng(0)
    create_gallery(folder, dim=DIM, encoder="e", config=GalleryConfig(segment_rows=10, merge_rows=10))
    with GalleryWriter(folder) as writer:
        for start in range(0, 45, 5):
            writer.add(table([f"item {number}" for number in range(start, start + 5)], unit(rng, 5)), encoder="e")
        shards, query = start_shards(str(folder), 2, num_cpus=0.1), unit(rng, 1)
        view, refusing = ShardedView(shards, lost="say"), ShardedView(shards)
        assert view.search(query, 45) == refusing.search(query, 45) == (writer.view.search(query, 45), ())
        ray.kill(shards[0].actor)  # for good
        end = time.monotonic() + 60
        while not (lacking := view.search(query, 45)).missing:  # Ray kills it in a moment
            assert time.monotonic() < end
        assert (0 < len(lacking.value[0]) < 45, lacking.missing) == (True, (0,))
        with refused(ResourceError, "share 0 of 2"):
            refusing.search(query, 45)
        writer.add(table(["late"], query), encoder="e")
        shards[0].actor = start_shards(str(folder), 2, num_cpus=0.1)[0].actor
        view.refresh()
        assert view.search(query, 46) == refusing.search(query, 46) == (writer.view.search(query, 46), ())
        ray.kill(shards[1].actor, no_restart=False)  # Ray starts it again
        writer.add(table(["later"], query), encoder="e")
        while view.search(query, 47) != (writer.view.search(query, 47), ()):
            assert time.monotonic() < end, "the actor is not started again"
            time.sleep(0.2)
            view.refresh()
        with pytest.raises(ConfigError):
            view.search(query, 5, where={"nothing": 1})
    for shard in shards:
        ray.kill(shard.actor)


def test_the_index_job_counts_every_file_and_keeps_the_reason_of_each_failure(gallery):
    folder, manifest = gallery
    failed = {"empty": 1, "not_an_image": 1, "truncated": 1}
    assert manifest["counts"] == {"read": GOOD + 3, "written": GOOD, "failed": failed, "left_out": {}}
    rows = read_table(folder / "failed", EMBEDDINGS).to_pylist()
    assert {row["item_id"]: row["reason"].partition(":")[0] for row in rows} == {
        "a text.jpg": "not_an_image",
        "empty.jpg": "empty",
        "truncated.jpg": "truncated",
    }


def test_the_index_holds_what_the_encoder_says_of_each_file_in_the_order_of_the_folder(gallery, encoder, crops):
    index = GalleryView(gallery[0])
    ids = index.ids()
    assert ids == sorted(ids)
    assert len(ids) == GOOD
    vectors = load_encoder(encoder).encode_images([decode_image((crops / name).read_bytes()) for name in ids])
    best = [hits[0] for hits in index.search(vectors, 1)]
    assert [hit.item_id for hit in best] == ids
    np.testing.assert_allclose([hit.score for hit in best], 1, atol=1e-5)
    assert {Image.open(io.BytesIO(index.thumbnail(item))).size for item in ids} == {(24, 48)}
    assert faults_of(gallery[0]) == []


def test_captions_are_embedded_by_ray_data_as_the_encoder_embeds_them(local_ray, encoder):
    import ray.data

    rows = [{"caption_id": f"c{n}", "image_id": "i", "kind": "human", "text": text, "status": "ok"} for n, text in enumerate([*TEXTS, " "])]
    with ray_data_execution(no_progress_timeout_s=300):
        embedded = embed_texts(ray.data.from_arrow(table_of(CAPTIONS, rows)), str(encoder), EmbedPoolConfig(batch_size=2))
        parts = list(embedded.iter_batches(batch_size=None, batch_format="pyarrow"))
    rows = {row["item_id"]: row for part in parts for row in part.to_pylist()}
    assert {name: row["status"] for name, row in rows.items()} == {"c0": "ok", "c1": "ok", "c2": "ok", "c3": "failed"}
    np.testing.assert_allclose([rows[f"c{n}"]["embedding"] for n in range(3)], load_encoder(encoder).encode_texts(TEXTS), atol=1e-5)


@pytest.mark.parametrize("text", [*TEXTS, "🧥👜🥾 кто это? 穿红衣服的女人"])
def test_a_text_query_over_http_ranks_as_a_direct_search_does(http, gallery, encoder, text):
    reply = http.post("/v1/search", json={"text": text, "k": 10})
    assert reply.status_code == 200
    loaded = load_encoder(encoder)
    expected = SearchedGallery(gallery[0]).pages(loaded.encode_texts([text]), Query((), 10))[0].hits
    hits = reply.json()["hits"]
    assert [hit["item_id"] for hit in hits] == [hit.item_id for hit in expected]
    assert {hit["generation"] for hit in hits} == {GalleryView(gallery[0]).generation}
    np.testing.assert_allclose([hit["score"] for hit in hits], [hit.score for hit in expected], atol=1e-5)
    assert [hit["rank"] for hit in hits] == list(range(1, 11))
    assert reply.json()["latency_ms"]["total"] > 0


def test_an_image_query_finds_itself_first_by_upload_and_by_base64(http, crops):
    for name in ("007.png", "cam é 🎥/003.jpg"):
        data = (crops / name).read_bytes()
        replies = [
            http.post("/v1/search/upload", files={"image": ("crop", data)}, data={"question": '{"k": 3}'}),
            http.post("/v1/search", json={"clues": [{"image": base64.b64encode(data).decode()}], "k": 3}),
        ]
        for reply in replies:
            assert reply.status_code == 200
            assert reply.json()["hits"][0]["item_id"] == name
            assert reply.json()["hits"][0]["score"] == pytest.approx(1, abs=1e-4)


def test_many_queries_at_once_are_batched_and_each_gets_its_own_answer(http, crops):
    names = sorted(path.relative_to(crops).as_posix() for path in crops.rglob("0*.*"))[:32]

    def ask(name):
        return http.post(
            "/v1/search/upload",
            files={"image": ("crop", (crops / name).read_bytes())},
            data={"question": json.dumps({"k": 1 + len(name) % 3})},
        )

    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        replies = list(pool.map(ask, names))
    assert [reply.json()["hits"][0]["item_id"] for reply in replies] == names
    assert [len(reply.json()["hits"]) for reply in replies] == [1 + len(name) % 3 for name in names]
    assert max(reply.json()["batch"] for reply in replies) > 1


def test_what_cannot_be_answered_is_refused_in_a_sentence_and_the_service_lives_on(http):
    cases = [
        (http.post("/v1/search", json={"text": "   "}), 422, "the query is empty"),
        (http.post("/v1/search", json={"text": "red " * 6_000_000}), 413, "larger than"),
        (http.post("/v1/search", json={"text": "x" * 10_001}), 422, "10001 characters"),
        (http.post("/v1/search/upload", files={"image": ("x.jpg", b"this is no image")}), 422, "not_an_image"),
        (http.post("/v1/search/upload", files={"image": ("x.jpg", b"")}), 422, "0 bytes"),
        (http.post("/v1/search/upload", files={"image": ("x.jpg", bytes(3 << 20))}), 413, "the largest allowed"),
        (http.get("/v1/thumbnails?id=4000"), 404, "no such item"),
    ]
    for reply, status, sentence in cases:
        assert (reply.status_code, sentence in reply.json()["detail"]) == (status, True), reply.text
    assert http.post("/v1/search", json={"text": "a man", "k": 1}).status_code == 200


def test_k_beyond_the_gallery_gives_the_whole_gallery_once(http):
    answer = http.post("/v1/search", json={"text": "a man", "k": 1000}).json()
    assert (answer["k"], answer["gallery"], len(answer["hits"])) == (1000, GOOD, GOOD)
    assert len({hit["item_id"] for hit in answer["hits"]}) == GOOD


def test_a_filter_that_nothing_passes_gives_no_hits(http):
    answer = http.post("/v1/search", json={"text": "a man", "where": {"image_id": "nobody"}})
    assert (answer.status_code, answer.json()["hits"]) == (200, [])


def test_a_token_is_needed_for_all_that_tells_of_people(stranger):
    for headers in ({}, {"Authorization": "Bearer wrong-wrong-wrong-wrong"}):
        for path in ("/v1/info", "/v1/thumbnails?id=0", "/v1/none"):
            assert stranger.get(path, headers=headers).status_code == 401
        assert stranger.post("/v1/search", json={"text": "a"}, headers=headers).status_code == 401
    assert stranger.get("/v1/live").json() == {"status": "ok"}


def test_no_port_of_the_service_or_its_ray_is_open_beyond_this_machine(service):
    import ray

    actors = {each["Pid"] for each in ray._private.state.actors().values() if each["State"] == "ALIVE"}  # some fork from warm processes
    children = {each.pid for each in psutil.Process().children(recursive=True)}
    processes = [psutil.Process(pid) for pid in {os.getpid()} | children | {pid for pid in actors if psutil.pid_exists(pid)}]
    ports = {}
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.name() == "ray::RayTrainWorker":
                continue  # of an earlier test on this Ray: torch's workers find each other on any interface
            listening = [each for each in process.net_connections("inet") if each.status == psutil.CONN_LISTEN]
            ports |= {each.laddr.port: (each.laddr.ip, process.name()) for each in listening}
    assert int(service.url.rpartition(":")[2]) in ports
    assert len(ports) > 8, "Ray's own ports are not among them"
    addresses = {port: (ipaddress.ip_address(ip), name) for port, (ip, name) in ports.items()}
    beyond = {port: each for port, each in addresses.items() if not (getattr(each[0], "ipv4_mapped", None) or each[0]).is_loopback}
    assert beyond == {}


@pytest.mark.parametrize("ingress", ["direct", "proxy"])
def test_a_second_service_in_the_cluster_is_refused_and_the_first_goes_on(stranger, gallery, ingress):
    second = {"index": str(gallery[0]), "runs_on": "ray", "serve": {"port": 0, "ingress": ingress}, "access": {"open_ray": OPEN_RAY}}
    with refused(ResourceError, "a search service runs in this cluster already"):
        start_service(ServeJob.model_validate(second))
    assert stranger.get("/v1/ready").status_code == 200


def test_a_ray_that_asks_nobody_for_a_token_is_refused(local_ray, gallery):
    with refused(ConfigError, "RAY_AUTH_MODE", "access.open_ray"):
        start_service(ServeJob.model_validate({"index": str(gallery[0]), "runs_on": "ray"}))


def test_thumbnails_page_info_and_openapi_are_there(http):
    hit = http.post("/v1/search", json={"text": "a man", "k": 1}).json()["hits"][0]
    thumbnail = http.get("/" + hit["thumbnail"])
    assert thumbnail.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(thumbnail.content)).format == "JPEG"
    assert http.get("/").text.startswith("<!DOCTYPE html>")
    for path in ("/", "/v1/live"):
        head = http.head(path)
        assert (head.status_code, head.content) == (200, b""), "what probes and browsers ask first"
    assert http.get("/v1/info").json()["items"] == GOOD
    paths = http.get("/openapi.json").json()["paths"]
    assert {"/v1/search", "/v1/search/upload", "/v1/search/batch", "/v1/thumbnails", "/v1/live", "/v1/ready", "/v1/info"} <= set(paths)


@pytest.mark.parametrize(("options", "sentence"), [({"dim": 24}, "dimension 16"), ({"seed": 1}, "was made by encoder")])
def test_an_index_of_another_encoder_is_refused_before_anything_starts(gallery, tmp_path, options, sentence):
    other = tiny_encoder(tmp_path / "other", **options)
    with refused(DataError, sentence):
        start_service(ServeJob(index=str(gallery[0]), encoder=str(other), runs_on="ray"))


def test_a_service_that_cannot_start_says_so_before_it_starts(local_ray, gallery, tmp_path):
    with refused(DataError, str(tmp_path)):
        start_service(ServeJob(index=str(tmp_path), runs_on="ray"))
    missing = str(tmp_path / "tokens.json")
    with refused(DataError, missing):
        start_service(ServeJob.model_validate({"index": str(gallery[0]), "runs_on": "ray", "access": {"tokens": missing}}))


def test_the_builder_for_rays_own_tools_takes_nested_and_dotted_fields_and_refuses_unknown_ones(gallery):
    assert isinstance(
        build({"index": str(gallery[0]), "searcher": {"replicas": 2}, "serve.max_k": "70", "access.open_ray": OPEN_RAY}), serve.Application
    )
    with refused(ConfigError, "searcher.replica"):
        build({"index": str(gallery[0]), "runs_on": "ray", "searcher.replica": 2})
    with refused(ConfigError, "serve.ingress"):
        build({"index": str(gallery[0]), "serve.ingress": "direct"})


@pytest.mark.parametrize("damage", ["no_folder", "no_image", "all_broken", "no_encoder"])
def test_an_index_job_without_anything_to_index_leaves_nothing_behind(local_ray, encoder, tmp_path, damage):
    crops = tmp_path / "crops"
    if damage != "no_folder":
        crops.mkdir()
        (crops / ("x.txt" if damage == "no_image" else "x.jpg")).write_text("no image")
    job = {"images": {"source": "folder", "path": str(crops)}, "output": {"path": str(tmp_path / "out")}}
    job["encoder"] = str(tmp_path / "nowhere") if damage == "no_encoder" else str(encoder)
    with refused(DataError, "nowhere" if damage == "no_encoder" else "crops"):
        run_index(IndexJob.model_validate(job))
    assert not list(tmp_path.glob("*out*")) + list(tmp_path.glob(".*"))


@pytest.mark.soak("kills")
def test_two_shares_on_two_nodes_answer_as_one_and_again_after_a_node_was_lost(root, tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(root / "tests/shared"), os.environ.get("PYTHONPATH")]))}
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path)], env=environment, check=False, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]


def lose_a_node(folder: Path) -> None:
    """Ask two shares on two nodes of a cluster of its own, kill the node of the first one, and ask again with a new node."""
    import ray
    from ray.cluster_utils import Cluster

    rng = np.random.default_rng(0)
    create_gallery(folder / "gallery", dim=DIM, encoder="e", config=GalleryConfig(segment_rows=10, merge_rows=10))
    with GalleryWriter(folder / "gallery") as writer:
        for start in range(0, 45, 5):
            writer.add(table([f"item {number}" for number in range(start, start + 5)], unit(rng, 5)), encoder="e")
        query = unit(rng, 1)
        whole = writer.view.search(query, 45)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=100 << 20) for _ in range(2)]
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False)
    shards = start_shards(str(folder / "gallery"), 2, num_cpus=1)
    view = ShardedView(shards, lost="say")
    assert view.search(query, 45) == (whole, ())
    where = {each["ActorID"]: each["Address"]["NodeID"] for each in ray._private.state.actors().values()}
    places = [where[shard.actor._actor_id.hex()] for shard in shards]
    assert len(set(places)) == 2, "both shares are on one node"
    cluster.remove_node(next(node for node in nodes if node.node_id == places[0]), allow_graceful=False)
    end = time.monotonic() + 120
    while (answer := view.search(query, 45)).missing != (0,):
        assert time.monotonic() < end
        time.sleep(0.5)
    assert 0 < len(answer.value[0]) < 45
    cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
    while view.search(query, 45) != (whole, ()):
        assert time.monotonic() < end
        time.sleep(0.5)
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    lose_a_node(Path(sys.argv[1]))
