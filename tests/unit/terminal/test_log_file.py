"""The log of what libraries print: this user's alone, without secrets, of a bounded size, and only the newest are kept."""

import fcntl
import os
import subprocess
import sys
import threading

import pytest

from reid_ray.terminal import log_file
from reid_ray.terminal.log_file import KEPT, fill, open_log


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("REID_RAY_LOGS", str(tmp_path / "logs"))
    return tmp_path / "logs"


@pytest.fixture(autouse=True)
def _signals(monkeypatch):
    monkeypatch.setattr(log_file.signal, "signal", lambda *_: None)  # fill ignores them for good, which is for its own process


def _filled(pieces, path, **options):
    """Fill `path` with pieces that arrive one by one; what is answered."""
    reader, writer = os.pipe()

    def write():
        for piece in pieces:
            os.write(writer, piece)
        os.close(writer)

    thread = threading.Thread(target=write)
    thread.start()
    target = os.open(path, os.O_RDWR | os.O_CREAT)
    answer, answering = os.pipe()
    try:
        fill(reader, target, path=str(path), answer=answering, **options)
    finally:
        thread.join()
        for descriptor in (target, reader, answering):
            os.close(descriptor)
    with open(answer, "rb") as file:
        return file.read()


def test_a_log_is_readable_by_its_user_alone_and_has_no_secret_in_it_however_it_arrives(folder):
    log = open_log("train")
    said = b"user https://me:CANARY@hub/x\nhf_tok"
    os.write(log.pipe, said)
    os.write(log.pipe, b"en=CANARY and \x1b[36mcolour\x1b[0m\n")
    assert str(log.path) in log.sentence()
    assert log.path.read_text() == "user https://***@hub/x\nhf_token=*** and colour\n"
    assert "-train-" in log.path.name
    assert [oct(path.stat().st_mode & 0o777) for path in (folder, log.path)] == ["0o700", "0o600"]
    _end(log)


def test_a_folder_may_be_named_from_where_the_job_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REID_RAY_LOGS", "here")
    log = open_log("train")
    assert log.path.parent == tmp_path / "here"
    _end(log)
    assert list((tmp_path / "here").iterdir()) == []


def test_nothing_said_leaves_nothing(folder):
    log = open_log("train")
    assert log.sentence() is None
    _end(log)
    assert list(folder.iterdir()) == []


def _end(log):
    """As where the job's process ends."""
    os.close(log.pipe)
    os.close(log.answer)
    log.process.wait(timeout=30)


def test_a_log_never_grows_beyond_its_size_and_holds_the_first_and_the_last_lines(tmp_path):
    lines = [f"line {number:06}\n".encode() for number in range(2000)]
    assert _filled([b"".join(lines[at : at + 20]) for at in range(0, 2000, 20)], tmp_path / "log", largest=4000) == b""
    kept = (tmp_path / "log").read_bytes()
    assert len(kept) <= 4000 + 100
    assert kept.startswith(b"".join(lines[:100]))
    assert kept.endswith(b"".join(lines[-80:]))
    assert b"bytes left out" in kept


@pytest.mark.slow
def test_a_full_disk_is_said_at_the_end_and_stops_nobody(tmp_path):
    (tmp_path / "log").symlink_to("/dev/full")
    assert _filled([b"x" * 60_000 + b"\n"] * 10 + [log_file._END, b"y" * 60_000], tmp_path / "log") == log_file._LOST


def test_only_the_newest_logs_are_kept_but_what_is_being_written_or_none_of_ours_stays(folder):
    folder.mkdir()
    old = [folder / f"2020-01-01T00-00-{number:02}-caption-1.log" for number in range(KEPT + 3)]
    for path in [*old, folder / "2020-Trip-1.log"]:
        path.write_text("said")
    with old[0].open() as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        log = open_log("index")
    _end(log)
    assert sorted(path.name for path in folder.iterdir() if path != log.path) == [
        old[0].name,
        *(p.name for p in old[4:]),
        "2020-Trip-1.log",
    ]


@pytest.mark.slow
def test_a_log_that_its_process_still_fills_is_not_taken_for_an_old_one(folder, monkeypatch):
    monkeypatch.setattr(log_file, "KEPT", 1)
    first = open_log("serve")
    os.write(first.pipe, b"up\n")
    second = open_log("index")
    assert first.path.exists()
    for log in (first, second):
        _end(log)
    third = open_log("index")
    assert not first.path.exists()
    _end(third)


def test_what_fills_a_log_starts_quickly_and_knows_nothing_of_the_jobs():
    code = "import sys, reid_ray.terminal.log_file; print(sorted(n for n in sys.modules if n in ('pydantic', 'yaml', 'numpy', 'ray')))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout == "[]\n"
