"""An old result passes for new only if everything that it was made from has the same content."""

import json
import os
import shutil

import pytest

from reid_ray.config import Section
from reid_ray.config.common import OutputConfig
from reid_ray.config.paths import LocalPath, PathOrName
from reid_ray.storage import JobOutput, output
from reid_ray.storage.provenance import content_of, run_of


class Config(Section):
    images: LocalPath
    tables: tuple[LocalPath, ...] = ()
    encoder: PathOrName | None = None
    split: str = "train"
    output: OutputConfig


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "crops" / "cam1").mkdir(parents=True)
    for name in ("a.jpg", "cam1/b.jpg"):
        (tmp_path / "crops" / name).write_bytes(b"picture")
    model("trained", weights=b"one")
    table("people", rows=b"rows")
    return tmp_path


def model(name, *, weights, inner="model"):
    """A training run's output, with a manifest of its own in the model's folder, which names no run."""
    with JobOutput("train", name, Config(images="x", output={"path": name}), if_exists="replace") as out:
        (out.folder / inner).mkdir()
        (out.folder / inner / "model.safetensors").write_bytes(weights)
        (out.folder / inner / "config.json").write_text("{}")
        (out.folder / inner / "manifest.json").write_text(json.dumps({"kind": "dual-encoder", "when": out._run_id}))


def table(name, *, rows):
    with JobOutput("ingest", name, Config(images="x", output={"path": name}), if_exists="replace") as out:
        (out.folder / "images").mkdir()
        (out.folder / "images" / "part-00000.parquet").write_bytes(rows)


def evaluation(**changes):
    values = {"images": "crops", "tables": ["people/images"], "encoder": "trained/model", "output": {"path": "evaluation"}}
    config = Config.model_validate({**values, **changes})
    return JobOutput("evaluate", config.output.path, config, if_exists="reuse")


def reusable(**changes):
    return evaluation(**changes).finished() is not None


CHANGES = {
    "a crop is deleted": lambda home: (home / "crops" / "cam1" / "b.jpg").unlink(),
    "a crop is added": lambda home: (home / "crops" / "c.jpg").write_bytes(b"x"),
    "a crop is written anew": lambda home: (home / "crops" / "a.jpg").write_bytes(b"another"),
    "a crop is renamed": lambda home: os.rename(home / "crops" / "a.jpg", home / "crops" / "z.jpg"),
    "a crop may be read again": lambda home: (home / "crops" / "a.jpg").chmod(0o640),
    "the model is trained again under the same path": lambda home: model("trained", weights=b"two"),
    "weights are copied over": lambda home: (home / "trained" / "model" / "model.safetensors").write_bytes(b"two"),
    "a table of a list is made again": lambda home: table("people", rows=b"rows"),
    "a file of the result is gone": lambda home: (home / "evaluation" / "result").unlink(),
    "a file of the result is cut off": lambda home: (home / "evaluation" / "result").write_text("sc"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_result_is_made_again_after(change, home):
    with evaluation() as out:
        (out.folder / "result").write_text("score")
    assert reusable()
    CHANGES[change](home)
    assert not reusable()


def test_a_result_is_kept_while_nothing_changes_that_it_was_made_from(home):
    with evaluation() as out:
        (out.folder / "result").write_text("score")
    (home / "train").mkdir()  # a folder with the name of a split is no input
    model("trained", weights=b"one")  # the same weights, trained anew
    (home / "evaluation" / "notes.txt").write_text("mine")
    assert reusable()
    assert not reusable(split="val")


def test_weights_of_the_same_size_and_time_of_change_are_told_apart(home):
    weights = home / "trained" / "model" / "model.safetensors"
    before, stat = content_of(home / "trained" / "model"), weights.stat()
    weights.write_bytes(b"two")
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    shutil.copytree(home / "trained" / "model", home / "copy")
    assert content_of(home / "copy") != before


def test_what_changes_between_the_start_and_the_reading_makes_the_result_old(home):
    with evaluation() as out:
        (home / "crops" / "late.jpg").write_bytes(b"x")
        (out.folder / "result").write_text("score")
    assert not reusable()


def test_a_place_is_listed_once_whatever_it_is_called_and_not_at_all_where_the_job_knows_what_it_holds(home, monkeypatch):
    listed = []

    def count(path):
        listed.append(path.name)
        return content_of(path)

    monkeypatch.setattr(output, "content_of", count)
    config = Config.model_validate({"images": "crops", "tables": ["people/images"], "output": {"path": "index"}})
    plain = JobOutput("index", "index", config, inputs={"rows": "crops"}).provenance
    assert sorted(listed) == ["crops", "images"]
    assert plain["rows"] == plain["images"] == content_of(home / "crops")
    listed.clear()
    told = JobOutput("index", "index", config, inputs={"rows": "crops"}, contents={"images": "as the job says"}).provenance
    assert listed == ["images"]
    assert told == {**plain, "rows": "as the job says", "images": "as the job says"}


def test_the_run_of_a_path_is_that_of_the_nearest_job_above_whoever_else_has_a_manifest(home):
    (home / "manifest.json").write_text('{"name": "a web page"}')
    run = json.loads((home / "trained" / "manifest.json").read_text())["run_id"]
    for path in ("trained", "trained/model", "trained/model/model.safetensors", str(home / "trained" / "model")):
        assert run_of(path) == run
    assert run_of("crops") is None
    assert run_of("street") is None


def test_links_in_circles_end(home):
    (home / "crops" / "cam1" / "up").symlink_to("..")
    (home / "crops" / "self").symlink_to("self")
    (home / "crops" / "gone").symlink_to("nowhere")
    assert content_of(home / "crops") == content_of(home / "crops")
