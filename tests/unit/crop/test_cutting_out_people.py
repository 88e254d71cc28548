"""A stretch of footage becomes the crops of its people's tracks; a cut in the footage changes nothing that is kept."""

import numpy as np
import pytest
from PIL import Image

from reid_ray.crop.config import CropJob
from reid_ray.crop.footage import list_footage, stretches
from reid_ray.crop.seams import joined
from reid_ray.crop.spotted import Spotted, overlaps
from reid_ray.crop.stills import FrameReader
from reid_ray.crop.stretch_work import work_on
from reid_ray.data.synthetic.street_video import street_video, write_video

pytestmark = pytest.mark.slow


class TrueBoxes:
    """A detector that knows where everybody is: what is left to go wrong is time, tracks and crops."""

    name, revision = "truth", None

    def __init__(self, video):
        self._frames = {picture[::8, ::8].tobytes(): seen for picture, seen in zip(video.picture_FHW3, video.truth, strict=True)}

    def people(self, pictures):
        found = [np.array([box for _, box in self._frames[picture[::8, ::8].tobytes()]], np.float32).reshape(-1, 4) for picture in pictures]
        return [Spotted(box_N4, np.ones(len(box_N4), np.float32)) for box_N4 in found]


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    """Four people in a quarter of a minute of frames, lossless; where they are; the folder."""
    folder = tmp_path_factory.mktemp("street")
    video = street_video(people=4, seconds=17, rate=5)
    (folder / "gateA").mkdir()
    for number, picture in enumerate(video.picture_FHW3):
        Image.fromarray(picture).save(folder / "gateA" / f"{number}.png", compress_level=0)
    return folder, video


def crop(path, **sections):
    return CropJob.model_validate(
        {
            "footage": {"kind": "frames", "path": str(path), "frame_rate": 5, **sections.pop("footage", {})},
            "output": {"path": str(path.parent / "out")},
            **sections,
        }
    )


def tracks_of(config, detector, *, seconds):
    (footage,), _ = list_footage(config.footage)
    tables = [work_on(each, config, detector, overlap=3.0) for each in stretches([footage], seconds=seconds, overlap=3.0)]
    found = [each for some, _ in joined(tables, most=config.crops.per_track, span_s=config.crops.span_s) for each in some]
    return len(tables), [each for each in found if each.length >= config.tracker.min_boxes]


def persons_of(track, video):
    """Who the true boxes say that the crops of a track are of."""
    for row in track.rows:
        seen = video.truth[row["frame"]]
        shared = overlaps(np.array([row["box"]], np.float32), np.array([box for _, box in seen], np.float32))[0]
        yield seen[int(shared.argmax())][0]


@pytest.mark.parametrize("kind", ["iou", "bytetrack"])
def test_each_person_who_walks_past_is_one_track(street, kind):
    folder, video = street
    _, tracks = tracks_of(crop(folder, tracker={"kind": kind}), TrueBoxes(video), seconds=600)
    assert sorted(tuple(set(persons_of(track, video))) for track in tracks) == [(0,), (1,), (2,), (3,)]


@pytest.mark.parametrize("seconds", [8, 4])
def test_tracks_go_on_across_a_cut_and_keep_the_crops_that_an_uncut_video_keeps(street, seconds):
    folder, video = street
    _, whole = tracks_of(crop(folder), TrueBoxes(video), seconds=600)
    pieces, cut = tracks_of(crop(folder), TrueBoxes(video), seconds=seconds)
    assert pieces > 1
    assert [(track.length, [row["frame"] for row in track.rows]) for track in cut] == [
        (track.length, [row["frame"] for row in track.rows]) for track in whole
    ]


def test_a_crop_is_its_box_with_a_margin_and_the_best_are_kept_apart_in_time(street):
    folder, video = street
    config = crop(folder, crops={"per_track": 3, "span_s": 1.0, "margin": 0.1})
    _, tracks = tracks_of(config, TrueBoxes(video), seconds=600)
    for track in tracks:
        seconds = [row["seconds"] for row in track.rows]
        assert 1 <= len(seconds) <= 3
        assert len({int(each) for each in seconds}) == len(seconds)
        for row in track.rows:
            left, top, right, bottom = row["box"]
            assert row["height"] == min(281, round(bottom + 0.1 * (bottom - top))) - max(0, round(top - 0.1 * (bottom - top)))
            assert right - left <= row["width"] <= round(1.2 * (right - left)) + 1
            # whole boxes are worth more than those that the frame's border cuts
            assert left > 1 or row["worth"] <= max(each["worth"] for each in track.rows)


def test_frames_are_taken_by_their_times(street):
    folder, _ = street
    (footage,), _ = list_footage(crop(folder).footage)
    for rate, step in ((1.0, 5), (2.5, 2), (30.0, 1), (None, 1)):
        parts = stretches([footage], seconds=8, overlap=2)
        taken = [(still.number, each) for each in parts for still in FrameReader(each, rate=rate, max_pixels=10**6)]
        assert [number for number, each in taken if each.stop is None or number / 5 < each.stop] == list(range(0, 85, step))


def test_a_video_gives_the_frames_that_were_written_into_it_whatever_stretch_asks(tmp_path):
    video = street_video(people=2, seconds=8, rate=5)
    write_video(tmp_path / "a.mp4", video, created="2026-05-01T08:00:00Z")
    config = CropJob.model_validate({"footage": {"path": str(tmp_path)}, "output": {"path": str(tmp_path / "out")}})
    (footage,), bad = list_footage(config.footage)
    assert (bad, footage.rate, footage.seconds) == ([], 5.0, 8.0)
    assert footage.time_us(0.4) == 1_777_622_400_400_000
    parts = [list(FrameReader(each, rate=None, max_pixels=10**6)) for each in stretches([footage], seconds=3, overlap=1)]
    own = [still for part, each in zip(parts, stretches([footage], seconds=3, overlap=1), strict=True) for still in part
           if each.stop is None or still.seconds < each.stop]  # fmt: skip
    assert [still.number for still in own] == list(range(40))
    for still in own[::7]:
        written = video.picture_FHW3[still.number][:280].astype(int)
        assert abs(still.picture_HW3.astype(int) - written).mean() < 8
