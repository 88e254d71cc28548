"""Add jobs: what is uploaded becomes items once, whatever happens meanwhile; what cannot is counted with its reason; no upload stays."""

import hashlib
import io
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import add_job_to_kill
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from plain_encoder import DIM, PlainEncoder, picture_of, png_of, vector_of
from refusals import refused

from reid_ray import versions
from reid_ray.errors import ConfigError, DataError
from reid_ray.gallery.bulk.erased_since import ErasuresBefore
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.gallery.gallery_writer import GalleryWriter, create_gallery
from reid_ray.gallery.shards.share import NOTHING
from reid_ray.serve.adding import job_board, job_folder, uploads
from reid_ray.serve.adding.add_job import AddTools
from reid_ray.serve.adding.config import AddingConfig
from reid_ray.serve.adding.job_board import JobBoard
from reid_ray.serve.adding.job_folder import JobFolder
from reid_ray.serve.adding.uploads import TooLargeError
from reid_ray.serve.operations.config import WritingConfig
from reid_ray.serve.operations.gallery_changes import ConflictError, GalleryChanges, NotThereError, Which
from reid_ray.serve.operations.writer_turns import BusyError, WriterTurns


class Service:
    """A service's changing half over one gallery; `open` and `kill` as often as wanted."""

    def __init__(self, folder, **config):
        self.gallery, self.state, self.encoder = folder / "gallery", folder / "gallery.service", PlainEncoder()
        self.config = AddingConfig(**{"batch_size": 2, **config})
        create_gallery(self.gallery, dim=DIM, encoder="plain")
        self.view = GalleryView(self.gallery)
        self.open()

    def open(self):
        self.board = JobBoard(self.state, self.config)
        self.turns = WriterTurns(self.gallery, WritingConfig(idle_s=0.05), changed=self.view.refresh)
        self.changes = GalleryChanges(self.turns, erased=self.board.forget)

    def start(self):
        about = GalleryView(self.gallery, share=NOTHING)
        self.board.start(lambda stopping: AddTools(self.turns, self.encoder, self.config, about, False, stopping), self.changes)

    def close(self):
        self.board.close()
        self.turns.close()

    def send(self, files, items=None, **options):
        status = self.board.new_status("pictures", by="me", before=ErasuresBefore.of(self.view), **options)
        upload = self.board.receive()
        try:
            for name, data in files.items():
                upload.begin_file(name)
                upload.write(data[:5])
                upload.write(data[5:])
            status = upload.finish_pictures(status, items, self.view.schema)
        except BaseException:
            upload.discard()
            raise
        self.board.announce()
        return status

    def send_table(self, table, **options):
        status = self.board.new_status("table", by="me", before=ErasuresBefore.of(self.view), **options)
        file = io.BytesIO()
        pq.write_table(table, file)
        upload = self.board.receive()
        upload.begin_file("table")
        upload.write(file.getvalue())
        status = upload.finish_table(status, schema=self.view.schema, dim=DIM)
        self.board.announce()
        return status

    def finished(self, status, within_s=20):
        end = time.monotonic() + within_s
        while not (found := self.board.status(status.job_id)).is_finished and time.monotonic() < end:
            time.sleep(0.01)
        return found

    def items(self):
        self.view.refresh()
        return set(self.view.ids())


@pytest.fixture
def service(tmp_path):
    service = Service(tmp_path)
    yield service
    service.close()


def files(*names):
    return {f"{name}.png": png_of(name) for name in names}


def left_of(service, status):
    """What is left of a finished job once its upload has had a moment to go."""
    end = time.monotonic() + 5
    while len(left := sorted(path.name for path in (service.state / "jobs" / status.job_id).iterdir())) > 1 and time.monotonic() < end:
        time.sleep(0.01)
    return left


def test_pictures_become_items_with_their_columns_and_thumbnails_and_their_upload_goes(service):
    service.start()
    items = [{"file": f"{name}.png", "item_id": name, "camera_id": at, "zone": "gate"} for at, name in enumerate("abc")]
    done = service.finished(service.send(files(*"abc"), items))
    assert (done.state, done.total, done.done, done.added, done.refused) == ("done", 3, 3, 3, [])
    service.view.refresh()
    assert service.items() == {"a", "b", "c"}
    for at, name in enumerate("abc"):
        hit = service.view.search(vector_of(name)[None], 1)[0][0]
        assert (hit.item_id, hit.item["camera_id"], hit.item["zone"]) == (name, at, "gate")
        assert service.view.thumbnail(name)[:2] == b"\xff\xd8"
    assert left_of(service, done) == ["status.json"]
    assert done.generation == service.view.generation


