"""Encoders apart from searchers, on Ray Serve: the same answers as where each searcher encodes, also while encoders die."""

import concurrent.futures
import io
import ipaddress
import time

import httpx
import numpy as np
import psutil
import pyarrow as pa
import pytest
from gallery_pair import table
from PIL import Image

from reid_ray.data.images import decode_image, encode_jpeg
from reid_ray.gallery.gallery_writer import GalleryWriter, create_gallery
from reid_ray.model.dual.config import ModelConfig
from reid_ray.model.dual.dual_encoder import build_dual_encoder
from reid_ray.model.pretrained import load_encoder
from reid_ray.retrieval.query import Clue, Query, text_query
from reid_ray.retrieval.search import SearchEngine
from reid_ray.serve.client import SearchClient
from reid_ray.serve.config import ServeJob
from reid_ray.serve.job import start_service

pytestmark = pytest.mark.slow

DIM = 4096  # 300 vectors are more than the 4 MiB that Ray Serve takes by itself
OPEN_RAY = "everyone on this network may run code here"  # the tests' Ray has no token authentication
COLOURS, GARMENTS = ("red", "blue", "green", "black"), ("coat", "jacket", "shirt", "dress")
TEXTS = [f"a {colour} {garment}" for colour in COLOURS for garment in GARMENTS]


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    blocks = [rng.integers(0, 256, (4, 2, 3), np.uint8).repeat(16, 0).repeat(16, 1) for _ in range(24)]
    return {f"{number:02d}": encode_jpeg(Image.fromarray(each)) for number, each in enumerate(blocks)}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder") / "model"
    shape = {"vision_width": 32, "vision_layers": 2, "text_width": 32, "text_layers": 2, "embed_dim": DIM, "vocab_size": 300, "context": 16}
    build_dual_encoder(ModelConfig(image_height=64, image_width=32, scratch=shape), TEXTS, seed=0).save(folder, {})
    return folder


@pytest.fixture(scope="module")
def gallery(encoder, pictures, tmp_path_factory):
    folder, loaded = tmp_path_factory.mktemp("gallery") / "gallery", load_encoder(encoder)
    create_gallery(folder, dim=loaded.dim, encoder=loaded.fingerprint)
    with GalleryWriter(folder) as writer:
        vectors = loaded.encode_images([Image.open(io.BytesIO(each)) for each in pictures.values()])
        rows = table(list(pictures), vectors)
        shown = pa.array(list(pictures.values()), pa.binary())
        writer.add(rows.set_column(rows.column_names.index("thumbnail"), "thumbnail", shown), encoder=loaded.fingerprint)
    return folder


@pytest.fixture(scope="module")
def running(local_ray, gallery, encoder):
    job = {"index": str(gallery), "encoder": str(encoder), "runs_on": "ray", "start_timeout_s": 900, "access": {"open_ray": OPEN_RAY}}
    job |= {"serve": {"port": 0, "timeout_s": 120}, "searcher": {"num_cpus": 0.2}, "encoders": {"replicas": 2, "num_cpus": 0.2}}
    with start_service(ServeJob.model_validate(job)) as service:
        yield service


@pytest.fixture
def service(running):
    with SearchClient(running.url) as client:
        yield client


@pytest.fixture(scope="module")
def alone(gallery, encoder):
    return SearchEngine.load(str(gallery), str(encoder), threads=1, device="cpu", batch_size=32)


def same(found, expected):
    assert [hit["item_id"] for hit in found["hits"]] == [hit.item_id for hit in expected.hits]
    np.testing.assert_allclose([hit["score"] for hit in found["hits"]], [hit.score for hit in expected.hits], atol=1e-5)


def encoders():
    """The processes of the encoders that live."""
    import ray

    found = [each for each in ray._private.state.actors().values() if each["State"] == "ALIVE" and "Encoder" in each["ActorClassName"]]
    return [psutil.Process(each["Pid"]) for each in found if psutil.pid_exists(each["Pid"])]


def test_texts_and_pictures_are_answered_as_where_each_searcher_encodes(service, alone, pictures):
    with concurrent.futures.ThreadPoolExecutor(16) as askers:
        answers = list(askers.map(lambda text: service.text(text, k=7), TEXTS))
        shown = list(askers.map(lambda data: service.image(data, k=3), pictures.values()))
    for text, found in zip(TEXTS, answers, strict=True):
        same(found, alone.answer([text_query(text, k=7)])[0])
    for data, found in zip(pictures.values(), shown, strict=True):
        same(found, alone.answer([Query((Clue(picture=Image.open(io.BytesIO(data))),), 3)])[0])
    assert [found["hits"][0]["item_id"] for found in shown] == list(pictures)


def test_a_picture_of_four_megapixels_is_encoded_elsewhere_too(service, alone):
    rng = np.random.default_rng(1)
    large = encode_jpeg(Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8).repeat(50, 0).repeat(50, 1)))
    same(service.image(large, k=3), alone.answer([Query((Clue(picture=decode_image(large)),), 3)])[0])


def test_more_vectors_than_ray_serve_takes_by_itself_come_back(service, alone):
    questions = [
        {"clues": [{"text": f"{colour} {place} {row}"} for place in range(16)], "k": 3} for row in range(20) for colour in COLOURS[:2]
    ]
    answers = service.batch(questions)
    assert max(found["batch"] for found in answers) == 32  # else what is too large for a message was asked again, one by one
    for asked, found in zip(questions, answers, strict=True):
        same(found, alone.answer([Query(tuple(Clue(text=clue["text"]) for clue in asked["clues"]), 3)])[0])


def test_a_text_beyond_the_context_is_told_an_item_is_explained_and_a_picture_added(service, pictures):
    assert service.text("red " * 40)["truncated"]
    assert not service.text("red")["truncated"]
    why = service.explain("03", text=TEXTS[0])
    assert [each["word"] for each in why["words"]] == TEXTS[0].split()
    assert why["patches"] is not None
    added = encode_jpeg(Image.new("RGB", (32, 64), (250, 20, 90)))
    assert service.finished(service.add({"new.jpg": added})["job_id"])["state"] == "done"
    assert service.image(added, k=1)["hits"][0]["score"] == pytest.approx(1, abs=1e-4)


def test_encoders_listen_on_the_loopback_alone(service):
    ports = [each for process in encoders() for each in process.net_connections("inet") if each.status == "LISTEN"]
    assert ports
    addresses = [ipaddress.ip_address(each.laddr.ip) for each in ports]
    assert all((getattr(each, "ipv4_mapped", None) or each).is_loopback for each in addresses), addresses


def test_no_search_fails_when_an_encoder_dies_and_both_are_there_again(service):
    before = encoders()
    assert len(before) == 2
    before[0].kill()
    before[0].wait(60)
    end = time.monotonic() + 120
    while len(now := encoders()) < 2:
        assert service.text(TEXTS[1], k=1)["hits"]
        assert time.monotonic() < end, "no other encoder was started"
    assert before[1].pid in {each.pid for each in now}


def test_where_all_encoders_died_searches_wait_for_one_or_are_told_so(running):
    for each in encoders():
        each.kill()
        each.wait(60)
    end, statuses = time.monotonic() + 120, []
    while statuses[-1:] != [200]:
        reply = httpx.post(f"{running.url}/v1/search", json={"text": TEXTS[1]}, timeout=180, trust_env=False)
        statuses.append(reply.status_code)
        assert reply.status_code in (200, 503, 504), reply.text
        assert reply.status_code == 200 or reply.json()["detail"]
        assert time.monotonic() < end, "no encoder was started"
    assert reply.json()["hits"]
