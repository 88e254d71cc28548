"""What may be written where: nothing that a user owns is in danger, and what is in the way is named before the work."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from refusals import refused

from reid_ray.config import Section
from reid_ray.config.paths import LocalPath
from reid_ray.errors import DataError
from reid_ray.storage import JobOutput, run_of
from reid_ray.storage import place as places


class Config(Section):
    number: int = 1
    source: LocalPath | None = None


def make(path, *, job="test", number=1, if_exists="replace", text=None, source=None):
    with JobOutput(job, path, Config(number=number, source=source), if_exists=if_exists) as out:
        (out.folder / "table").mkdir()
        (out.folder / "table" / "rows").write_text(text or f"rows of {number}")
    return out


def rows(path):
    return (path / "table" / "rows").read_text()


def beside(path):
    return sorted(entry.name for entry in path.parent.iterdir())


@pytest.mark.parametrize("if_exists", ["replace", "reuse"])
@pytest.mark.parametrize(
    ("name", "content"),
    [("thesis.txt", "years"), ("manifest.json", '{"name": "my app"}'), ("deep/down/photo.jpg", "x"), (".reid_ray", "not ours")],
)
def test_a_folder_that_no_job_made_is_never_replaced(if_exists, name, content, tmp_path):
    mine = tmp_path / "out" / name
    mine.parent.mkdir(parents=True)
    mine.write_text(content)
    with refused(DataError, str(tmp_path / "out"), mine.relative_to(tmp_path / "out").parts[0], "output.path"):
        make(tmp_path / "out", if_exists=if_exists)
    assert mine.read_text() == content
    assert beside(tmp_path / "out") == ["out"]


@pytest.mark.parametrize("if_exists", ["replace", "reuse"])
@pytest.mark.parametrize("name", ["notes.txt", "table/notes.txt", "new/notes.txt", ".hidden", "link"])
def test_a_file_that_the_job_did_not_write_keeps_its_output_and_is_named(if_exists, name, tmp_path):
    make(tmp_path / "out")
    mine = tmp_path / "out" / name
    mine.parent.mkdir(exist_ok=True)
    if name == "link":
        mine.symlink_to("/nowhere")
    else:
        mine.write_text("mine")
    with refused(DataError, name):
        make(tmp_path / "out", number=2, if_exists=if_exists)
    assert os.path.lexists(mine)
    assert rows(tmp_path / "out") == "rows of 1"


def test_a_file_of_the_job_that_was_edited_since_keeps_its_output(tmp_path):
    make(tmp_path / "out")
    (tmp_path / "out" / "table" / "rows").write_text("corrected by hand")
    with refused(DataError, "table/rows"):
        make(tmp_path / "out", number=2)
    assert rows(tmp_path / "out") == "corrected by hand"


def test_what_file_managers_leave_is_nobodys_and_a_missing_file_is_no_obstacle(tmp_path):
    make(tmp_path / "out")
    (tmp_path / "out" / "table" / ".DS_Store").write_text("x")
    (tmp_path / "out" / "table" / "rows").unlink()
    make(tmp_path / "out", number=2)
    assert rows(tmp_path / "out") == "rows of 2"
    assert beside(tmp_path / "out") == ["out"]


def test_only_the_job_that_made_an_output_replaces_it(tmp_path):
    make(tmp_path / "out", job="ingest")
    for if_exists in ("replace", "reuse"):
        with refused(DataError, "ingest", "lint"):
            make(tmp_path / "out", job="lint", if_exists=if_exists)
    make(tmp_path / "out", job="ingest", number=2, if_exists="reuse")
    assert rows(tmp_path / "out") == "rows of 2"


@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize("if_exists", ["refuse", "replace"])
@pytest.mark.parametrize("what", ["folder", "file"])
def test_what_appears_at_the_place_while_the_job_runs_stays_and_the_result_is_kept_beside(exchange, if_exists, what, tmp_path, monkeypatch):
    if not exchange:
        monkeypatch.setattr(places, "exchange", lambda one, other: False)
    with (
        refused(DataError, "output.", "out.kept-") as error,
        JobOutput("test", tmp_path / "out", Config(), if_exists=if_exists) as out,
    ):
        (out.folder / "rows").write_text("hours of work")
        if what == "folder":
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "mine.txt").write_text("mine")
        else:
            (tmp_path / "out").write_text("mine")
    assert (tmp_path / "out" / "mine.txt" if what == "folder" else tmp_path / "out").read_text() == "mine"
    kept = next(entry for entry in tmp_path.iterdir() if entry.name.startswith("out.kept-"))
    assert kept.name in str(error.value)
    assert (kept / "rows").read_text() == "hours of work"
    assert beside(tmp_path / "out") == ["out", kept.name]


def test_two_runs_of_one_output_are_not_alive_together_and_a_neighbour_is_not_disturbed(tmp_path):
    with JobOutput("test", tmp_path / "caps.v2", Config()) as neighbour, JobOutput("test", tmp_path / "caps", Config()) as out:
        with refused(DataError, str(tmp_path / "caps"), str(os.getpid()), "wait"):
            make(tmp_path / "caps")
        with ThreadPoolExecutor(1) as pool, refused(DataError, str(tmp_path / "caps"), str(os.getpid())):
            pool.submit(make, tmp_path / "caps").result()
        assert neighbour.folder.is_dir()
        assert out.folder.is_dir()
    assert beside(tmp_path / "caps") == ["caps", "caps.v2"]


def test_links_are_resolved_once_and_survive(tmp_path):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "scratch" / "new")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    for name, target in (("dangling", tmp_path / "scratch" / "new"), ("link", tmp_path / "empty")):
        for number in (1, 2):
            assert make(tmp_path / name, number=number).path == target
        assert (tmp_path / name).is_symlink()
        assert rows(target) == "rows of 2"
    assert beside(tmp_path / "scratch") == ["dangling", "empty", "link", "scratch"]
    assert beside(tmp_path / "scratch" / "new") == ["new"]


def test_home_is_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert make("~/runs/out").path == tmp_path / "home" / "runs" / "out"
    assert not (tmp_path / "~").exists()


def test_places_that_cannot_be_written_are_refused_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    (tmp_path / "source" / "inner").mkdir(parents=True)
    (tmp_path / "source" / "inner" / "a.jpg").write_text("x")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("readonly"))  # root may write anywhere but there
    (tmp_path / "readonly").mkdir()
    for path, said in {
        tmp_path / "file": ("/file", "output.path"),
        tmp_path / "file" / "out": ("/file", "output.path"),
        tmp_path / ("x" * 250): ("output.path",),
        tmp_path / "readonly" / "new" / "out": ("/readonly", "output.path"),
        ".": ("output.path",),
        "..": ("output.path",),
        "/": ("output.path",),
        tmp_path / ".out.lock": (".out.lock", "output.path"),
    }.items():
        with refused(DataError, *said):
            JobOutput("test", path, Config(), if_exists="reuse")
    for path in (tmp_path / "source", tmp_path / "source" / "inner"):
        with refused(DataError, "source", "output.path"):
            JobOutput("test", path, Config(source=str(tmp_path / "source" / "inner")), if_exists="replace")


def test_a_finished_result_is_reused_where_nothing_can_be_written(tmp_path, monkeypatch):
    make(tmp_path / "out")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert JobOutput("test", tmp_path / "out", Config(), if_exists="reuse").finished() is not None
    with refused(DataError, str(tmp_path), "output.path"):
        make(tmp_path / "out", number=2)


@pytest.mark.parametrize("line", ["12", 'x\t"a"', "1\tno json"])
def test_a_damaged_list_of_files_keeps_the_output_and_is_named(line, tmp_path):
    make(tmp_path / "out")
    with (tmp_path / "out" / ".reid_ray").open("a") as file:
        file.write(line + "\n")
    with refused(DataError, ".reid_ray", "line 4"):
        make(tmp_path / "out", number=2)
    assert rows(tmp_path / "out") == "rows of 1"


def test_a_text_that_was_mended_by_one_letter_keeps_its_output(tmp_path):
    with JobOutput("test", tmp_path / "out", Config(), if_exists="replace") as out:
        (out.folder / "report.md").write_text("R@1 34.1 %")
    (tmp_path / "out" / "report.md").write_text("R@1 34.7 %")
    assert JobOutput("test", tmp_path / "out", Config(), if_exists="reuse").finished() is None
    with refused(DataError, "report.md"):
        make(tmp_path / "out", number=2)
    assert (tmp_path / "out" / "report.md").read_text() == "R@1 34.7 %"


@pytest.mark.parametrize("exchange", [True, False])
def test_a_replaced_result_that_cannot_be_removed_is_named_and_the_newer_one_stands(exchange, tmp_path, monkeypatch, capsys):
    make(tmp_path / "out")
    if not exchange:
        monkeypatch.setattr(places, "exchange", lambda one, other: False)

    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(places, "remove_listed", refuse)
    make(tmp_path / "out", number=2)
    left = next(entry for entry in tmp_path.iterdir() if entry.name.startswith("out.left-"))
    assert rows(tmp_path / "out") == "rows of 2"
    assert rows(left) == "rows of 1"
    assert left.name in capsys.readouterr().out
    assert beside(tmp_path / "out") == ["out", left.name]


@pytest.mark.parametrize("kind", ["text", "pipe", "link", "link to nothing yet", "hard link", "folder", "json"])
def test_what_lies_at_the_locks_place_and_is_no_lock_is_left_alone_and_named(kind, tmp_path):
    lock, mine = tmp_path / ".out.lock", tmp_path / "thesis.txt"
    mine.write_text("years")
    {
        "text": lambda: lock.write_text("my notes"),
        "json": lambda: lock.write_text('{"mine": 1}'),
        "pipe": lambda: os.mkfifo(lock),
        "link": lambda: lock.symlink_to(mine),
        "link to nothing yet": lambda: lock.symlink_to(tmp_path / "new.txt"),
        "hard link": lambda: os.link(mine, lock),
        "folder": lock.mkdir,
    }[kind]()
    with refused(DataError, ".out.lock", "output.path"):
        make(tmp_path / "out")
    assert mine.read_text() == "years"
    assert os.path.lexists(lock)
    assert not (tmp_path / "new.txt").exists()
    assert kind != "text" or lock.read_text() == "my notes"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [".reid_ray", "manifest.json"])
@pytest.mark.parametrize(
    "text", [None, "null", "5", "[" * 200_000, '{"made_by": "reid_ray", "format": 1, "whole": true}'], ids=lambda text: str(text)[:9]
)
def test_odd_marks_and_manifests_hang_nothing_and_are_no_marks(name, text, tmp_path):
    (tmp_path / "out").mkdir()
    if text is None:
        os.mkfifo(tmp_path / "out" / name)
    else:
        (tmp_path / "out" / name).write_text(text)
    with refused(DataError, str(tmp_path / "out"), name, "output.path"):
        make(tmp_path / "out")
    assert run_of(tmp_path / "out" / "below") is None


def test_what_dead_runs_left_is_cleared_and_what_is_not_ours_stays(tmp_path):
    make(tmp_path / "out")
    dead = JobOutput("test", tmp_path / "out", Config(), if_exists="replace")
    dead._place.folder.mkdir()
    places.write_mark(dead.folder, {"job": "test"}, listed=False)
    (dead.folder / "half").write_text("x")
    (tmp_path / ".out.lock").write_text('{"job": "test", "host": "gone", "pid": 1, "since": "then"}')
    (tmp_path / ".out.v2.12345678.partial").mkdir()
    (tmp_path / ".out.12345678.partial").mkdir()
    (tmp_path / ".out.12345678.partial" / "unmarked").write_text("an older version's, or anybody's")
    make(tmp_path / "out", number=2)
    assert beside(tmp_path / "out") == [".out.12345678.partial", ".out.v2.12345678.partial", "out"]