def test_a_picture_without_an_id_has_that_of_its_bytes_so_that_it_is_added_once(service):
    service.start()
    for _ in range(2):
        service.finished(service.send(files("a")))
    assert service.items() == {hashlib.sha256(png_of("a")).hexdigest()[:32]}


def test_what_is_no_picture_is_refused_with_its_reason_and_the_others_are_added(service):
    service.start()
    some = files(*"abc") | {"bad.png": b"no picture", "empty.png": b"", "again.png": png_of("a")}
    done = service.finished(service.send(some))
    assert (done.state, done.added, done.refused_count) == ("done", 3, 3)
    codes = {each["file"]: each["reason"].partition(":")[0] for each in done.refused}
    assert codes == {"bad.png": "not_an_image", "empty.png": "empty", "a.png": "replaced"}


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ([{"file": "z.png"}], "z.png"),
        ([{"item_id": "a"}], "was not uploaded"),
        ([{"file": "a.png"}, {"file": "a.png"}], "twice"),
        ([{"file": "a.png", "item_id": "x"}, {"file": "b.png", "item_id": "x"}], "twice"),
        ([{"file": "a.png", "item_id": 5}], "item_id"),
        ([{"file": "a.png", "item_id": ""}], "item_id"),
        ([{"file": "a.png", "embedding": 5}], "embedding"),
        ([{"file": "a.png", "zone": [1]}], "zone"),
        ([{"file": "a.png", "zone": 1}, {"file": "b.png", "zone": "gate"}], "zone"),
        ([{"file": "a.png", "zone": float("nan")}], "zone"),
        ([{"file": "a.png", "zone": 1 << 70}], "zone"),
        ([{"file": "a.png", "zone": "\ud800"}], "zone"),
        ([{"file": "a.png", "camera_id": "5"}], "camera_id"),
        ([{"file": "a.png", "camera_id": True}], "camera_id"),
    ],
)
def test_items_that_cannot_be_stored_are_refused_as_a_whole_before_there_is_a_job(service, items, said):
    service.start()
    service.finished(service.send(files("c"), [{"file": "c.png", "item_id": "c", "camera_id": 1}]))
    with pytest.raises(ConfigError, match=said):
        service.send(files("a", "b"), items)
    assert [path.name for path in (service.state / "jobs").glob(".new*")] == []
    assert len(service.board.page(100)[0]) == 1


def test_an_upload_beyond_the_limits_is_refused_while_it_is_read(tmp_path):
    service = Service(tmp_path, most_mb=1, most_files=2)
    with pytest.raises(TooLargeError):
        service.send({"a.png": bytes((1 << 20) + 1)})
    with pytest.raises(TooLargeError):
        service.send(files("a", "b", "c"))
    service.close()


def embedded(*names, **columns):
    vectors = [vector_of(name).tolist() if name != "failed" else None for name in names]
    return pa.table(
        {
            "item_id": list(names),
            "embedding": pa.array(vectors, pa.list_(pa.float32())),
            "kind": ["image"] * len(names),
            "status": ["failed" if name == "failed" else "ok" for name in names],
            "reason": pa.array(["empty: the file has 0 bytes" if name == "failed" else None for name in names], pa.string()),
            "encoder_fingerprint": ["plain"] * len(names),
            **columns,
        }
    )


def test_a_table_of_embedded_rows_is_added_without_the_encoder(service):
    service.encoder = None
    service.start()
    done = service.finished(service.send_table(embedded("a", "failed", "b", camera_id=[1, 2, 3])))
    assert (done.state, done.added, [each["reason"] for each in done.refused]) == ("done", 2, ["empty: the file has 0 bytes"])
    assert [each["camera_id"] for each in service.view.get(["a", "b"])] == [1, 3]


def test_a_table_of_pictures_is_embedded(service):
    service.start()
    table = pa.table({"image_id": list("abc"), "image": [png_of(each) for each in "abc"], "camera_id": [1, 2, 3], "width": [8, 8, 8]})
    assert service.finished(service.send_table(table)).added == 3
    assert service.view.search(vector_of("b")[None], 1)[0][0].item["camera_id"] == 2
    assert "width" not in service.view.columns()


