"""Two `reid-ray search` of one folder at once: one gallery, whole, and whoever does not write it says so or searches it."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack

import pytest

from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.rehearse.published import write_crops

pytestmark = pytest.mark.slow
COMMAND = [sys.executable, "-c", "import sys; from reid_ray.cli.main import main; sys.exit(main())", "search"]
ADDRESS = re.compile(r"serve: open (http://127\.0\.0\.1:\d+)/")
BROKEN = 1  # of the crops that write_crops writes


def begun(folder, *words):
    return subprocess.Popen(
        [*COMMAND, "crops", "--out", "gallery", "serve.serve.port=0", *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "RAY_ADDRESS": ""},
    )


def test_two_that_begin_together_leave_one_whole_gallery(tmp_path):
    write_crops(tmp_path / "crops", identities=4)
    both = [begun(tmp_path, "keep_serving=false") for _ in range(2)]
    said = [process.communicate(timeout=300)[0] for process in both]
    codes = [process.returncode for process in both]
    assert 0 in codes, said
    for code, words in zip(codes, said, strict=True):
        assert code == 0 or (code == 2 and "gallery" in words and "Traceback" not in words), words
    assert len(GalleryView(tmp_path / "gallery")) == len(list((tmp_path / "crops").rglob("*.jpg"))) - BROKEN
    assert not [
        path.name for path in tmp_path.iterdir() if path.name.startswith(".gallery") and not path.name.endswith((".lock", ".state"))
    ]


def test_one_that_embeds_anew_beside_one_that_serves_is_seen_by_it(tmp_path):
    write_crops(tmp_path / "crops", identities=4)
    pictures = sorted((tmp_path / "crops").rglob("*.jpg"))
    with ExitStack() as stack:
        serving = begun(tmp_path)
        stack.callback(stopped, serving)
        url = address_of(serving)
        assert items_of(url) == len(pictures) - BROKEN
        (tmp_path / "crops" / "more.jpg").write_bytes(pictures[-1].read_bytes())
        again = begun(tmp_path, "keep_serving=false")
        said = again.communicate(timeout=300)[0]
        assert again.returncode == 0, said
        end = time.monotonic() + 30
        while items_of(url) != len(pictures) - BROKEN + 1 and time.monotonic() < end:
            time.sleep(0.2)
        assert items_of(url) == len(pictures) - BROKEN + 1
        assert searched(url, {"clues": [{"item": "more.jpg"}], "k": 3})["hits"]


def address_of(process):
    for line in process.stdout:
        if found := ADDRESS.search(line):
            return found[1]
    raise AssertionError("it never served")


def stopped(process):
    process.terminate()
    process.communicate(timeout=60)


def items_of(url):
    with urllib.request.urlopen(f"{url}/v1/info", timeout=30) as answer:
        return json.load(answer)["items"]


def searched(url, question):
    request = urllib.request.Request(f"{url}/v1/search", json.dumps(question).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)
