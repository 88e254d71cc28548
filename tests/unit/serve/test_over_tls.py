"""A live server with a certificate of its own: clients that trust it are answered, by token and session, and nothing goes in the clear."""

import shutil
import ssl

import httpx
import pytest
from opened_doors import with_tokens
from own_certificates import own_certificate
from refusals import refused
from small_services import red_jpeg, small_gallery, small_operations

from reid_ray.errors import ReidRayError
from reid_ray.serve.access.config import TlsConfig
from reid_ray.serve.api.application import make_api
from reid_ray.serve.client import SearchClient
from reid_ray.serve.process.http_thread import bound_socket, running_server

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """Address, certificate and tokens of a service over TLS."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = own_certificate(folder)
    access, tokens = with_tokens(folder, tls=True)
    listening = bound_socket("127.0.0.1", 0)
    port = listening.getsockname()[1]
    operations = small_operations(small_gallery(folder / "gallery"))
    with running_server(make_api(operations, access=access), listening, TlsConfig(certificate=str(certificate), key=str(key))):
        yield port, certificate, tokens
    operations.close()
    access.close()


@pytest.mark.slow
def test_a_client_that_trusts_the_certificate_searches_by_text_and_by_picture(live):
    port, certificate, tokens = live
    with SearchClient(f"https://127.0.0.1:{port}", token=tokens["search"], ca=certificate, patience_s=5) as client:
        assert client.text("3", k=1)["hits"][0]["item_id"] == "3"
        assert client.image(red_jpeg(3), k=2)["hits"]
        assert client.thumbnail("3").size


@pytest.mark.slow
def test_one_that_does_not_trust_it_is_told_so_and_sends_nothing(live):
    port, _, tokens = live
    with SearchClient(f"https://127.0.0.1:{port}", token=tokens["search"], patience_s=1) as client, refused(ReidRayError, "127.0.0.1"):
        client.text("3")


def test_what_is_no_tls_gets_no_answer_and_who_has_no_token_gets_401(live):
    port, certificate, _ = live
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"http://127.0.0.1:{port}/v1/live", trust_env=False, timeout=5)
    with httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=ssl.create_default_context(cafile=str(certificate))) as http:
        assert http.get("/v1/live").status_code == 200, "it goes on"
        assert http.post("/v1/search", json={"text": "3"}).status_code == 401


def test_a_session_over_tls_is_a_cookie_that_no_browser_sends_in_the_clear(live):
    port, certificate, tokens = live
    with httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=ssl.create_default_context(cafile=str(certificate))) as http:
        reply = http.post("/v1/login", json={"token": tokens["search"]}, headers={"Origin": f"https://127.0.0.1:{port}"})
        assert reply.status_code == 200
        assert "secure" in reply.headers["set-cookie"].lower()
        assert http.post("/v1/search", json={"text": "3"}, headers={"Origin": f"https://127.0.0.1:{port}"}).status_code == 200