@pytest.mark.parametrize("table", [pa.table({"a": [1]}), embedded("a").drop_columns(["kind"]), embedded("a", zone=[[1]])])
def test_a_table_that_the_gallery_cannot_take_is_refused(service, table):
    with refused(DataError, "table"):
        service.send_table(table)


def test_vectors_of_another_encoder_fail_the_job_in_a_sentence(service):
    service.start()
    table = embedded("a").drop_columns(["encoder_fingerprint"]).append_column("encoder_fingerprint", pa.array(["other"]))
    done = service.finished(service.send_table(table))
    assert done.state == "failed"
    assert "other" in done.detail
    assert left_of(service, done) == ["status.json"]


class Slow(PlainEncoder):
    """Waits in the given batch until it is let go."""

    def __init__(self, batch):
        self.batch, self.seen, self.arrived, self.go = batch, 0, False, False

    def encode_images(self, pictures):
        self.seen += 1
        if self.seen == self.batch:
            self.arrived = True
            while not self.go:
                time.sleep(0.01)
        return super().encode_images(pictures)


def until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_job_goes_on_where_it_was_when_the_service_is_there_again(service):
    service.encoder = Slow(batch=2)
    service.start()
    job = service.send(files(*"abcdef"), [{"file": f"{name}.png", "item_id": name} for name in "abcdef"])
    until(lambda: service.encoder.arrived)
    service.board._is_over.set()
    service.encoder.go = True
    service.close()
    assert service.items() == {*"ab"}
    assert service.board.status(job.job_id).state == "waiting"
    service.encoder = Slow(batch=99)
    service.open()
    service.start()
    done = service.finished(job)
    assert (done.state, done.added, service.items()) == ("done", 6, {*"abcdef"})
    assert service.encoder.seen == 2


@pytest.mark.slow
def test_a_job_whose_service_is_killed_is_done_by_the_next_one_and_nothing_is_lost_or_twice(service):
    names = [f"n{number}" for number in range(24)]
    job = service.send(files(*names), [{"file": f"{name}.png", "item_id": name} for name in names])
    for kills in range(1, 2):
        command = [sys.executable, str(Path(add_job_to_kill.__file__)), str(service.gallery)]
        with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}) as child:
            until(lambda least=8 * kills: service.board.status(job.job_id).done >= least)
            child.kill()
    assert service.board.status(job.job_id).state == "running"
    service.start()
    done = service.finished(job)
    assert (done.state, done.done, done.added, done.attempts) == ("done", 24, 24, 2)
    assert service.items() == set(names)
    for name in names:
        assert service.view.search(vector_of(name)[None], 1)[0][0].item_id == name


@pytest.mark.parametrize("is_dropped", [False, True])
def test_a_job_whose_service_dies_while_its_upload_goes_is_done_and_nothing_of_it_stays(service, monkeypatch, is_dropped):
    drop = JobFolder.drop_upload

    def die(folder):
        if is_dropped:
            drop(folder)
        raise SystemExit

    with monkeypatch.context() as dying:
        dying.setattr(JobFolder, "drop_upload", die)
        service.start()
        job = service.send(files("a"), [{"file": "a.png", "item_id": "a"}])
        service.board._thread.join(20)
    service.close()
    service.open()
    service.start()
    done = service.finished(job)
    assert (done.state, done.added, done.attempts, done.detail) == ("done", 1, 1, None)
    assert left_of(service, job) == ["status.json"]
    assert service.items() == {"a"}


def test_a_job_that_ends_the_service_again_and_again_says_so(service):
    job = service.send(files("a"))
    folder = JobFolder(service.state / "jobs" / job.job_id)
    folder.write_status(replace(folder.status(), state="running", attempts=job_board._MOST_ATTEMPTS))
    service.start()
    done = service.finished(job)
    assert done.state == "failed"
    assert "while it worked on this job" in done.detail


