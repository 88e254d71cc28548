"""Captions of an add job: the caption job is asked in its own words, by a process that ends when it should."""

import os
import sys
import time

import pyarrow as pa
import pytest
from plain_encoder import png_of

from reid_ray.errors import DataError
from reid_ray.serve.adding.config import AddingConfig
from reid_ray.serve.adding.item_rows import picture_rows
from reid_ray.serve.adding.job_captions import _CHILD, PictureCaption, captions_by_id

# Reads the command line as the caption job does, and captions each picture by its id.
CAPTIONS = """
import sys
from reid_ray.caption.config import CaptionJob
from reid_ray.cli.job_config import job_config
from reid_ray.records import CAPTIONS, IMAGES, table_of
import pathlib
import pyarrow.parquet as pq
from reid_ray.storage import read_table
config = job_config(CaptionJob, sys.argv[1].partition("=")[2], sys.argv[2:])
assert config.images.source == "parquet"
rows = []
for each in read_table(config.images.path, IMAGES).to_pylist():
    good = each["image_id"] != "b"
    rows.append({"caption_id": each["image_id"], "image_id": each["image_id"], "kind": "static", "status": "ok" if good else "failed",
                 "text": f"picture of {each['image_id']}, {len(each['image'])} bytes" if good else None})
folder = pathlib.Path(config.output.path) / "captions"
folder.mkdir(parents=True)
pq.write_table(table_of(CAPTIONS, rows), folder / "part.parquet")
"""


def pictures(*names):
    for name in names:
        yield picture_rows(pa.table({"image_id": [name], "image": [png_of(name)]}))


def captioned(folder, script, look=lambda: None):
    config = AddingConfig(captioner="caption/caption.yaml")
    return captions_by_id(pictures("a", "b", "a"), folder, config, look, command=(sys.executable, "-c", script))


@pytest.mark.slow
def test_each_picture_has_the_caption_that_the_caption_job_gave_it(tmp_path):
    assert captioned(tmp_path, CAPTIONS) == {"a": PictureCaption(f"picture of a, {len(png_of('a'))} bytes", None)}


def test_a_caption_job_that_fails_is_told_in_its_words(tmp_path):
    with pytest.raises(DataError, match=r"exit code 2.*no such model"):
        captioned(tmp_path, "import sys; sys.exit(print('error: no such model', file=sys.stderr) or 2)")


def test_a_job_that_is_cancelled_ends_the_caption_job(tmp_path):
    class StopError(Exception):
        pass

    def look():
        if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text():
            raise StopError

    script = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    started = time.monotonic()
    with pytest.raises(StopError):
        captioned(tmp_path, script, look)
    assert time.monotonic() - started < 15
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_the_caption_job_ends_when_the_service_is_killed():
    import subprocess

    script = _CHILD.replace("from reid_ray.cli.main import main\nsys.exit(main())", "print('up', flush=True); import time; time.sleep(60)")
    child = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"up\n"
    child.stdin.close()
    assert child.wait(10) != 0
    child.stdout.close()
