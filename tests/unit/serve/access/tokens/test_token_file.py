"""Tokens: printed once and kept nowhere, changed by several commands at once, refused when revoked, never lost to a bad file."""

import json
import os
import re
import stat
import subprocess
import sys
import time

import pytest
from refusals import refused

from reid_ray.cli.main import main
from reid_ray.errors import ConfigError, DataError
from reid_ray.serve.access.roles import AccessRole
from reid_ray.serve.access.tokens.token_book import TokenBook
from reid_ray.serve.access.tokens.token_file import create_token, read_tokens, revoke_token, rotate_token


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self, now=0.0):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture
def file(tmp_path):
    return tmp_path / "tokens.json"


def test_a_token_is_printed_once_and_the_file_holds_nothing_that_could_be_asked_with(file, capsys):
    assert main(["tokens", "create", "anna", "--role", "write", str(file)]) == 0
    token = capsys.readouterr().out.strip()
    assert re.fullmatch(r"reidray_[0-9a-f]{12}_[A-Za-z0-9_-]{43}", token)
    secret = token.rpartition("_")[2] if token.count("_") == 2 else token.split("_", 2)[2]
    assert secret not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert sorted(path.name for path in file.parent.iterdir()) == [".tokens.json.lock", "tokens.json"]
    assert main(["tokens", "list", str(file)]) == 0
    listed = capsys.readouterr().out
    assert "anna" in listed
    assert "write" in listed
    assert secret not in listed


def test_equal_secrets_would_have_different_digests(file):
    for name in ("a", "b"):
        create_token(file, name, AccessRole.SEARCH, days=None)
    assert len({entry.salt for entry in read_tokens(file)}) == 2


def test_only_the_whole_token_proves_who_asks(file):
    token = create_token(file, "anna", AccessRole.WRITE, days=None)
    other = create_token(file, "bert", AccessRole.ADMIN, days=None)
    book = TokenBook(file)
    assert (book.caller_of(token).name, book.caller_of(token).role) == ("anna", AccessRole.WRITE)
    swapped = "_".join([*other.split("_", 2)[:2], token.split("_", 2)[2]])
    for wrong in ("", token[:-1], token + "x", token[:-1] + ("A" if token[-1] != "A" else "B"), swapped, token.upper(), "é", "\x00"):
        assert book.caller_of(wrong) is None


def test_a_token_is_refused_once_it_has_expired_and_within_a_second_of_being_revoked_or_rotated(file):
    clock, ticks = Clock(time.time()), Clock()
    short = create_token(file, "short", AccessRole.SEARCH, days=1)
    revoked = create_token(file, "revoked", AccessRole.SEARCH, days=None)
    rotated = create_token(file, "rotated", AccessRole.SEARCH, days=None)
    kept = create_token(file, "kept", AccessRole.SEARCH, days=None)
    book = TokenBook(file, clock=clock, ticks=ticks)
    assert all(book.caller_of(each) for each in (short, revoked, rotated, kept))
    revoke_token(file, "revoked")
    new = rotate_token(file, "rotated", days=None)
    newer = rotate_token(file, "kept", days=None, keep_hours=2)
    ticks.now += 1
    clock.now += 3600
    assert [book.caller_of(each) is None for each in (short, revoked, rotated, kept, new, newer)] == [
        False,
        True,
        True,
        False,
        False,
        False,
    ]
    assert book.caller_by_id(revoked.split("_")[1]) is None
    clock.now += 3700
    assert book.caller_of(kept) is None
    clock.now += 86_400
    assert book.caller_of(short) is None
    assert book.caller_of(newer).name == "kept"


def test_the_file_is_looked_at_once_a_second_at_most(file):
    ticks = Clock()
    create_token(file, "anna", AccessRole.SEARCH, days=None)
    book = TokenBook(file, ticks=ticks)
    late = create_token(file, "bert", AccessRole.SEARCH, days=None)
    ticks.now += 0.99
    assert book.caller_of(late) is None
    ticks.now += 0.02
    assert book.caller_of(late).name == "bert"


