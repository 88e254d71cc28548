"""The audit log: every record is there and in order, whoever wrote it and whatever was killed; whatever was changed afterwards is found."""

import asyncio
import contextlib
import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from refusals import refused

from reid_ray.cli.main import main
from reid_ray.errors import ConfigError, DataError
from reid_ray.serve.access.audit import audit_log
from reid_ray.serve.access.audit.audit_log import AuditedAct, AuditFailedError, AuditLog
from reid_ray.serve.access.audit.chain_check import records_before, records_of, verified
from reid_ray.serve.access.audit.chain_files import ChainFiles, chain_files, locked
from reid_ray.serve.access.config import AuditConfig
from reid_ray.serve.access.roles import AccessRole, Caller

ANNA = Caller("anna", AccessRole.SEARCH, "0123456789ab")


def act(number=0, **options):
    return AuditedAct(ANNA, "search", 200, request=f"r{number}", **options)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "audit"


@pytest.fixture
def opened(folder):
    """opened() -> an AuditLog on the folder; several may be open at once."""
    with contextlib.ExitStack() as stack:

        def opened(**options):
            log = AuditLog(folder, AuditConfig(**options))
            stack.callback(log.close)
            return log

        yield opened


def lines_of(folder):
    return [line for path in chain_files(folder) for line in path.read_bytes().splitlines()]


def test_a_record_says_who_did_what_for_which_purpose_and_not_what_was_searched_for(folder, opened):
    log = opened()
    log.record(act(purpose="case 12", items=20, sought=["a woman in red", b"jpeg"], ids=["cam1/7.jpg"], what={"k": 20}))
    begun, record = records_of(folder)
    assert begun["verb"] == "audit.begun"
    assert {name: record[name] for name in ("who", "role", "token", "verb", "outcome", "purpose", "request", "items", "what")} == {
        "who": "anna",
        "role": "search",
        "token": "0123456789ab",
        "verb": "search",
        "outcome": 200,
        "purpose": "case 12",
        "request": "r0",
        "items": 20,
        "what": {"k": 20},
    }
    written = b"".join(lines_of(folder))
    for secret in ("a woman in red", "jpeg", "cam1/7.jpg", hashlib.sha256(b"a woman in red").hexdigest()[:32]):
        assert secret.encode() not in written
    assert record["sought"] == [log.digests.sought("a woman in red"), log.digests.sought(b"jpeg")]
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_each_line_has_the_hash_of_the_one_before_it(folder, opened):
    log = opened()
    for number in range(5):
        log.record(act(number))
    previous = "0" * 64
    for line in lines_of(folder):
        record = json.loads(line)
        assert record["previous"] == previous
        body, _, end = line.rpartition(b',"hash":"')
        assert hashlib.sha256(body + b"}").hexdigest() == end[:64].decode() == record["hash"]
        previous = record["hash"]
    assert verified(folder).head.hash == previous


def test_several_logs_append_to_one_chain_in_the_order_of_their_writing(folder, opened):
    logs = [opened() for _ in range(3)]
    for number in range(30):
        logs[number % 3].record(act(number))
    assert [record.get("request") for record in records_of(folder)] == [None, *(f"r{number}" for number in range(30))]
    assert verified(folder).head.number == 31


def test_a_file_is_followed_by_a_new_one_and_the_chain_goes_on(folder):
    chains = [ChainFiles(folder, file_bytes=2000) for _ in range(2)]
    folder.mkdir()
    for number in range(60):
        chains[number % 2].append([{"verb": "search", "request": number}])
    assert len(chain_files(folder)) > 4
    assert all(path.stat().st_size < 2400 for path in chain_files(folder))
    assert [record.get("request") for record in records_of(folder)][1:] == list(range(60))
    assert verified(folder).head.number == 61
    later = ChainFiles(folder, file_bytes=2000)
    later.append([{"verb": "search", "request": 60}])
    assert verified(folder).head.number == 62
    for path in chain_files(folder)[:2]:
        path.rename(path.with_suffix(".archived"))
    with refused(DataError, "audit-000001.jsonl"):
        verified(folder)
    assert verified(folder, first_file=3).head.number == 62
    for chain in (*chains, later):
        chain.close()


def test_pages_of_records_go_back_from_the_newest(folder, opened):
    log = opened()
    for number in range(25):
        log.record(act(number))
    pages, before = [], None
    while page := records_before(folder, before, 7):
        pages.append([record["n"] for record in page])
        before = page[-1]["n"]
    assert list(itertools.chain(*pages)) == list(range(26, 0, -1))
    assert [len(page) for page in pages] == [7, 7, 7, 5]


