"""A service's writer: opened when needed, given back when idle and now and then, one change after the other, seen at once."""

import threading
import time

import pytest
from gallery_to_kill import DIM, ids, living, remnants, table
from refusals import refused

from reid_ray.errors import ConfigError, DataError
from reid_ray.gallery import deadlines, gallery_writer
from reid_ray.gallery.config import GalleryConfig
from reid_ray.gallery.erasure import read_receipt
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.gallery.gallery_writer import GalleryWriter, create_gallery
from reid_ray.serve.operations import writer_turns
from reid_ray.serve.operations.config import WritingConfig
from reid_ray.serve.operations.writer_turns import BusyError, WriterTurns
from reid_ray.storage.lock import OutputLock


@pytest.fixture
def folder(tmp_path):
    create_gallery(tmp_path / "gallery", dim=DIM, encoder="e")
    with GalleryWriter(tmp_path / "gallery") as writer:
        writer.add(table(1, 2, 3), encoder="e")
    return tmp_path / "gallery"


def deleting(*numbers):
    return lambda writer: writer.delete(ids(*numbers))


def test_a_change_is_seen_by_the_readers_of_the_process_when_it_is_done(folder):
    reader = GalleryView(folder)
    with WriterTurns(folder, WritingConfig(), changed=reader.refresh) as turns:
        assert turns.ask(deleting(2)).result() == 1
        assert living(reader) == {1, 3}


def test_the_gallery_is_given_back_when_nothing_was_written_for_a_while(folder):
    with WriterTurns(folder, WritingConfig(idle_s=0.05)) as turns:
        turns.ask(deleting(1)).result()
        with pytest.raises(DataError):
            GalleryWriter(folder)
        with GalleryWriter(folder, wait_s=5.0) as other:
            other.delete(ids(2))
        assert turns.ask(lambda writer: len(writer.view)).result() == 1


def test_a_change_that_another_process_keeps_from_beginning_is_told_so_in_time(folder):
    with WriterTurns(folder, WritingConfig(wait_s=0.2)) as turns:
        with GalleryWriter(folder):
            started = time.monotonic()
            with pytest.raises(BusyError, match=r"busy: .*process \d+"):
                turns.ask(deleting(1)).result()
            assert 0.1 < time.monotonic() - started < 2.0
        assert turns.ask(deleting(1)).result() == 1


def test_two_services_that_always_have_something_to_write_take_turns(folder):
    config = WritingConfig(idle_s=0.2, turn_s=0.05, wait_s=20.0)
    with WriterTurns(folder, config) as one, WriterTurns(folder, config) as two:
        over = threading.Event()

        def busy():
            while not over.is_set():
                one.ask(lambda writer: writer.delete(["nobody"])).result()

        thread = threading.Thread(target=busy)
        thread.start()
        try:
            assert [two.ask(deleting(number)).result(timeout=15) for number in (1, 2, 3)] == [1, 1, 1]
        finally:
            over.set()
            thread.join()


def test_more_changes_than_may_wait_are_refused_at_once(folder):
    go = threading.Event()
    with WriterTurns(folder, WritingConfig(most_waiting=2)) as turns:
        turns.ask(lambda writer: go.wait(10))
        time.sleep(0.05)
        waiting = [turns.ask(deleting(1)) for _ in range(2)]
        with refused(BusyError, "2 changes wait"):
            turns.ask(deleting(1))
        go.set()
        assert [each.result() for each in waiting] == [1, 0]


def test_a_change_that_fails_is_told_and_the_next_one_is_done(folder):
    with WriterTurns(folder, WritingConfig()) as turns:
        for error in (OSError("disk full"), ConfigError("no")):

            def fail(writer, error=error):
                raise error

            with pytest.raises(type(error)):
                turns.ask(fail).result()
        assert turns.ask(deleting(3)).result() == 1


def test_long_work_keeps_the_gallery_open_and_others_write_beside_it(folder):
    with WriterTurns(folder, WritingConfig(idle_s=0.0, turn_s=0.01)) as turns:
        with turns.kept_open() as writer:
            assert turns.ask(deleting(1)).result() == 1
            time.sleep(0.1)
            writer.compact()
            assert len(writer.view) == 2
        with GalleryWriter(folder, wait_s=5.0) as other:
            assert len(other.view) == 2


@pytest.fixture
def soon(tmp_path, monkeypatch):
    """A gallery in which an erasure has twenty seconds, and is begun after one, so that a busy machine is in time."""
    monkeypatch.setattr(writer_turns, "READER_SHARE", 1 / 20)
    monkeypatch.setattr(gallery_writer, "WRITER_SHARE", 1 / 20)
    monkeypatch.setattr(deadlines, "_LOOK_S", 0.1)
    create_gallery(tmp_path / "soon", dim=DIM, encoder="e", config=GalleryConfig(erase_within_hours=20 / 3600))
    with GalleryWriter(tmp_path / "soon") as writer:
        writer.add(table(1, 2, 3), encoder="e")
    return tmp_path / "soon"


def erased_in_time(folder):
    """Whether there is a receipt before the deadline, and no generation names the erased item any more."""
    reader = GalleryView(folder)
    deadline = next(each.deadline for each in reader.erasures)
    while time.time() < deadline:
        reader.refresh()
        if not reader.erasures and not remnants(folder, {2}):
            return read_receipt(folder, "one") is not None
        time.sleep(0.02)
    return False


@pytest.mark.slow  # it waits
def test_erasures_are_carried_out_in_time_by_one_of_two_services_though_nobody_writes(soon):
    with WriterTurns(soon, WritingConfig(idle_s=0.0)) as one, WriterTurns(soon, WritingConfig(idle_s=0.0)) as two:
        timers = [turns.keep_deadlines(GalleryView(soon)) for turns in (one, two)]
        with GalleryWriter(soon) as writer:
            writer.erase(ids(2), request="one")
        assert erased_in_time(soon)
        for timer in timers:
            timer.close()


@pytest.mark.slow  # it waits
def test_a_service_that_may_not_write_says_so_and_tries_again(soon, monkeypatch, capsys):
    monkeypatch.setattr(deadlines, "_AGAIN_S", 0.05)
    with WriterTurns(soon, WritingConfig(idle_s=0.0, wait_s=0.1)) as turns:
        with GalleryWriter(soon) as writer:
            writer.erase(ids(2), request="one")
        other = OutputLock(soon, "gallery")
        other.acquire()
        timer = turns.keep_deadlines(GalleryView(soon))
        time.sleep(2)
        assert remnants(soon, {2})
        assert str(soon) in capsys.readouterr().out
        other.release()
        assert erased_in_time(soon)
        timer.close()
