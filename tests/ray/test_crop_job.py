"""The crop job on Ray: from videos to a table, each box once; what is through when a run ends badly is not done again. Then a search."""

from datetime import UTC, datetime

import numpy as np
import pyarrow.parquet as pq
import pytest
from refusals import refused

from reid_ray.crop.config import CropJob
from reid_ray.crop.job import run_crop
from reid_ray.data.failures import FAILURES
from reid_ray.data.images import decode_image
from reid_ray.data.synthetic.street_video import street_video, write_video
from reid_ray.errors import DataError
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.retrieval.index.config import IndexJob
from reid_ray.retrieval.index.job import run_index
from reid_ray.storage import read_table
from reid_ray.storage.lock import OutputLock

pytestmark = pytest.mark.slow


def hits_are_one_of_each_track_within_the_times(folder, rows):
    index = {
        "images": {"source": "parquet", "path": str(folder / "out" / "images")},
        "encoder": "builtin:tiny-encoder",
        "output": {"path": str(folder / "index")},
    }
    run_index(IndexJob.model_validate({**index, "ray": {"execution": "in_process"}}))
    view = GalleryView(folder / "index")
    query_QD = np.ones((1, view.manifest.dim), np.float32) / np.sqrt(view.manifest.dim)
    (hits,) = view.search(query_QD, 100, one_per="track")
    assert sorted(hit.item["track"] for hit in hits) == sorted({row["track"] for row in rows})
    from_, to = (datetime(2026, 5, 1, 8, 0, second, tzinfo=UTC) for second in (1, 4))
    (hits,) = view.search(query_QD, 100, where={"time": {"from": from_.isoformat(), "to": to.isoformat()}})
    assert {hit.item_id for hit in hits} == {row["image_id"] for row in rows if from_ <= row["time"] <= to}


def test_videos_become_crops_with_camera_time_and_track_and_nothing_is_done_twice(local_ray, tmp_path, capsys):
    videos = tmp_path / "videos"
    videos.mkdir()
    for number, camera in enumerate(("gateA", "gateB")):
        write_video(videos / f"{camera}_2026050{number + 1}T080000.mp4", street_video(people=2, seconds=6, rate=5, seed=number))
    (videos / "broken.mp4").write_bytes(b"nothing")
    base = {
        "footage": {"path": str(videos), "pattern": r"(?P<camera>gate.)_(?P<time>\d+T\d+)", "time_zone": "UTC"},
        "crops": {"min_height": 72},
        "pool": {"replicas": 2},
        "output": {"path": str(tmp_path / "out"), "if_exists": "replace"},
    }
    done = tmp_path / ".out.stretches"
    with refused(DataError, "footage.path"):
        run_crop(CropJob.model_validate({**base, "tracker": {"min_boxes": 1000}}))
    assert not (tmp_path / "out").exists()
    made = {file: file.stat().st_mtime_ns for file in done.iterdir()}
    assert len(made) == 2
    assert done.stat().st_mode & 0o777 == 0o700

    next(iter(made)).unlink()
    left = dict(list(made.items())[1:])
    lock = OutputLock(tmp_path / "out", "crop")
    lock.acquire()
    with refused(DataError, "out"):
        run_crop(CropJob.model_validate(base))
    lock.release()
    assert {file: file.stat().st_mtime_ns for file in done.iterdir()} == left

    config = CropJob.model_validate({**base, "tracker": {"min_boxes": 2}})
    manifest = run_crop(config)
    assert f"crop: not used, or not to the end: broken.mp4 (not_a_video) -> {tmp_path}/out/failures" in capsys.readouterr().out
    assert not done.exists()
    table = pq.read_table(tmp_path / "out" / "images")
    rows = table.to_pylist()
    counts = manifest["counts"]
    assert (counts["read"], counts["written"], counts["failed"]) == (len(rows) + 1, len(rows), {"not_a_video": 1})
    assert read_table(tmp_path / "out" / "failures", FAILURES)["image_id"].to_pylist() == ["broken.mp4"]
    assert len({row["image_id"] for row in rows}) == len(rows) > 2
    assert {(row["camera"], row["camera_id"], row["time"].date().isoformat()) for row in rows} <= {
        ("gateA", 1, "2026-05-01"),
        ("gateB", 2, "2026-05-02"),
    }
    for row in rows:
        assert decode_image(row["image"]).size == (row["width"], row["height"])
        assert (row["time"].hour, row["time"].minute) == (8, 0)
        assert row["time"].second + row["time"].microsecond / 1e6 == pytest.approx(row["frame"] / 5, abs=0.01)
    hits_are_one_of_each_track_within_the_times(tmp_path, rows)
    again = run_crop(config.model_copy(update={"output": config.output.model_copy(update={"if_exists": "reuse"})}))
    assert again["run_id"] == manifest["run_id"]
