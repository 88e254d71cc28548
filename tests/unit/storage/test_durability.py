"""In what order a result and a file come to the disk: bytes, then the names of what is in a folder, then the name that readers see."""

import os
import sys

import pytest

from reid_ray.config import Section
from reid_ray.storage import JobOutput, write_durably
from reid_ray.storage import place as places


class Config(Section):
    number: int = 1


_recorders = []
sys.addaudithook(lambda event, arguments: [record(event, arguments) for record in _recorders])


@pytest.fixture
def record():
    """The synced and renamed names, in order; syncing is believed only if the system's own fsync follows."""
    events, real = [], os.fsync

    def note(event, arguments):
        if event == "os.rename":
            events.append(("rename", os.path.basename(os.fspath(arguments[0])), os.path.basename(os.fspath(arguments[1]))))
        if event == "reid_ray.exchange":
            events.append(("rename", os.path.basename(arguments[0]), os.path.basename(arguments[1])))

    def fsync(descriptor):
        events.append(("fsync", os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))))
        real(descriptor)

    _recorders.append(note)
    os.fsync = fsync
    yield events
    os.fsync = real
    _recorders.remove(note)


def test_a_durable_file_is_synced_before_it_has_its_name_and_the_name_after(tmp_path, record):
    write_durably(tmp_path / "block", lambda hidden: hidden.write_bytes(b"rows"))
    assert [event[0] for event in record] == ["fsync", "rename", "fsync"]
    hidden = record[0][1]
    assert record[1:] == [("rename", hidden, "block"), ("fsync", tmp_path.name)]


@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize("again", [False, True])
def test_a_result_is_on_the_disk_before_it_has_its_name_and_the_name_before_the_older_one_goes(
    exchange, again, tmp_path, record, monkeypatch
):
    if not exchange:
        monkeypatch.setattr(places, "exchange", lambda one, other: False)
    for number in (1, 2) if again else (1,):
        record.clear()
        with JobOutput("test", tmp_path / "out", Config(number=number), if_exists="replace") as out:
            (out.folder / "deep").mkdir()
            (out.folder / "deep" / "rows").write_text("x")
    at = {event: place for place, event in enumerate(record)}
    appears = max(place for event, place in at.items() if event[0] == "rename" and "out" in event[1:])
    for name in ("rows", "deep", "manifest.json", ".reid_ray", out.folder.name):
        assert at["fsync", name] < appears
    assert at["fsync", "rows"] < at["fsync", "deep"] < at["fsync", out.folder.name]
    assert record.index(("fsync", tmp_path.name), appears) > appears


def test_many_files_are_synced_with_their_file_system_at_once(tmp_path, monkeypatch, record):
    monkeypatch.setattr("reid_ray.storage.files._SYNCED_ONE_BY_ONE", 3)
    with JobOutput("test", tmp_path / "out", Config()) as out:
        for number in range(9):
            (out.folder / str(number)).write_text("x")
    assert not [event for event in record if event == ("fsync", "5")]
    assert (tmp_path / "out" / "5").read_text() == "x"
