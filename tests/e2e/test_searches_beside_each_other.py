"""Two `reid-ray search` of one folder at once: one gallery, whole, and whoever does not write it says so or searches it."""

import os
import subprocess
import sys

import pytest

from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.rehearse.published import write_crops

pytestmark = pytest.mark.slow
COMMAND = [sys.executable, "-c", "import sys; from reid_ray.cli.main import main; sys.exit(main())", "search"]
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
