"""A process that dies before any file-system call of a commit leaves the older result or the newer one, whole, and nothing of others."""

import jobs_to_kill
import pytest
from kill_points import outcomes

from reid_ray.data.synthetic.config import SynthesizeJob
from reid_ray.data.synthetic.job import run_synthesize
from reid_ray.records import IMAGES
from reid_ray.storage import read_table

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("first", [True, False], ids=["the first result", "a replacement"])
@pytest.mark.parametrize("exchange", [True, False], ids=["names are exchanged", "names are changed one by one"])
def test_a_kill_before_any_call_of_a_commit_leaves_one_whole_result(first, exchange, tmp_path):
    found = outcomes("outputs_to_kill", "write", tmp_path, first=first, exchange=exchange)
    assert len(found) >= 12
    assert [each["died"] for each in found] == [True] * (len(found) - 1) + [False]
    older = None if first else 1
    gap = {None} if not exchange else set()  # for one moment only the next run sees the older result
    assert {each["dead"] for each in found} <= {older, 2} | gap
    assert {each["restored"] for each in found} == {older, 2}
    assert found[-1]["dead"] == 2
    assert all(each["again"] == 4 and each["left"] == [] and each["left_by_failure"] == [] for each in found)
    assert all(each["others"] and each["others_again"] for each in found)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Tables to export, and a picture to ingest."""
    folder = tmp_path_factory.mktemp("people")
    run_synthesize(SynthesizeJob.model_validate({"people": jobs_to_kill.PEOPLE, "output": {"path": str(folder), "if_exists": "replace"}}))
    picture = read_table(folder / "images", IMAGES, columns=["image"])["image"][0].as_py()
    (folder / "picture.jpg").write_bytes(picture)
    return folder


@pytest.mark.parametrize(
    "job", ["ingest", *(pytest.param(job, marks=pytest.mark.soak("job_kills")) for job in ("synthesize", "lint", "export"))]
)
def test_a_kill_before_any_call_of_a_jobs_commit_leaves_the_older_or_the_newer_result(job, tables, tmp_path, monkeypatch):
    monkeypatch.setenv("REID_KILL_TABLES", str(tables))
    found = outcomes("jobs_to_kill", "run", tmp_path, job=job)
    assert len(found) >= 12
    assert [each["died"] for each in found] == [True] * (len(found) - 1) + [False]
    assert found[0]["whole"] == 1
    assert found[-1]["whole"] == 2
    assert {each["whole"] for each in found} == {1, 2}
    assert {each["again"] for each in found} == {3}
    assert all(each["left"] == [] and each["crops"] == 2 for each in found)


def test_a_kill_before_any_call_of_a_ledger_loses_no_row_that_was_committed(tmp_path):
    found = outcomes("ledger_to_kill", "write", tmp_path)
    assert len(found) > 40
    assert [each["died"] for each in found] == [True] * (len(found) - 1) + [False]
    assert [each for each in found if each["lost"] or each["lost_in_merging"] or each["hidden"]] == []
