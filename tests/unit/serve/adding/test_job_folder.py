"""What is removed of a job beside others that write: a status on its way is none of it."""

import json

from reid_ray.serve.adding import job_folder
from reid_ray.serve.adding.job_folder import JobFolder, JobStatus
from reid_ray.storage import files


def test_a_status_that_is_being_written_survives_those_who_remove_an_upload(tmp_path, monkeypatch):
    folder = JobFolder(tmp_path / "job")
    folder.path.mkdir()
    folder.upload.write_bytes(b"pictures")
    replace = files.os.replace

    def removed_meanwhile(hidden, path):
        folder.drop_made()
        folder.drop_upload()
        replace(hidden, path)

    monkeypatch.setattr(files.os, "replace", removed_meanwhile)
    folder.write_status(JobStatus(job_id="j", kind="pictures", by="b", created=1.0, total=1, begun_at=1))
    assert json.loads((folder.path / job_folder._STATUS).read_text())["job_id"] == "j"
    assert sorted(path.name for path in folder.path.iterdir()) == [job_folder._STATUS]