@pytest.fixture
def written(folder, opened):
    log = opened()
    for number in range(8):
        log.record(act(number, purpose="case 12"))
    log.close = lambda: None
    return folder


def replaced(line, **changes):
    """A line whose record was changed, its own hash made to fit."""
    record = json.loads(line)
    record.pop("hash")
    body = json.dumps({**record, **changes}, separators=(",", ":")).encode()
    return body[:-1] + b',"hash":"' + hashlib.sha256(body).hexdigest().encode() + b'"}'


TAMPERED = {
    "a word changed": lambda lines: [*lines[:3], lines[3].replace(b"case 12", b"case 13"), *lines[4:]],
    "a record replaced, its hash made to fit": lambda lines: [*lines[:3], replaced(lines[3], who="bert"), *lines[4:]],
    "a line taken out": lambda lines: [*lines[:3], *lines[4:]],
    "two lines exchanged": lambda lines: [*lines[:3], lines[4], lines[3], *lines[5:]],
    "a line put in": lambda lines: [*lines[:4], lines[3], *lines[4:]],
    "the start taken off": lambda lines: lines[1:],
    "a line emptied": lambda lines: [*lines[:3], b"", *lines[4:]],
    "the last line changed": lambda lines: [*lines[:-1], lines[-1].replace(b"anna", b"bert")],
    "a line that is no JSON": lambda lines: [*lines[:3], b"\xff" * 40, *lines[4:]],
    "another chain appended": lambda lines: [*lines, *lines],
}


@pytest.mark.parametrize("change", TAMPERED.values(), ids=TAMPERED)
def test_what_was_changed_afterwards_is_found_and_its_line_named(written, capsys, change):
    (path,) = chain_files(written)
    verified(written)
    before = lines_of(written)
    after = change(before)
    first = next(number for number, line in enumerate(after, 1) if number > len(before) or line != before[number - 1])
    path.write_bytes(b"".join(line + b"\n" for line in after))
    assert main(["audit", "verify", str(written)]) == 2
    said = capsys.readouterr().err
    assert f"{path}, line {first}" in said or f"{path}, line {first + 1}: does not follow" in said


def test_an_end_that_was_cut_off_shows_only_by_a_head_that_was_noted(written, capsys):
    (path,) = chain_files(written)
    assert main(["audit", "verify", str(written)]) == 0
    head = capsys.readouterr().out.partition("head: ")[2].split()[0]
    assert head == f"9:{json.loads(lines_of(written)[-1])['hash']}"
    path.write_bytes(b"".join(line + b"\n" for line in lines_of(written)[:-2]))
    assert verified(written).head.number == 7
    with refused(DataError, "9"):
        verified(written, expect=head)
    with refused(ConfigError, "--expect"):
        verified(written, expect="9")
    other = f"7:{'a' * 64}"
    with refused(DataError, "7"):
        verified(written, expect=other)


def test_a_log_that_is_cut_while_a_service_writes_it_says_so_ever_after(folder, opened):
    log = opened()
    for number in range(6):
        log.record(act(number))
    (path,) = chain_files(folder)
    path.write_bytes(b"".join(line + b"\n" for line in lines_of(folder)[:-2]))
    log.record(act(7))
    log.record(act(8))
    with refused(DataError, str(path), "cut"):
        verified(folder)


@pytest.mark.parametrize("cut", [1, 2, 50, 200])
def test_a_line_that_a_crash_cut_off_is_mended_and_said(folder, opened, cut):
    log = opened()
    for number in range(4):
        log.record(act(number))
    (path,) = chain_files(folder)
    whole = path.read_bytes()
    with path.open("r+b") as file:
        file.truncate(len(whole) - cut)
    assert verified(folder).torn > 0
    again = AuditLog(folder, AuditConfig())
    again.record(act(9))
    again.close()
    chain = verified(folder)
    verbs = [record["verb"] for record in records_of(folder)]
    assert (chain.mended, "audit.mended" in verbs) == ((0, False) if cut == 1 else (1, True))
    requests = [record["request"] for record in records_of(folder) if "request" in record]
    assert requests == ["r0", "r1", "r2", *(["r3"] if cut == 1 else []), "r9"]
    assert path.read_bytes().startswith(whole[:-cut])  # nothing is ever taken away
    path.write_bytes(path.read_bytes().replace(b"audit.mended", b"audit.nothing") if cut > 1 else b"x" + path.read_bytes())
    with refused(DataError, str(path)):
        verified(folder)


