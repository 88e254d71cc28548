"""Footage in a bucket: the crops of a video and of a folder of frames there are those of the same files on this machine."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from bucket import s3_server
from PIL import Image

from reid_ray.crop.config import CropJob
from reid_ray.crop.job import run_crop
from reid_ray.data.synthetic.street_video import street_video, write_video
from reid_ray.storage import read_manifest

pytestmark = pytest.mark.slow


def crops(path, out, **footage):
    """Rows of the crop job without what tells the place, and what became of the footage."""
    job = {
        "footage": {"path": path, "pattern": r"(?P<camera>gate\w)", "creation_time": False, **footage},
        "crops": {"min_height": 72},
        "ray": {"execution": "in_process"},
        "output": {"path": str(out)},
    }
    if footage.get("kind") == "frames":
        job["frames_per_second"] = None
    run_crop(CropJob.model_validate(job))
    return pq.read_table(out / "images").to_pylist(), read_manifest(out)["counts"]


@pytest.mark.parametrize("kind", ["video", "frames"])
def test_crops_of_footage_in_a_bucket_are_those_of_the_files(tmp_path, kind):
    street = street_video(people=2, seconds=5, rate=4)
    folder = tmp_path / "footage"
    folder.mkdir()
    if kind == "video":
        write_video(folder / "gateA.mp4", street)
        (folder / "gateB.mp4").write_bytes(b"no video")
        footage = {}
    else:
        (folder / "gateA").mkdir()
        for number, picture in enumerate(street.picture_FHW3):
            Image.fromarray(np.asarray(picture)).save(folder / "gateA" / f"{number:03d}.png")
        footage = {"kind": "frames", "frame_rate": 4}
    with s3_server() as bucket:
        address = bucket.put(folder, "footage")
        there, counts = crops(address, tmp_path / "there", **footage)
    here, same = crops(str(folder), tmp_path / "here", **footage)
    assert len(there) > 1
    assert counts == same
    assert there == here
