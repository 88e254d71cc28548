"""What could not be used of some footage is named, the first few of many."""

from reid_ray.crop.config import CropJob
from reid_ray.crop.crop_rows import CropTables
from reid_ray.storage import JobOutput


def test_the_first_videos_that_could_not_be_used_are_named_once_and_the_others_counted(tmp_path):
    config = CropJob.model_validate({"footage": {"path": str(tmp_path)}, "output": {"path": str(tmp_path / "out")}})
    with JobOutput("crop", config.output.path, config) as output, CropTables(output, config) as tables:
        assert tables.failed_in_words() is None
        tables.fail("a.mp4", "not_a_video", "no container")
        tables.fail("a.mp4", "not_a_video", "seen by another stretch")
        assert tables.failed_in_words() == "not used, or not to the end: a.mp4 (not_a_video)"
        for number in range(9):
            tables.fail(f"gate/{number}.jpg", "truncated", "breaks off")
        assert tables.failed_in_words() == (
            "not used, or not to the end: a.mp4 (not_a_video), gate/0.jpg (truncated), gate/1.jpg (truncated) and 7 more"
        )
