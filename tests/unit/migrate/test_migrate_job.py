"""The migrate job: what it changes, what it leaves alone, what it refuses; and every reader refuses what a newer version wrote."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import pytest
import yaml
from kill_points import outcomes
from refusals import refused

from reid_ray import versions
from reid_ray.caption.ledger.write_ahead_log import open_ledger
from reid_ray.caption.mine.patterns import load_templates
from reid_ray.caption.prompts import TEMPLATES
from reid_ray.caption.refilter.config import RefilterJob
from reid_ray.caption.refilter.job import run_refilter
from reid_ray.cli.run_job import run_job
from reid_ray.config.base import Section
from reid_ray.config.common import ImagesConfig
from reid_ray.data.failures import FAILURES
from reid_ray.data.formats.config import SourceConfig
from reid_ray.data.formats.generic.parquet import read_parquet
from reid_ray.data.seen_rows import seen_by
from reid_ray.data.sources import image_listing
from reid_ray.data.synthetic.config import SynthesizeJob
from reid_ray.data.synthetic.job import run_synthesize
from reid_ray.edit.verify.attribute_reader import AttributeReader
from reid_ray.edit.verify.config import ReaderConfig
from reid_ray.edit.verify.verifier import load_reader, save_reader
from reid_ray.errors import DataError
from reid_ray.gallery.bulk.erased_since import ErasuresBefore
from reid_ray.gallery.erasure import read_receipt
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.gallery.gallery_writer import GalleryWriter, create_gallery
from reid_ray.migrate import job as migration
from reid_ray.migrate.config import MigrateJob
from reid_ray.migrate.file_upgrades import versioned_files
from reid_ray.migrate.format_steps import JSON_STEPS, REGENERATED, TABLE_STEPS
from reid_ray.migrate.job import run_migrate
from reid_ray.model.editor.editor_folder import open_editor
from reid_ray.model.mllm.model_folder import read_tuned
from reid_ray.model.model_files import resolve_model
from reid_ray.model.pretrained import load_encoder
from reid_ray.records import CAPTIONS, EDITS, EMBEDDINGS, HITS, IMAGES, REFERENCES, SEEN, SEGMENTS, table_of
from reid_ray.retrieval.evaluate.job import evaluated_queries, read_result
from reid_ray.serve.access.roles import AccessRole
from reid_ray.serve.access.tokens.token_file import create_token, read_tokens
from reid_ray.serve.adding.config import AddingConfig
from reid_ray.serve.adding.job_board import JobBoard
from reid_ray.serve.adding.job_folder import JobFolder
from reid_ray.serve.operations.remembered_answers import ChangeAnswer, RememberedAnswers
from reid_ray.storage import read_manifest, read_table
from reid_ray.storage.file_systems import open_store
from reid_ray.storage.listing import MARK, differences, read_mark
from reid_ray.storage.lock import OutputLock
from reid_ray.train.checkpoint.checkpoint_place import refuse_newer
from reid_ray.train.checkpoint.contents import check
from reid_ray.train.checkpoint.run_folders import Record, other_runs
from reid_ray.train.feed.prepared import read_prepared
from reid_ray.train.masking.noise_export import NOISE
from reid_ray.train.masking.noise_store import NoiseStore

SOURCE = Path(__file__).resolve().parents[2] / "golden" / "96cb249"
WORDING = next(iter(TEMPLATES.values()))
STEP = "run/checkpoints/step-00000002"


# Tables that there were none of yet when the outputs in SOURCE were written.
LATER = {"seen": SEEN, "segments": SEGMENTS, "references": REFERENCES, "edits": EDITS}


@pytest.fixture
def outputs(tmp_path) -> Path:
    shutil.copytree(SOURCE, tmp_path / "outputs")
    (tmp_path / "outputs" / "templates.yaml").write_text(f"templates:\n- {{id: a, text: '{WORDING}'}}\n")
    save_reader(AttributeReader({"upper_color": ["blue", "red"]}, ReaderConfig(hidden=8)), tmp_path / "outputs" / "verifier", {})
    shutil.copytree(resolve_model("builtin:tiny-editor", field="editor"), tmp_path / "outputs" / "editor")
    create_gallery(tmp_path / "outputs" / "gallery", dim=2, encoder="e")
    with GalleryWriter(tmp_path / "outputs" / "gallery") as writer:
        writer.erase(["nobody"], request="letter")
        writer.carry_out_erasures()
    board = JobBoard(tmp_path / "outputs" / "service", AddingConfig())
    board.add_compaction(by="me", before=ErasuresBefore(1, ()), key="once")
    asyncio.run(answered(tmp_path / "outputs"))
    create_token(tmp_path / "outputs" / "tokens.json", "anna", AccessRole.SEARCH, days=1)
    for name, schema in LATER.items():
        (tmp_path / "outputs" / name).mkdir()
        pq.write_table(table_of(schema, []), tmp_path / "outputs" / name / f"{name}.parquet")
    return tmp_path / "outputs"


async def answered(at: Path) -> ChangeAnswer:
    async def change() -> ChangeAnswer:
        return ChangeAnswer(200, {})

    return await RememberedAnswers(at / "answers").once("once", of="me", request={}, do=change)


def bump(file: Path) -> None:
    """Make `file` of the format after today's."""
    if file.suffix == ".parquet":
        table = pq.read_table(file)
        kind = {"failed": "embeddings", "rank-00000": "noise", "evaluation": "queries"}.get(file.parent.name, file.parent.name)
        stated = f"{kind} {versions.number_of(kind) + 1}".encode()
        pq.write_table(table.replace_schema_metadata({versions.TABLE_FIELD: stated}), file)
        return
    value = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}
    file.write_text(json.dumps({"made_by": "reid_ray", **value, "format": 99}), encoding="utf-8")  # JSON is YAML