def test_a_cancelled_job_ends_after_its_batch_and_keeps_what_it_added(service):
    service.encoder = Slow(batch=2)
    service.start()
    items = [{"file": f"{name}.png", "item_id": name} for name in "abcdef"]
    running, waiting = service.send(files(*"abcdef"), items), service.send(files("x"))
    until(lambda: service.encoder.arrived)
    assert service.board.cancel(waiting.job_id).state == "cancelled"
    service.board.cancel(running.job_id)
    service.encoder.go = True
    done = service.finished(running)
    assert (done.state, done.added, service.items()) in [("cancelled", n, {*"abcdef"[:n]}) for n in (2, 4)]
    assert left_of(service, done) == left_of(service, waiting) == ["status.json"]
    with pytest.raises(ConflictError):
        service.board.cancel(running.job_id)
    with pytest.raises(NotThereError):
        service.board.cancel("../gallery")


@pytest.mark.parametrize("now", [False, True])
def test_who_is_erased_while_a_job_waits_does_not_come_back(service, now):
    job = service.send(files(*"abc"), [{"file": f"{name}.png", "item_id": name} for name in "abc"])
    table = service.send_table(pa.table({"image_id": ["a", "d"], "image": [png_of("a"), png_of("d")]}))
    rows = service.send_table(embedded("a", "e"))
    service.changes.erase(Which(item_ids=("a",)), request="letter", now=now).result()
    for path in (service.state / "jobs").rglob("upload"):
        assert png_of("a") not in path.read_bytes()
        assert b"a.png" not in path.read_bytes()
    service.start()
    assert [service.finished(each).state for each in (job, table, rows)] == ["done"] * 3
    assert service.items() == {*"bcde"}


def test_who_is_erased_elsewhere_while_a_job_waits_does_not_come_back(service):
    job = service.send(files(*"ab"), [{"file": f"{name}.png", "item_id": name} for name in "ab"])
    with GalleryWriter(service.gallery, wait_s=5) as other:
        other.erase(["a"], request="letter")
        other.carry_out_erasures()
    service.start()
    done = service.finished(job)
    assert (service.items(), [each["reason"].partition(":")[0] for each in done.refused]) == ({"b"}, ["erased"])


def test_who_was_erased_before_may_be_added_again(service):
    service.start()
    service.finished(service.send(files("a"), [{"file": "a.png", "item_id": "a"}]))
    service.changes.erase(Which(item_ids=("a",)), request="letter", now=True).result()
    service.finished(service.send(files("a"), [{"file": "a.png", "item_id": "a"}]))
    assert service.items() == {"a"}


def test_who_was_erased_before_and_is_gone_from_the_files_meanwhile_may_be_added_again(service):
    with GalleryWriter(service.gallery, wait_s=5) as other:
        other.add(embedded("a").select(["item_id", "embedding"]), encoder="plain")
        other.erase(["a"], request="letter")
    service.view.refresh()
    job = service.send(files("a"), [{"file": "a.png", "item_id": "a"}])
    with GalleryWriter(service.gallery, wait_s=5) as other:
        other.carry_out_erasures()
    service.start()
    assert (service.finished(job).state, service.items()) == ("done", {"a"})


def test_what_a_job_refused_is_forgotten_with_whoever_is_erased_and_no_other_job_is_read(tmp_path, monkeypatch):
    service, replica = Service(tmp_path), JobBoard(tmp_path / "gallery.service", AddingConfig())
    service.start()
    bad = {"a.png": b"no picture", "b.png": b"no picture"}
    refusing = service.send(bad, [{"file": f"{name}.png", "item_id": name} for name in "ab"])
    good = [service.send(files(name)) for name in "cd"]
    assert {service.finished(job).state for job in (refusing, *good)} == {"done"}
    read, status = [], JobFolder.status
    replica.page(100)
    monkeypatch.setattr(JobFolder, "status", lambda folder: (read.append(folder.path.name), status(folder))[1])
    replica.forget(["a"])  # of a replica that did not work on them
    assert read == [refusing.job_id]
    assert [each["item_id"] for each in service.board.status(refusing.job_id).refused] == ["b"]
    service.close()


@pytest.mark.parametrize("gone", [("rows.json",), ("upload",), ("rows.json", "upload"), ("rows.json", "upload", "status.json")], ids=str)
def test_an_erasure_does_not_fail_of_a_job_that_ends_while_it_looks(service, monkeypatch, gone):
    job = service.send(files("a"))
    seen = service.board._remembered.naming_items()
    folder = service.state / "jobs" / job.job_id
    for name in gone:  # what another replica that ends the job has removed so far
        (folder / name).unlink()
    monkeypatch.setattr(service.board._remembered, "naming_items", lambda: seen)
    service.board.forget(["a"])
    assert [each.job_id for each in seen] == [job.job_id]


