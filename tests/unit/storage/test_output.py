import json

import pyarrow as pa
import pytest
from refusals import refused

from reid_ray.config import Section
from reid_ray.config.common import OutputConfig, RayConfig
from reid_ray.errors import DataError
from reid_ray.records import HITS, IMAGES, conform, table_of
from reid_ray.storage import JobOutput, TableWriter, iter_table, parquet_files, read_manifest, read_table, run_of


class Config(Section):
    number: int = 1


class Job(Config):
    output: OutputConfig
    ray: RayConfig = RayConfig()


def _rows(start: int, stop: int) -> pa.Table:
    return table_of(IMAGES, [{"image_id": f"i{k}", "person_id": k} for k in range(start, stop)])


def test_output_appears_whole_with_its_manifest(tmp_path):
    with JobOutput("test", tmp_path / "out", Config(), inputs={"images": "here"}) as out:
        with TableWriter(out.folder / "images", IMAGES, rows_per_part=3) as writer:
            for start in range(0, 10, 2):
                writer.append(_rows(start, start + 2))
        out.counts.read, out.counts.written = 11, 10
        out.counts.unused["truncated"] += 1
        assert not (tmp_path / "out").exists()
    assert read_table(tmp_path / "out" / "images", IMAGES).column("person_id").to_pylist() == list(range(10))
    manifest = read_manifest(tmp_path / "out")
    assert manifest["counts"] == {"read": 11, "written": 10, "failed": {"truncated": 1}, "left_out": {}}
    assert manifest["config"] == {"number": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_failing_job_leaves_the_old_result_and_nothing_else(tmp_path):
    with JobOutput("test", tmp_path / "out", Config()) as out:
        (out.folder / "file").write_text("old")
    with pytest.raises(RuntimeError), JobOutput("test", tmp_path / "out", Config(), if_exists="replace") as out:
        (out.folder / "file").write_text("new")
        raise RuntimeError
    assert (tmp_path / "out" / "file").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_an_existing_output_is_refused_replaced_or_reused(tmp_path):
    path = tmp_path / "out"
    with JobOutput("test", path, Config()):
        pass
    with refused(DataError, str(path), "output.if_exists"):
        JobOutput("test", path, Config())
    assert JobOutput("test", path, Config(), if_exists="reuse").finished()["job"] == "test"
    assert JobOutput("test", path, Config(number=2), if_exists="reuse").finished() is None
    for if_exists in ("reuse", "replace"):
        with refused(DataError, str(path), "job test", "output.path"):
            JobOutput("other", path, Config(), if_exists=if_exists)
    assert JobOutput("test", path, Config(), if_exists="replace").finished() is None


def test_a_result_of_an_input_that_was_made_again_is_not_reused(tmp_path):
    def make(name, inputs):
        with JobOutput(name, tmp_path / name, Config(), if_exists="replace", inputs=inputs) as out:
            (out.folder / "images").mkdir()

    def reusable():
        return JobOutput("index", tmp_path / "index", Config(), if_exists="reuse", inputs=inputs).finished() is not None

    inputs = {"images": str(tmp_path / "crops" / "images"), "pattern": "street", "limit": 3}
    make("crops", {})
    make("index", inputs)
    assert reusable()
    make("crops", {})
    assert not reusable()


class Several(Section):
    left: int = 1
    inner: Config = Config()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda out, inputs: (Several(left=2), inputs), "its configuration had another left"),
        (lambda out, inputs: (Several(inner=Config(number=3)), inputs), "its configuration had another inner.number"),
        (lambda out, inputs: (out.parent / "images" / "b").write_text("new") and (Several(), inputs), "what lies at images has changed"),
        (lambda out, inputs: (Several(), inputs | {"model": "r2"}), "another revision of an input is there now"),
        (lambda out, inputs: (out / "rows").unlink() or (Several(), inputs), "its rows is missing"),
    ],
)
def test_what_is_made_anew_where_reuse_was_asked_for_says_why(tmp_path, capsys, change, why):
    (tmp_path / "images").mkdir()
    inputs = {"images": str(tmp_path / "images"), "model": "r1"}
    with JobOutput("test", tmp_path / "out", Several(), inputs=inputs) as out:
        (out.folder / "rows").write_text("1")
    config, inputs = change(tmp_path / "out", inputs)
    assert JobOutput("test", tmp_path / "out", config, if_exists="reuse", inputs=inputs).kept() is None
    assert capsys.readouterr().out == f"test: {tmp_path / 'out'} is made anew: {why}\n"