def test_a_search_is_found_by_its_text_or_picture_and_by_nothing_else(folder, opened, tmp_path, capsys):
    log = opened()
    log.record(act(1, sought=["a man"], ids=["cam/1.jpg"]))
    log.record(act(2, sought=[b"picture"]))
    (tmp_path / "p.jpg").write_bytes(b"picture")
    for words, found in (
        (["--text", "a man"], ["r1"]),
        (["--text", "a woman"], []),
        (["--image", str(tmp_path / "p.jpg")], ["r2"]),
        (["--item", "cam/1.jpg"], ["r1"]),
        (["--who", "anna"], ["r1", "r2"]),
        (["--who", "bert"], []),
        (["--verb", "search", "--last", "1"], ["r2"]),
        (["--since", "2999-01-01"], []),
    ):
        assert main(["audit", "show", str(folder), "--json", *words]) == 0
        assert [json.loads(line)["request"] for line in capsys.readouterr().out.splitlines() if line.startswith("{")] == found
    (folder / "audit.key").unlink()
    assert main(["audit", "show", str(folder), "--text", "a man"]) == 2
    assert main(["audit", "show", str(tmp_path / "none")]) == 2


def test_many_records_at_once_share_their_writing_and_each_waits_for_its_own(folder, opened):
    log = opened()

    async def ask(number):
        await log.recorded(act(number))
        return f"r{number}" in path.read_text()

    async def all_of_them():
        return await asyncio.gather(*(ask(number) for number in range(200)))

    log.record(act(999))
    (path,) = chain_files(folder)
    assert all(asyncio.run(all_of_them()))
    assert verified(folder).head.number == 202


WAYS = {"by a thread": lambda log, each: log.record(each), "in an event loop": lambda log, each: asyncio.run(log.recorded(each))}


@pytest.mark.parametrize("way", WAYS)
def test_changes_are_on_the_disk_before_they_count_and_searches_soon_after(folder, opened, way):
    synced = []
    watched = [True]
    log = opened(sync_s=0.05)
    real = os.fsync
    try:
        os.fsync = lambda descriptor: (synced.append(os.fstat(descriptor).st_size) if watched else None, real(descriptor))[1]
        WAYS[way](log, act(1, durable=True))
        (path,) = chain_files(folder)
        assert path.stat().st_size in synced
        for number in (2, 3, 4):
            WAYS[way](log, act(number))
            end = time.monotonic() + 5
            while path.stat().st_size not in synced:
                assert time.monotonic() < end
                time.sleep(0.01)
    finally:
        os.fsync = real