def test_an_upload_that_an_erasure_writes_anew_goes_with_a_job_that_ended_meanwhile(service, monkeypatch):
    job = service.send_table(embedded("a", "b"))
    folder, blank = JobFolder(service.state / "jobs" / job.job_id), job_board.blank

    def ended_meanwhile(*words):
        folder.write_status(replace(folder.status(), state="done"))
        data = folder.upload.read_bytes()
        folder.drop_upload()
        folder.upload.write_bytes(data)  # as where the erasure's own copy takes its place a moment later
        blank(*words)

    monkeypatch.setattr(job_board, "blank", ended_meanwhile)
    service.board.forget(["a"])
    assert [path.name for path in folder.path.iterdir()] == ["status.json"]


def test_a_job_whose_status_goes_while_it_is_read_is_not_there_and_no_damaged_one(service, monkeypatch, capsys):
    job = service.send(files("a"))
    read = job_folder.read_object

    def gone(path, **options):
        path.unlink()
        return read(path, **options)

    monkeypatch.setattr(job_folder, "read_object", gone)
    assert service.board._remembered.unfinished() == []
    assert capsys.readouterr().err == ""
    with pytest.raises(NotThereError):
        service.board.status(job.job_id)


def test_the_same_request_makes_one_job(service):
    first, second = (service.send(files("a"), key="once") for _ in range(2))
    assert first.job_id == second.job_id
    assert len(service.board.page(100)[0]) == 1
    assert service.send(files("a"), key="twice").job_id != first.job_id


def test_no_more_jobs_wait_than_may_and_old_ones_are_forgotten(tmp_path):
    service = Service(tmp_path, most_unfinished=2, keep_jobs=1)
    jobs = [service.send(files(name)) for name in "ab"]
    with pytest.raises(BusyError):
        service.send(files("c"))
    service.start()
    [service.finished(job) for job in jobs]
    service.board._remembered.forget_old()
    assert [each.job_id for each in service.board.page(100)[0]] == [jobs[1].job_id]
    service.close()


def test_an_upload_that_its_process_left_behind_is_removed_and_one_on_its_way_is_not(service, monkeypatch):
    monkeypatch.setattr(uploads, "_YOUNG_S", -1.0)
    here, gone = service.board.receive(), service.state / "jobs" / ".new-left"
    gone.mkdir()
    (gone / "upload").write_bytes(b"a person")
    assert uploads.uploads_on_their_way(service.state / "jobs") == 1
    assert not gone.exists()
    here.discard()
    assert uploads.uploads_on_their_way(service.state / "jobs") == 0


def test_captions_are_asked_for_only_where_something_captions(service):
    with refused(ConfigError, "captioner"):
        service.board.with_captions(service.board.new_status("pictures", by="me", before=ErasuresBefore(1, ())))


def test_compacting_is_a_job(service):
    service.start()
    job = service.board.add_compaction(by="me", before=ErasuresBefore.of(service.view))
    service.board.announce()
    assert service.finished(job).state == "done"


def test_a_damaged_job_does_not_keep_others_from_being_done(service):
    bad, worse = service.send(files("a")), service.send(files("c"))
    (service.state / "jobs" / bad.job_id / "rows.json").write_text("{")
    (service.state / "jobs" / worse.job_id / "status.json").write_text("{")
    good = service.send(files("b"))
    service.start()
    assert [service.finished(each).state for each in (bad, good)] == ["failed", "done"]
    assert {each.job_id for each in service.board.page(100)[0]} == {bad.job_id, good.job_id}


def test_the_status_on_the_disk_says_its_format_and_the_vectors_are_those_of_the_pictures(service):
    service.start()
    done = service.finished(service.send(files("a"), [{"file": "a.png", "item_id": "a"}]))
    assert (
        json.loads((service.state / "jobs" / done.job_id / "status.json").read_text())["format"] == versions.FORMATS["service_job"].current
    )
    np.testing.assert_allclose(service.view.vectors(["a"])[0], PlainEncoder().encode_images([picture_of("a")])[0], atol=1e-6)
