"""Sessions: a cookie no script reads and no other site's page sends, which ends with its time, its token and its user's word."""

import base64
import json
import os
import subprocess
import sys
import time
from http.cookies import SimpleCookie

import pytest
from refusals import refused

from reid_ray.errors import DataError
from reid_ray.serve.access.roles import LOCAL, AccessRole
from reid_ray.serve.access.secret_key import secret_key
from reid_ray.serve.access.session_cookies import Sessions, why_forged
from reid_ray.serve.access.tokens.token_book import TokenBook
from reid_ray.serve.access.tokens.token_file import create_token, revoke_token, rotate_token


class Service:
    """Tokens, sessions and clocks of one service; `again` is another replica of it."""

    def __init__(self, folder):
        self.folder, self.now = folder, time.time()
        self.file = folder / "tokens.json"
        self.token = create_token(self.file, "anna", AccessRole.WRITE, days=None)
        self.book = self.looking()
        self.sessions = self.again()

    def looking(self):
        ticks = iter(range(10**9))
        return TokenBook(self.file, clock=lambda: self.now, ticks=lambda: next(ticks))  # looks at every question

    def again(self, **options):
        options = {"hours": 8, "secure": False, **options}
        return Sessions(self.folder / "state", self.looking(), clock=lambda: self.now, **options)

    def cookie(self, purpose=None):
        return sent_back(self.sessions.begin(self.book.caller_of(self.token), purpose))


def sent_back(header):
    """The Cookie header of a browser that got a Set-Cookie header."""
    return "; ".join(f"{each.key}={each.value}" for each in SimpleCookie(header).values())


@pytest.fixture
def service(tmp_path):
    return Service(tmp_path)


def test_a_session_stands_for_its_token_on_every_replica(service):
    cookie = service.cookie("case 12: a lost child")
    for sessions in (service.sessions, service.again()):
        caller = sessions.caller_of(f"theme=dark; {cookie}; other=1")
        assert (caller.name, caller.role, caller.login, caller.purpose) == ("anna", AccessRole.WRITE, True, "case 12: a lost child")
    assert service.token.split("_", 2)[2] not in cookie


def test_the_cookie_is_kept_from_scripts_and_other_sites_and_under_tls_from_plain_http(service):
    for secure in (False, True):
        sessions = service.again(secure=secure)
        (cookie,) = SimpleCookie(sessions.begin(service.book.caller_of(service.token), None)).values()
        assert (cookie["httponly"], cookie["samesite"], cookie["path"], cookie["domain"]) == (True, "Strict", "/", "")
        assert cookie["max-age"] == str(8 * 3600)
        assert (bool(cookie["secure"]), cookie.key.startswith("__Host-")) == (secure, secure)


def test_two_services_on_one_machine_have_cookies_of_their_own(service, tmp_path_factory):
    other = Service(tmp_path_factory.mktemp("other"))
    assert service.sessions.cookie_name != other.sessions.cookie_name
    assert other.sessions.caller_of(service.cookie()) is None


@pytest.mark.parametrize("end", ["time", "revoked", "rotated", "logout"])
def test_a_session_ends_with_its_time_its_token_and_its_users_word(service, end):
    cookie, other = service.cookie(), service.cookie()
    assert service.sessions.caller_of(cookie) is not None
    if end == "time":
        service.now += 8 * 3600
    elif end == "revoked":
        revoke_token(service.file, "anna")
    elif end == "rotated":
        rotate_token(service.file, "anna", days=None)
    else:
        assert sent_back(service.again().end(cookie)) == f"{service.sessions.cookie_name}="
        assert service.sessions.caller_of(other) is not None
    assert service.sessions.caller_of(cookie) is None


def test_no_cookie_can_be_made_without_the_key(service):
    name, _, value = service.cookie().partition("=")
    payload, _, signature = value.partition(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    longer = base64.urlsafe_b64encode(json.dumps({**claims, "until": 9e9}).encode()).rstrip(b"=").decode()
    forged = [f"{longer}.{signature}", payload, f"{payload}.", f".{signature}", f"{payload}.{signature[:-1]}0g", ".", "é.é", "x" * 10_000]
    assert [service.sessions.caller_of(f"{name}={each}") for each in forged] == [None] * len(forged)
    for cookies in ("", ";", "=", name, f"{name}=", f"x{name}={value}"):
        assert service.sessions.caller_of(cookies) is None


def test_a_session_needs_a_token_to_begin(service):
    with refused(ValueError, "token"):
        service.sessions.begin(LOCAL, None)


def test_ended_sessions_are_forgotten_when_their_time_is_over(service):
    cookie = service.cookie()
    service.sessions.end(cookie)
    service.now += 9 * 3600
    service.sessions.end(service.cookie())
    assert len(list((service.folder / "state" / "ended_sessions").iterdir())) == 1


FORGED = [
    # method, headers, ambient, taken
    ("POST", {"sec-fetch-site": "same-origin"}, True, True),
    ("POST", {"sec-fetch-site": "none"}, True, True),
    ("POST", {"sec-fetch-site": "cross-site"}, True, False),
    ("POST", {"sec-fetch-site": "same-site"}, True, False),
    ("GET", {"sec-fetch-site": "cross-site"}, True, False),
    ("POST", {"sec-fetch-site": "cross-site", "origin": "http://search.example:8000"}, True, False),
    ("POST", {"origin": "http://search.example:8000"}, True, True),
    ("POST", {"origin": "https://search.example:8000"}, True, True),
    ("POST", {"origin": "http://SEARCH.example:8000"}, True, True),
    ("POST", {"origin": "http://search.example"}, True, False),
    ("POST", {"origin": "http://evil.example"}, True, False),
    ("POST", {"origin": "null"}, True, False),
    ("POST", {"origin": "http://[bad"}, True, False),
    ("DELETE", {}, True, False),
    ("POST", {}, True, False),
    ("GET", {}, True, True),
    ("POST", {}, False, True),
    ("POST", {"origin": "http://evil.example"}, False, False),
]


@pytest.mark.parametrize(("method", "headers", "ambient", "taken"), FORGED)
def test_what_another_sites_page_may_have_sent_is_refused(method, headers, ambient, taken):
    headers = {name.encode(): value for name, value in {"host": "search.example:8000", **headers}.items()}
    assert (why_forged(method, headers, ambient=ambient, scheme="http") is None) == taken


def test_under_tls_a_page_of_plain_http_is_another_site():
    headers = {b"host": "search.example", b"origin": "http://search.example"}
    assert why_forged("POST", headers, ambient=True, scheme="https") is not None


@pytest.mark.parametrize("damage", ["short", "open", "folder"])
def test_a_key_that_is_not_ours_alone_is_refused(tmp_path, damage):
    path = tmp_path / "key"
    secret_key(path)
    if damage == "folder":
        path.unlink()
        path.mkdir()
    elif damage == "open":
        path.chmod(0o640)
    else:
        path.write_text("00\n")
    with refused(DataError, str(path)):
        secret_key(path)


@pytest.mark.slow
def test_replicas_that_start_at_once_share_one_key(tmp_path):
    code = (
        "import sys, pathlib; from reid_ray.serve.access.secret_key import secret_key; print(secret_key(pathlib.Path(sys.argv[1])).hex())"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "s" / "key")], stdout=subprocess.PIPE, text=True, env=os.environ)
        for _ in range(4)
    ]
    assert len({each.communicate()[0] for each in started}) == 1
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["key"]