def opened(output: Path) -> None:
    with open_ledger(output):
        pass


ANSWER = hashlib.sha256(b"me\0once").hexdigest()
JOB = hashlib.sha256(b"me\0once").hexdigest()[:32]
NEWER = {
    "output": ("people/manifest.json", lambda at: read_manifest(at / "people")),
    "mark": ("people/.reid_ray", lambda at: read_mark(at / "people")),
    "images": ("people/images/part-00000.parquet", lambda at: read_table(at / "people" / "images", IMAGES)),
    "images, for a job": (
        "people/images/part-00000.parquet",
        lambda at: image_listing(ImagesConfig(source="parquet", path=str(at / "people" / "images"))),
    ),
    "images, ingested": (
        "people/images/part-00000.parquet",
        lambda at: list(read_parquet(open_store(str(at / "people")), SourceConfig(format="parquet", path=str(at / "people")))),
    ),
    "captions": ("people/captions/part-00000.parquet", lambda at: read_table(at / "people" / "captions", CAPTIONS)),
    "failures": ("ingest/failures/part-00000.parquet", lambda at: read_table(at / "ingest" / "failures", FAILURES)),
    "embeddings": ("index/failed/part-00000.parquet", lambda at: read_table(at / "index" / "failed", EMBEDDINGS)),
    "hits": ("evaluation/hits/part-00000.parquet", lambda at: read_table(at / "evaluation" / "hits", HITS)),
    "noise": ("training/noise/rank-00000/part-00000.parquet", lambda at: read_table(at / "training" / "noise", NOISE)),
    "queries": ("evaluation/queries.parquet", lambda at: evaluated_queries(at / "evaluation")),
    "evaluation": ("evaluation/result.json", lambda at: read_result(at / "evaluation")),
    "seen": ("seen/seen.parquet", lambda at: list(seen_by(at / "seen"))),
    "segments": ("segments/segments.parquet", lambda at: read_table(at / "segments", SEGMENTS)),
    "references": ("references/references.parquet", lambda at: read_table(at / "references", REFERENCES)),
    "edits": ("edits/edits.parquet", lambda at: read_table(at / "edits", EDITS)),
    "encoder": ("training/model/manifest.json", lambda at: load_encoder(at / "training" / "model")),
    "mllm": ("tuning/model/manifest.json", lambda at: read_tuned(at / "tuning" / "model", field="model")),
    "verifier": ("verifier/manifest.json", lambda at: load_reader(at / "verifier")),
    "checkpoint": (f"{STEP}/manifest.json", lambda at: check(at / STEP)),
    "checkpoint, before workers start": (
        f"{STEP}/manifest.json",
        lambda at: refuse_newer(pyarrow.fs.LocalFileSystem(), str((at / STEP).parent)),
    ),
    "run": (".out.0123456789abcdef.run/run.json", lambda at: other_runs(at / "own", at / "out", storage=None)),
    "noise_levels": (f"{STEP}/noise.json", lambda at: NoiseStore(12, 32).load(at / STEP)),
    "prepared": ("run/data/facts.json", lambda at: read_prepared(at / "run" / "data")),
    "templates": ("templates.yaml", lambda at: load_templates(at / "templates.yaml")),
    "editor": ("editor/manifest.json", lambda at: open_editor(at / "editor")),
    "gallery": ("gallery/generations/00000004.json", lambda at: GalleryView(at / "gallery")),
    "receipt": ("gallery/receipts/letter.json", lambda at: read_receipt(at / "gallery", "letter")),
    "service_job": (f"service/jobs/{JOB}/status.json", lambda at: JobFolder(at / "service" / "jobs" / JOB).status()),
    "service_answer": (f"answers/{ANSWER}.json", lambda at: asyncio.run(answered(at))),
    "tokens": ("tokens.json", lambda at: read_tokens(at / "tokens.json")),
    "ledger": (".caption.ledger/format.json", lambda at: opened(at / "caption")),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", NEWER)
def test_what_a_newer_version_wrote_is_refused_by_its_file_with_exit_code_2(outputs, kind, capsys):
    name, read = NEWER[kind]
    (outputs / "ledger").rename(outputs / ".caption.ledger")
    shutil.copytree(outputs / "run", outputs / ".out.0123456789abcdef.run")
    read(outputs)
    bump(outputs / name)
    assert run_job("", Section, lambda _: read(outputs), []) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {outputs / name}: is {versions.FORMATS[kind.partition(',')[0]].what} of format ")
    assert "upgrade reid_ray" in said
    assert said.count("\n") == 1


def test_every_kind_that_is_read_again_is_refused_when_newer():
    assert {kind.partition(",")[0] for kind in NEWER} == set(versions.FORMATS) - {
        "calibration",
        "service",
        "pointer",
        "audit",
        "decisions",
    }  # which people and clients read, lies at a store, is chained (test_audit_log.py), or has lines (test_asking_people.py)


def test_each_kind_has_a_step_from_each_number_to_the_next():
    steps = {(kind, number) for kind, known in versions.FORMATS.items() for number in range(known.current) if kind not in REGENERATED}
    assert set(JSON_STEPS) | set(TABLE_STEPS) == steps


@pytest.mark.parametrize("name", ["people", "training", "tuning/model", "index", "evaluation", STEP])
def test_all_that_has_a_format_is_of_todays_and_other_files_are_the_same(outputs, name, tmp_path):
    folder = tmp_path / "alone"  # no part of an output
    (outputs / name).rename(folder)
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    dated = {folder / each.name for each in versioned_files(folder)}
    done = run_migrate(MigrateJob(path=str(folder)))
    assert sum(done["migrated"].values()) == len(dated) + 1  # and the list of files
    assert list(differences(folder)) == []
    assert not [each for each in versioned_files(folder) if each.older]
    assert {file: file.read_bytes() for file in before if file not in dated} == {f: b for f, b in before.items() if f not in dated}
    for file in dated & set(before):
        if file.suffix == ".parquet":
            assert pq.read_table(file).to_pylist() == pq.read_table(pa.BufferReader(before[file])).to_pylist()
    assert {file for file in folder.rglob("*") if file.is_file()} == set(before) | dated | {folder / MARK}
    assert [path for path in folder.parent.iterdir() if path.name.startswith(f".{folder.name}.")] == []


@pytest.mark.parametrize(("name", "job"), [("people", "synthesize"), ("index", "index"), ("training", "train"), ("caption", "caption")])
def test_somebody_elses_file_in_an_old_output_is_named_and_nothing_is_changed(outputs, name, job, capsys):
    (outputs / "ledger").rename(outputs / ".caption.ledger")
    (outputs / "manifest.json").write_text("[somebody's")
    (outputs / name / "images").mkdir(exist_ok=True)
    (outputs / name / "images" / "notes.txt").write_text("mine")
    before = {file: file.read_bytes() for file in outputs.rglob("*") if file.is_file()}
    assert run_job("", MigrateJob, run_migrate, [f"path={outputs / name}"]) == 2
    assert f"holds images/notes.txt, which the job {job} did not write" in capsys.readouterr().err
    assert {file: file.read_bytes() for file in outputs.rglob("*") if file.is_file()} == before


def test_a_part_of_an_output_names_the_output(outputs, capsys):
    assert run_job("", MigrateJob, run_migrate, [f"path={outputs / 'training' / 'model'}"]) == 2
    assert f"is a part of the output {outputs / 'training'}; give that" in capsys.readouterr().err


@pytest.mark.slow
def test_an_old_output_is_replaced_only_after_it_was_migrated(outputs, monkeypatch):
    monkeypatch.chdir(outputs)
    job = {"people": {"identities": 1, "images_per_identity": 1, "val_share": 0, "test_share": 0}}
    job |= {"output": {"path": str(outputs / "people"), "if_exists": "replace"}}
    with refused(DataError, "reid-ray migrate"):
        run_synthesize(SynthesizeJob.model_validate(job))
    assert read_table(outputs / "people" / "images", IMAGES).num_rows == 12
    run_migrate(MigrateJob(path=str(outputs / "people")))
    run_synthesize(SynthesizeJob.model_validate(job))
    assert read_table(outputs / "people" / "images", IMAGES).num_rows == 1


def test_a_migrated_output_is_made_anew_under_reuse_with_a_word(outputs, monkeypatch, capsys):
    monkeypatch.chdir(outputs)
    before = read_manifest(outputs / "people")
    config = {**before["config"], "output": {"path": str(outputs / "people"), "if_exists": "reuse"}}
    run_migrate(MigrateJob(path=str(outputs / "people")))
    made = run_synthesize(SynthesizeJob.model_validate(config))
    assert "is made anew: " in capsys.readouterr().out
    assert made["run_id"] != before["run_id"]
    assert run_synthesize(SynthesizeJob.model_validate(config))["run_id"] == made["run_id"]
    assert [row["image_sha256"] for row in read_table(outputs / "people" / "images", IMAGES).to_pylist()] == [
        row["image_sha256"] for row in read_table(SOURCE / "people" / "images", IMAGES).to_pylist()
    ]


def test_a_run_that_an_older_version_left_is_migrated_named_and_not_taken_for_another(outputs):
    folder = outputs / ".out.0123456789abcdef.run"
    (outputs / "run").rename(folder)
    (folder / "lock").touch()  # as that version left it
    assert set(run_migrate(MigrateJob(path=str(folder)))["migrated"]) == {"checkpoint", "encoder", "mark", "noise_levels", "prepared"}
    now = Record("train", {"schedule": {"checkpoint_storage": None}}, {})
    [other] = other_runs(now.folder(outputs / "out"), outputs / "out", storage=None)
    assert (other.folder, other.step) == (folder, 2)
    assert "cut off after the checkpoint of step 2" in other.sentence(now)
    lock = OutputLock(outputs / "out", "train")
    lock.acquire()
    with pytest.raises(DataError, match="another run writes this output"):
        run_migrate(MigrateJob(path=str(folder)))
    lock.release()


def test_what_writes_the_output_is_waited_for(outputs):
    lock = OutputLock(outputs / "people", "synthesize")
    lock.acquire()
    with pytest.raises(DataError, match="another run writes this output"):
        run_migrate(MigrateJob(path=str(outputs / "people")))
    lock.release()
    assert run_migrate(MigrateJob(path=str(outputs / "people")))["migrated"]


def test_what_only_its_user_may_read_stays_so(outputs):
    for path in (outputs / "people", *(outputs / "people").rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    run_migrate(MigrateJob(path=str(outputs / "people")))
    modes = {path.name: path.stat().st_mode & 0o777 for path in (outputs / "people").rglob("*") if path.name != MARK}
    assert modes == {name: 0o700 if name in ("images", "captions") else 0o600 for name in modes}
    assert (outputs / "people").stat().st_mode & 0o777 == 0o700


def test_a_migrated_checkpoint_is_whole(outputs, tmp_path):
    (outputs / STEP).rename(tmp_path / "alone")
    before = check(tmp_path / "alone")
    run_migrate(MigrateJob(path=str(tmp_path / "alone")))
    after = check(tmp_path / "alone")
    assert set(after["files"]) == {*before["files"], "noise.json"}
    assert {name for name in before["files"] if after["files"][name] != before["files"][name]} == {"model/manifest.json"}


def test_a_second_migration_changes_nothing(outputs, capsys):
    run_migrate(MigrateJob(path=str(outputs / "people")))
    before = {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in [outputs / "people", *(outputs / "people").rglob("*")]}
    capsys.readouterr()
    done = run_migrate(MigrateJob(path=str(outputs / "people")))
    assert done["migrated"] == {}
    assert "nothing to do" in capsys.readouterr().out
    assert {
        file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in [outputs / "people", *(outputs / "people").rglob("*")]
    } == before


def test_an_output_takes_its_ledger_along_and_a_ledger_goes_alone(outputs):
    (outputs / "ledger").rename(outputs / ".caption.ledger")
    shutil.copytree(outputs / ".caption.ledger", outputs / ".other.ledger")
    assert run_migrate(MigrateJob(path=str(outputs / "caption")))["migrated"] == {"captions": 1, "ledger": 1, "mark": 1, "output": 1}
    assert run_migrate(MigrateJob(path=str(outputs / ".other.ledger")))["migrated"] == {"ledger": 1}
    for name in (".caption.ledger", ".other.ledger"):
        assert json.loads((outputs / name / "format.json").read_text()) == versions.numbered("ledger")
        assert pq.read_table(outputs / name / "rows").equals(pq.read_table(SOURCE / "ledger" / "rows"))


@pytest.mark.parametrize("name", ["manifest.json", "captions/part-00000.parquet"])
def test_a_folder_that_holds_anything_newer_is_left_as_it_is(outputs, name):
    bump(outputs / "people" / name)
    before = {file: file.read_bytes() for file in outputs.rglob("*") if file.is_file()}
    assert run_job("", MigrateJob, run_migrate, [f"path={outputs / 'people'}"]) == 2
    assert {file: file.read_bytes() for file in outputs.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("exchange", [True, False], ids=["names are exchanged", "names are changed one by one"])
@pytest.mark.slow
def test_a_kill_before_any_call_leaves_the_old_output_or_the_new_one_and_a_second_migration_ends_it(exchange, tmp_path):
    found = outcomes("outputs_to_migrate", "migrate", tmp_path, exchange=exchange)
    assert len(found) >= 20
    assert [each["died"] for each in found] == [True] * (len(found) - 1) + [False]
    gap = set() if exchange else {None}  # for one moment only the next run sees the older result
    assert {each["dead"] for each in found} == {"old", "new"} | gap
    assert found[-1]["dead"] == "new"
    assert all(each["again"] == "new" and each["beside"] == ["outputs"] for each in found)


def test_what_dies_half_way_leaves_the_old_folder(outputs, monkeypatch):
    before = {file: file.read_bytes() for file in outputs.rglob("*") if file.is_file()}

    def dies(dated, source, target):
        if dated.kind == "output":
            raise OSError(28, "No space left on device")
        return write(dated, source, target)

    write = migration.write_current
    monkeypatch.setattr(migration, "write_current", dies)
    with pytest.raises(OSError, match="No space"):
        run_migrate(MigrateJob(path=str(outputs / "people")))
    (outputs / "people" / MARK).unlink()
    assert {file: file.read_bytes() for file in outputs.rglob("*") if file.is_file()} == before


def test_a_checkpoint_that_lacks_a_file_is_not_written_down_as_whole(outputs, capsys):
    (outputs / STEP / "workers" / "00000-of-00001.safetensors").unlink()
    assert run_job("", MigrateJob, run_migrate, [f"path={outputs / STEP}"]) == 2
    assert "00000-of-00001.safetensors: is missing" in capsys.readouterr().err
    assert "format" not in json.loads((outputs / STEP / "manifest.json").read_text())


@pytest.mark.parametrize("name", ["nowhere", "crops", "."])
def test_what_is_none_of_our_folders_is_refused_and_not_walked_through(outputs, name, capsys):
    assert run_job("", MigrateJob, run_migrate, [f"path={outputs / name}"]) == 2
    assert capsys.readouterr().err.startswith(f"error: path: {(outputs / name).resolve()} ")


def test_templates_of_a_mine_job_keep_every_word(outputs):
    folder = outputs / "mined"
    shutil.copytree(outputs / "refilter", folder)
    shutil.rmtree(folder / "captions")
    (folder / "manifest.json").write_text((folder / "manifest.json").read_text().replace('"job": "refilter"', '"job": "mine"'))
    (folder / "report.json").write_text("{}")
    (folder / "templates.yaml").write_text(f"# by hand\ntemplates:\n- id: 0012\n  text: '{WORDING}'\n")
    before = load_templates(folder / "templates.yaml")
    run_migrate(MigrateJob(path=str(folder)))
    assert load_templates(folder / "templates.yaml") == before == {"0012": WORDING}
    assert (folder / "templates.yaml").read_text().startswith(f"format: {versions.number_of('templates')}\n")


def test_steps_are_taken_in_turn_and_a_table_read_no_more_is_read_after_them(outputs, monkeypatch):
    def renamed(before, after):
        return lambda table: table.rename_columns([after if name == before else name for name in table.column_names])

    monkeypatch.setitem(versions.TABLES, "captions", versions.Format("a table of captions", ("one", "two", "three"), oldest=3))
    monkeypatch.setitem(versions.FORMATS, "captions", versions.TABLES["captions"])
    monkeypatch.setitem(TABLE_STEPS, ("captions", 1), renamed("text", "words"))
    monkeypatch.setitem(TABLE_STEPS, ("captions", 2), renamed("words", "sentence"))
    schema = pa.schema([pa.field("sentence", pa.string())], metadata=versions.stamp("captions"))
    stated = {versions.TABLE_FIELD: b"captions 1"}
    file = outputs / "people" / "captions" / "part-00000.parquet"
    texts = pq.read_table(file)["text"].to_pylist()
    pq.write_table(pq.read_table(file).replace_schema_metadata(stated), file, row_group_size=5)
    with refused(DataError, "reid-ray migrate"):
        read_table(file, schema)
    run_migrate(MigrateJob(path=str(outputs / "people")))
    assert read_table(file, schema)["sentence"].to_pylist() == texts
    assert pq.ParquetFile(file).metadata.num_row_groups == -(-len(texts) // 5)


def test_a_migrated_run_is_an_input_as_before(outputs):
    out = {"path": str(outputs / "again")}
    run_migrate(MigrateJob(path=str(outputs / "caption")))
    run_refilter(RefilterJob.model_validate({"run": str(outputs / "caption"), "alpha": 0.99, "output": out}))
    assert read_table(outputs / "again" / "captions", CAPTIONS).equals(read_table(SOURCE / "refilter" / "captions", CAPTIONS))
