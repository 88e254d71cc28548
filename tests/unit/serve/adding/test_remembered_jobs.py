"""Jobs by pages: each once, the latest first, whatever comes and goes meanwhile; what has finished is read once, and then by pages."""

import shutil
import time
from collections import Counter

import pytest

from reid_ray.serve.adding.config import AddingConfig
from reid_ray.serve.adding.job_folder import JobFolder, JobStatus
from reid_ray.serve.adding.remembered_jobs import RememberedJobs


class Jobs:
    """Jobs on the disk, n the latest of them the higher it is."""

    def __init__(self, folder, **config):
        self.folder, self.remembered = folder, RememberedJobs(folder, AddingConfig(**config))
        self.start = time.time() - 1_000

    def add(self, n, *, state="done", days=0.0):
        created = self.start + n - 86_400 * days
        status = JobStatus(f"job{n}", "pictures", "me", created, 1, state=state, ended=created + 5 if state == "done" else None)
        JobFolder(self.folder / status.job_id).path.mkdir()
        JobFolder(self.folder / status.job_id).write_status(status)

    def pages(self, most, **which):
        before, found = None, []
        while True:
            page, before = self.remembered.page(most, before=before, **which)
            found.append([int(each.job_id.removeprefix("job")) for each in page])
            if before is None:
                return found


@pytest.fixture
def jobs(tmp_path):
    return Jobs(tmp_path)


@pytest.fixture
def reads(monkeypatch):
    """How often each job's status was read."""
    counted, status = Counter(), JobFolder.status
    monkeypatch.setattr(JobFolder, "status", lambda folder: (counted.update([folder.path.name]), status(folder))[1])
    return counted


def test_pages_have_each_job_once_the_latest_first(jobs):
    for n in (3, 0, 4, 1, 2, 5, 6):
        jobs.add(n)
    assert jobs.pages(3) == [[6, 5, 4], [3, 2, 1], [0]]
    assert jobs.pages(7) == [[6, 5, 4, 3, 2, 1, 0]]
    assert jobs.pages(9) == [[6, 5, 4, 3, 2, 1, 0]]


def test_a_job_that_comes_or_goes_between_pages_moves_no_other(jobs):
    for n in range(6):
        jobs.add(n)
    first, before = jobs.remembered.page(2)
    jobs.add(7)
    shutil.rmtree(jobs.folder / first[-1].job_id)
    assert [each.job_id for each in jobs.remembered.page(2, before=before)[0]] == ["job3", "job2"]


def test_what_is_left_of_a_finished_jobs_upload_goes_and_where_it_cannot_no_job_is_hidden(jobs, monkeypatch):
    jobs.add(0)
    jobs.add(1)
    left = jobs.folder / "job1" / "upload"
    left.write_bytes(b"a person")
    with monkeypatch.context() as broken:
        broken.setattr(JobFolder, "drop_upload", lambda folder: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
        assert RememberedJobs(jobs.folder, AddingConfig()).unfinished() == []
        assert jobs.pages(9) == [[1, 0]]
    assert left.exists()
    RememberedJobs(jobs.folder, AddingConfig()).unfinished()
    assert not left.exists()


def test_what_waits_and_runs_is_found_among_many_that_have_finished(jobs):
    for n in range(30):
        jobs.add(n, state={3: "running", 20: "waiting"}.get(n, "done"))
    assert jobs.pages(100, unfinished=True) == [[20, 3]]
    assert sorted(n for page in jobs.pages(7) for n in page) == list(range(30))


def test_a_finished_job_is_read_once_and_then_with_its_page(jobs, reads):
    for n in range(50):
        jobs.add(n, state="running" if n == 49 else "done")
    jobs.remembered.unfinished()
    assert set(reads.values()) == {1}
    reads.clear()
    jobs.remembered.page(5)
    assert reads == {f"job{n}": 1 for n in range(45, 50)}


def test_a_job_that_another_replica_forgot_is_left_out(jobs):
    for n in range(4):
        jobs.add(n)
    jobs.pages(10)
    shutil.rmtree(jobs.folder / "job2")
    assert jobs.pages(10) == [[3, 1, 0]]


def test_old_ones_and_those_beyond_the_number_that_is_kept_are_removed_and_unfinished_ones_stay(tmp_path, reads):
    jobs = Jobs(tmp_path, keep_jobs=5, keep_days=2)
    for n in range(10):
        jobs.add(n)
    for n, state in ((20, "done"), (21, "running")):
        jobs.add(n, state=state, days=3)
    jobs.remembered.unfinished()
    reads.clear()
    jobs.remembered.forget_old()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["job21", "job5", "job6", "job7", "job8", "job9"]
    assert set(reads) <= {"job20", "job21"}, "of recent ones the number alone counts"