@pytest.mark.parametrize("damage", ["cut", "gone", "other", "open", "newer"])
def test_a_file_that_breaks_while_the_service_runs_locks_nobody_out_and_lets_nobody_in(file, logged, damage):
    ticks = Clock()
    token = create_token(file, "anna", AccessRole.SEARCH, days=None)
    book = TokenBook(file, ticks=ticks)
    late, whole = create_token(file, "bert", AccessRole.SEARCH, days=None), file.read_bytes()
    if damage == "gone":
        file.unlink()
    elif damage == "open":
        file.chmod(0o666)
    else:
        file.write_bytes({"cut": whole[:-30], "other": b"[1]", "newer": whole.replace(b'"format": 1', b'"format": 9')}[damage])
    for _ in range(3):
        ticks.now += 1
        assert book.caller_of(token).name == "anna"
        assert book.caller_of(late) is None
    assert len([record for record in logged if str(file) in record]) == 1
    with refused(DataError, str(file)):
        TokenBook(file)
    file.unlink(missing_ok=True)
    file.touch(0o600)
    file.write_bytes(whole)
    ticks.now += 1
    assert book.caller_of(late).name == "bert"


def test_what_cannot_be_done_is_refused_in_a_sentence_and_changes_nothing(file, tmp_path):
    with refused(DataError, str(file), "reid-ray tokens create"):
        read_tokens(file)
    create_token(file, "anna", AccessRole.SEARCH, days=None)
    before = file.read_bytes()
    for do, names in (
        (lambda: create_token(file, "anna", AccessRole.SEARCH, days=None), ["anna", str(file)]),
        (lambda: create_token(file, "two words", AccessRole.SEARCH, days=None), ["two words"]),
        (lambda: create_token(file, "x", AccessRole.SEARCH, days=0), ["--days"]),
        (lambda: create_token(file, "x", AccessRole.SEARCH, days=float("nan")), ["--days"]),
        (lambda: revoke_token(file, "nobody"), ["nobody"]),
        (lambda: rotate_token(file, "nobody", days=None), ["nobody"]),
        (lambda: rotate_token(file, "anna", days=None, keep_hours=-1), ["--keep-hours"]),
        (lambda: create_token(tmp_path / "none" / "t", "x", AccessRole.SEARCH, days=None), [str(tmp_path / "none")]),
    ):
        with refused(ConfigError, *names):
            do()
    assert file.read_bytes() == before


def test_a_file_that_is_none_of_ours_is_never_written_over(file):
    file.write_text(json.dumps({"important": 1}))
    with refused(DataError, str(file)):
        create_token(file, "anna", AccessRole.SEARCH, days=None)
    assert json.loads(file.read_text()) == {"important": 1}


ROTATING = """
import sys
from pathlib import Path
from reid_ray.serve.access.tokens.token_file import rotate_token
for _ in range(40):
    print(rotate_token(Path(sys.argv[1]), sys.argv[2], days=None), flush=True)
"""


@pytest.mark.slow
def test_two_processes_that_rotate_while_a_service_is_asked_lose_nothing(file):
    steady = create_token(file, "steady", AccessRole.ADMIN, days=None)
    for name in ("a", "b"):
        create_token(file, name, AccessRole.SEARCH, days=None)
    ticks = Clock()
    book = TokenBook(file, ticks=ticks)
    pipes = {"stdout": subprocess.PIPE, "text": True, "env": os.environ}
    rotating = [subprocess.Popen([sys.executable, "-c", ROTATING, str(file), name], **pipes) for name in ("a", "b")]
    while any(each.poll() is None for each in rotating):
        ticks.now += 1  # looks at every question
        assert book.caller_of(steady).role == AccessRole.ADMIN
        assert {entry.name for entry in read_tokens(file)} == {"a", "b", "steady"}
    made = [each.communicate()[0].split() for each in rotating]
    assert [each.returncode for each in rotating] == [0, 0]
    ticks.now += 1
    assert [len(each) for each in made] == [40, 40]
    assert [[token for token in each if book.caller_of(token)] for each in made] == [[each[-1]] for each in made]
    assert len(read_tokens(file)) == 3
