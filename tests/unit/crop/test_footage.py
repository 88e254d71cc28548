"""Footage: whose camera took it and when, in which order its frames come, and what is wrong with a video."""

import os
from datetime import UTC, datetime

import pytest
from PIL import Image
from refusals import refused

from reid_ray.crop.config import CropJob, FootageConfig
from reid_ray.crop.footage import list_footage, stretches
from reid_ray.crop.job import unknown_of
from reid_ray.crop.stills import FrameReader
from reid_ray.data.synthetic.street_video import street_video, write_video
from reid_ray.errors import ConfigError, DataError


def microseconds(*when):
    return round(datetime(*when, tzinfo=UTC).timestamp()) * 1_000_000


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """A good video with a creation time, one that breaks off, one with noise in it, one that is text, one of sound alone."""
    import av

    folder = tmp_path_factory.mktemp("videos")
    short = street_video(people=1, seconds=6, rate=5)
    write_video(folder / "gateB_20260501_080000.mp4", short, created="2026-04-30T20:00:00.000000Z")
    write_video(folder / "gateA_20260501_100000.avi", short, codec="mpeg4")
    whole = (folder / "gateA_20260501_100000.avi").read_bytes()
    (folder / "half.avi").write_bytes(whole[: len(whole) // 2])
    middle = len(whole) // 2
    (folder / "noise.avi").write_bytes(whole[:middle] + os.urandom(3000) + whole[middle + 3000 :])
    (folder / "text.mp4").write_text("no video")
    with av.open(str(folder / "sound.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame(format="s16", layout="mono", samples=800)
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return folder


NAMED = {"pattern": r"(?P<camera>gate\w)_(?P<time>\d{8}_\d{6})", "time_format": "%Y%m%d_%H%M%S"}


@pytest.mark.slow
def test_camera_and_time_come_from_the_name_and_the_clock_of_the_camera(videos):
    found, _ = list_footage(FootageConfig(path=str(videos), **NAMED, time_zone="Europe/Vienna"))
    told = {each.label: (each.camera, each.camera_id, each.start_us) for each in found}
    assert told["gateA_20260501_100000.avi"] == ("gateA", 1, microseconds(2026, 5, 1, 8))
    assert told["gateB_20260501_080000.mp4"] == ("gateB", 2, microseconds(2026, 5, 1, 6))
    assert told["half.avi"] == (None, None, None)
    nameless = [label for label, (camera, _, start) in told.items() if camera is None]
    assert unknown_of(found) == {"camera": len(nameless), "time": sum(start is None for _, _, start in told.values())}
    assert 0 < len(nameless) < len(found)


def test_without_a_pattern_the_container_tells_the_time_unless_it_is_not_believed(videos):
    video = str(videos / "gateB_20260501_080000.mp4")
    told = [
        list_footage(FootageConfig(path=video, **options))[0][0].start_us
        for options in ({}, {"creation_time": False}, {"start": "2026-05-01T08:00:00+02:00"})
    ]
    assert told == [microseconds(2026, 4, 30, 20), None, microseconds(2026, 5, 1, 6)]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (NAMED, "footage.time_zone"),
        ({**NAMED, "time_format": "%d.%m.%Y"}, "footage.time_format"),
    ],
)
def test_a_time_that_cannot_be_told_is_refused(videos, options, field):
    with refused(ConfigError, field):
        list_footage(FootageConfig(path=str(videos), **options))


def test_a_folder_without_a_video_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("")
    for kind in ("videos", "frames"):
        with refused(DataError, str(tmp_path), "footage.path"):
            list_footage(FootageConfig(path=str(tmp_path), kind=kind))


def read(videos, name, *, seconds=600.0):
    (footage,), _ = list_footage(FootageConfig(path=str(videos / name)))
    readers = [FrameReader(each, rate=None, max_pixels=10**6) for each in stretches([footage], seconds=seconds, overlap=1)]
    frames = [len(list(reader)) for reader in readers]
    return frames, {reason for reader in readers for _, reason, _ in reader.failed}


def test_what_is_wrong_with_a_video_is_said_and_the_rest_of_it_is_used(videos):
    assert read(videos, "gateA_20260501_100000.avi") == ([30], set())
    frames, reasons = read(videos, "half.avi")
    assert 1 <= frames[0] < 30
    assert reasons == {"video_breaks_off"}
    frames, reasons = read(videos, "noise.avi")
    assert frames[0] > 1
    assert reasons <= {"damaged_video", "video_breaks_off"}


def test_a_file_that_is_no_video_is_known_by_its_header(videos):
    _, bad = list_footage(FootageConfig(path=str(videos)))
    assert {name: error.reason for name, error in bad} == {"text.mp4": "not_a_video", "sound.mkv": "no_video_stream"}
    _, bad = list_footage(FootageConfig(path=str(videos), max_pixels=1000))
    assert sum(error.reason == "too_many_pixels" for _, error in bad) == 4


def test_frames_come_in_the_order_of_their_numbers_or_of_their_times(tmp_path):
    for name in ("f2.png", "f10.png", "f1.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "f3.png").write_bytes(b"no picture")
    (footage,), _ = list_footage(FootageConfig(path=str(tmp_path), kind="frames", frame_rate=1))
    assert footage.frames == ("f1.png", "f2.png", "f3.png", "f10.png")
    reader = FrameReader(next(stretches([footage], seconds=60, overlap=1)), rate=None, max_pixels=10**6)
    assert [(still.number, still.seconds) for still in reader] == [(0, 0), (1, 1), (3, 3)]
    assert [(name, reason) for name, reason, _ in reader.failed] == [("f3.png", "not_an_image")]
    timed = tmp_path / "timed"
    timed.mkdir()
    for at in ("T080002", "T080000", "T080001"):
        Image.new("RGB", (8, 8)).save(timed / f"b{at}.png")
    config = FootageConfig(path=str(timed), kind="frames", pattern="(?P<time>T.{6})", time_format="T%H%M%S", time_zone="UTC")
    (footage,), _ = list_footage(config)
    assert footage.frames == ("bT080000.png", "bT080001.png", "bT080002.png")
    assert footage.time_us(2.0) - footage.time_us(0.0) == 2_000_000


def test_a_day_of_frames_is_handed_out_in_pieces_that_hold_their_own_names_alone(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    (footage,), _ = list_footage(FootageConfig(path=str(tmp_path), kind="frames", frame_rate=10))
    day = type(footage)(footage.store, "", None, tuple(f"{n}.png" for n in range(36_000)), (), 10.0, 3600.0)
    parts = list(stretches([day], seconds=600, overlap=3))
    assert [(part.first, len(part.footage.frames)) for part in parts] == [(6000 * n, 6030 if n < 5 else 6000) for n in range(6)]


@pytest.mark.parametrize(
    "footage",
    [
        {"pattern": "(?P<zone>.)"},
        {"pattern": "("},
        {"camera": "a", "pattern": "(?P<camera>.)"},
        {"start": "2026-05-01T08:00:00"},
        {"start": "today"},
        {"time_zone": "Mars/Olympus"},
        {"time_format": "%Y"},
        {"frame_rate": 10},
    ],
)
def test_contradictions_of_a_footage_are_refused(footage):
    with pytest.raises(ValueError, match="footage"):
        CropJob.model_validate({"footage": {"path": "x", **footage}, "output": {"path": "y"}})