@pytest.mark.parametrize("way", WAYS)
def test_what_cannot_be_recorded_is_an_error_for_whoever_waits_and_leaves_no_trace(folder, opened, monkeypatch, way):
    log = opened()
    log.record(act(1))
    before = b"".join(lines_of(folder))
    real = os.write

    def full(descriptor, data):
        if len(data) > 100:
            real(descriptor, data[:50])
            raise OSError(28, "No space left on device")
        return real(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with refused(AuditFailedError, "No space left", str(folder)):
            WAYS[way](log, act(2))
    assert b"".join(lines_of(folder)) == before
    WAYS[way](log, act(3))
    assert verified(folder).head.number == 3


def test_an_event_loop_writes_by_itself_and_waits_for_nobody(folder, opened):
    log, turns = opened(), []
    log.record(act(1))  # the file is open
    queue = log._queue  # tells from now on how many records the thread is given
    watched = {"put": lambda batch: turns.append(len(batch or ())) or queue.put(batch), "get": queue.get, "get_nowait": queue.get_nowait}
    log._queue = SimpleNamespace(**watched)

    async def scenario():
        ticks = []
        await log.recorded(act(2))
        alone = list(turns)
        with locked(folder):  # as another process has it
            waiting = [asyncio.ensure_future(log.recorded(act(number))) for number in (3, 4)]
            for _ in range(20):
                await asyncio.sleep(0.005)
                ticks.append(any(each.done() for each in waiting))
        await asyncio.wait_for(asyncio.gather(*waiting), 30)
        return alone, ticks

    alone, ticks = asyncio.run(scenario())
    assert all(size == 0 for size in alone)  # at most the thread was told that there is something to bring to the disk
    assert 2 in turns  # what would have had to wait is the thread's
    assert not any(ticks)
    assert [record.get("request") for record in records_of(folder)] == [None, "r1", "r2", "r3", "r4"]
    verified(folder)


def test_where_a_write_takes_long_the_event_loop_leaves_it_to_the_thread(folder, opened, monkeypatch):
    log, clock, takes_s, seen = opened(), 100.0, 0.01, []
    log.record(act(0))

    async def ask(number):
        await log.recorded(act(number))

    def append_at_once(records, append=log._files.append_at_once):
        nonlocal clock
        seen.append(clock)
        clock += takes_s
        return append(records)

    monkeypatch.setattr(audit_log, "time", SimpleNamespace(monotonic=lambda: clock))
    monkeypatch.setattr(log._files, "append_at_once", append_at_once)
    for number, pause in enumerate((0.5, 0.6, 1.5, 0.6, 4.1, 8.0, 0.1, 0.1)):
        takes_s = 0.01 if number < 5 else 0.0
        asyncio.run(ask(number))
        clock += pause
    assert [round(each - 100, 1) for each in seen] == [0.0, 1.1, 3.2, 7.3, 15.3, 15.4]
    assert verified(folder).head.number == 10


def test_what_two_event_loops_record_at_once_is_told_to_each_in_its_own_thread(opened):
    log, waits, go_on = opened(), threading.Event(), threading.Event()
    log.record(act(0))

    async def first():
        asked = asyncio.ensure_future(log.recorded(act(1)))
        asyncio.get_running_loop().call_soon(lambda: waits.set() or go_on.wait(60))  # before this loop's turn to write
        await asyncio.wait_for(asked, 10)

    async def second():
        await asyncio.wait_for(log.recorded(act(2)), 10)

    with ThreadPoolExecutor(1) as other:
        waiting = other.submit(asyncio.run, first(), debug=True)  # which refuses what is not done in its own thread
        assert waits.wait(60)
        try:
            asyncio.run(second(), debug=True)
        finally:
            go_on.set()
        waiting.result()


def test_two_logs_in_event_loops_append_to_one_chain(folder, opened):
    logs = [opened(file_mb=1) for _ in range(2)]

    async def all_of_them():
        for number in range(0, 60, 3):
            await asyncio.gather(*(logs[each % 2].recorded(act(each)) for each in range(number, number + 3)))

    asyncio.run(all_of_them())
    assert sorted(record["request"] for record in records_of(folder) if "request" in record) == sorted(f"r{number}" for number in range(60))
    assert verified(folder).head.number == 61


APPENDING = """
import asyncio
import sys
from pathlib import Path
from reid_ray.serve.access.audit.audit_log import AuditedAct, AuditLog
from reid_ray.serve.access.config import AuditConfig
log = AuditLog(Path(sys.argv[1]), AuditConfig())

async def ask():
    number = 0
    while True:
        request = f"{sys.argv[2]}-{number}"
        each = AuditedAct(None, "search", 200, request=request, purpose="x" * 300)
        if sys.argv[3] == "by a thread":
            log.record(each)
        else:
            await log.recorded(each)
        print(request, flush=True)
        number += 1

asyncio.run(ask())
"""


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_two_appenders_that_are_killed_lose_nothing_that_they_acknowledged(folder, way):
    acknowledged = []
    for turn in range(2):
        started = [
            subprocess.Popen([sys.executable, "-c", APPENDING, str(folder), f"{turn}{name}", way], stdout=subprocess.PIPE, text=True)
            for name in "ab"
        ]
        acknowledged += [each.stdout.readline().strip() for each in started]  # both are at work
        time.sleep(0.2)
        for each in started:
            each.send_signal(signal.SIGKILL)
        for each in started:
            said = each.communicate()[0].split("\n")
            acknowledged += [line for line in said[:-1] if line]
    assert len(acknowledged) > 50
    log = AuditLog(folder, AuditConfig())
    log.record(act("after"))
    log.close()
    verified(folder)
    recorded = [record["request"] for record in records_of(folder) if "request" in record]
    assert set(acknowledged) <= set(recorded)
    assert len(recorded) == len(set(recorded))


def test_a_log_of_a_newer_version_is_refused(folder, opened, monkeypatch):
    monkeypatch.setattr("reid_ray.serve.access.audit.chain_files.number_of", lambda kind: 99)
    opened().record(act())
    with refused(DataError, "99", "upgrade reid_ray", str(folder)):
        verified(folder)
