"""Copies of a store's segments are shared by the readers of a machine, and gone with the last of them however it ended."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading

import pytest

from reid_ray.gallery.depot.segment_copies import VARIABLE, open_copies

READER = """
import sys
from reid_ray.gallery.depot.segment_copies import open_copies
with open_copies("s3://b/g", private=False) as folder:
    (folder / "x").touch()
    print(1, flush=True)
    sys.stdin.read()
"""
pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")


def homes(tmp_path):
    return sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("reid-ray-copies-"))


def here(monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.delenv(VARIABLE, raising=False)


def test_readers_share_a_folder_of_this_user_that_goes_with_the_last_of_them(tmp_path, monkeypatch):
    here(monkeypatch, tmp_path)
    with open_copies("s3://b/g", private=False) as one:
        with open_copies("s3://b/g", private=False) as two, open_copies("s3://b/other", private=False) as other:
            (one / "x").touch()
            assert two == one != other
            assert stat.S_IMODE(one.parent.stat().st_mode) == 0o700
        assert [path.name for path in one.iterdir()] == ["x"]
        with open_copies("s3://b/g", private=True) as mine:
            assert list(mine.iterdir()) == []
    assert homes(tmp_path) == []


def test_what_a_killed_reader_left_the_next_reader_of_any_gallery_removes(tmp_path, monkeypatch):
    here(monkeypatch, tmp_path)
    reader = subprocess.Popen([sys.executable, "-c", READER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(os.environ))
    reader.stdout.readline()
    with open_copies("s3://b/other", private=False):
        assert len(homes(tmp_path)) == 2, "a living one's is kept"
    reader.send_signal(signal.SIGKILL)
    reader.wait()
    reader.stdin.close()
    reader.stdout.close()
    assert len(homes(tmp_path)) == 1
    with open_copies("s3://b/other", private=False):
        assert len(homes(tmp_path)) == 1
    assert homes(tmp_path) == []


@pytest.mark.slow
def test_readers_that_come_and_go_at_once_never_lose_the_folder_that_they_are_in(tmp_path, monkeypatch):
    here(monkeypatch, tmp_path)
    faults = []

    def come_and_go(number):
        for turn in range(200):
            with open_copies("s3://b/g", private=False) as folder:
                try:
                    (folder / f"{number} {turn}").touch()
                except FileNotFoundError as error:
                    faults.append(str(error))

    threads = [threading.Thread(target=come_and_go, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert homes(tmp_path) == []


def test_copies_outlast_their_readers_where_somebody_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "kept"))
    with open_copies("s3://b/g", private=False) as one:
        (one / "x").touch()
    with open_copies("s3://b/g", private=False) as two:
        assert [path.name for path in two.iterdir()] == ["x"]