def test_a_jobs_own_reason_makes_a_result_anew(tmp_path, capsys):
    with JobOutput("test", tmp_path / "out", Config()):
        pass
    again = JobOutput("test", tmp_path / "out", Config(), if_exists="reuse")
    assert again.kept(stale=lambda manifest: f"{manifest['job']} has more to do") is None
    assert "is made anew: test has more to do" in capsys.readouterr().out
    assert again.kept()["job"] == "test"


def test_a_folder_that_is_no_job_output_is_never_replaced(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.jpg").write_text("x")
    with refused(DataError, "mine.jpg", "output.path"):
        JobOutput("test", tmp_path / "photos", Config(), if_exists="replace")


def test_tables_are_held_to_their_schema(tmp_path):
    with refused(DataError, "colour", "image_id"):
        table_of(IMAGES, [{"image_id": "a", "colour": "red"}])
    with refused(DataError, "image_id"):
        table_of(IMAGES, [{"person_id": 1}])
    with refused(DataError, "there", "person_id", "int64"):
        conform(pa.table({"image_id": ["a"], "person_id": ["x"]}), IMAGES, origin="there")
    with refused(DataError, "there", "query_id"):
        conform(pa.table({"rank": [1]}), HITS, origin="there")


def test_missing_broken_and_empty_inputs_are_named(tmp_path):
    with refused(DataError, str(tmp_path / "no")):
        read_table(tmp_path / "no", IMAGES)
    (tmp_path / "empty").mkdir()
    with refused(DataError, str(tmp_path / "empty"), "*.parquet"):
        read_table(tmp_path / "empty", IMAGES)
    (tmp_path / "bad.parquet").write_text("not parquet")
    with refused(DataError, str(tmp_path / "bad.parquet")):
        list(iter_table(tmp_path / "bad.parquet", IMAGES))
    with refused(DataError, str(tmp_path / "empty" / "manifest.json"), "run that job"):
        read_manifest(tmp_path / "empty")
    (tmp_path / "empty" / "manifest.json").write_text("{")
    with refused(DataError, str(tmp_path / "empty" / "manifest.json"), "JSON"):
        read_manifest(tmp_path / "empty")


def test_an_empty_table_keeps_its_schema_on_disk(tmp_path):
    with TableWriter(tmp_path / "t", IMAGES):
        pass
    assert read_table(tmp_path / "t", IMAGES).schema == IMAGES


def test_manifest_is_plain_json_that_names_the_machine(tmp_path):
    with JobOutput("test", tmp_path / "out", Config()):
        pass
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["environment"]["cpu_count"] >= 1
    assert "pyarrow" in manifest["environment"]["versions"]


def test_what_a_job_says_of_an_input_that_is_no_place_must_be_the_same_for_a_result_to_be_kept(tmp_path, capsys):
    def output(revision):
        inputs = {"model": {"model": "a/b", "revision": revision}}
        return JobOutput("test", tmp_path / "out", Config(), if_exists="reuse", inputs=inputs)

    with output("1") as out:
        out.counts.read = out.counts.written = 3
    assert output("1").kept()["counts"]["read"] == 3
    assert "kept: " in capsys.readouterr().out
    assert output("2").kept() is None


def test_home_is_home_for_tables_and_manifests_that_are_named_in_python(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with JobOutput("test", "~/out", Config()) as out, TableWriter(out.folder / "t", IMAGES) as table:
        table.append(_rows(0, 1))
    assert [file.store.local_path() for file in parquet_files("~/out/t")] == [tmp_path / "out" / "t"]
    assert run_of("~/out/t") == read_manifest("~/out")["run_id"] is not None


def test_where_a_result_goes_and_where_it_is_worked_out_is_no_part_of_what_it_is(tmp_path):
    def job(number, if_exists, name="out", cpus=8):
        return Job(number=number, output=OutputConfig(path=str(tmp_path / name), if_exists=if_exists), ray=RayConfig(local_cpus=cpus))

    def output(config):
        return JobOutput("test", config.output.path, config, if_exists=config.output.if_exists)

    with output(job(1, "refuse")):
        pass
    assert output(job(1, "reuse")).finished() is not None
    assert output(job(1, "reuse", cpus=2)).finished() is not None
    assert output(job(2, "reuse")).finished() is None
    (tmp_path / "out").rename(tmp_path / "moved")
    assert output(job(1, "reuse", name="moved")).finished() is not None
