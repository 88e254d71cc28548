"""A user's own tables, pictures and models are read in part, and what is made of them fits together."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from refusals import refused

from reid_ray.config.common import SyntheticConfig
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.demo.first_search.command_line import changes_of
from reid_ray.errors import ConfigError
from reid_ray.model.pretrained import load_encoder
from reid_ray.rehearse.chain import Command, planned
from reid_ray.rehearse.job import rehearse
from reid_ray.rehearse.own_inputs import excerpts


@pytest.mark.slow
def test_tables_are_cut_to_the_first_rows_of_each_split_and_captions_to_their_images(tmp_path):
    people = SyntheticPeople(SyntheticConfig(identities=40, images_per_identity=3, val_share=0.5, test_share=0.1))
    images, captions = people.image_table(), people.caption_table()
    for name, table in (("images", images), ("captions", captions)):
        (tmp_path / name).mkdir()
        pq.write_table(table, tmp_path / name / "a.parquet", row_group_size=16)
    said = list(excerpts([(tmp_path / name, tmp_path / "few" / name) for name in ("captions", "images")]))
    few = pq.read_table(tmp_path / "few" / "images")
    expected = []
    for split in ("train", "val", "test"):
        expected += [row["image_id"] for row in images.to_pylist() if row["split"] == split][:32]
    assert sorted(few["image_id"].to_pylist()) == sorted(expected)
    assert sorted(pq.read_table(tmp_path / "few" / "captions")["image_id"].to_pylist()) == sorted([*expected, *expected])
    assert [line.split()[-2] for line in said] == [str(few.num_rows), str(2 * few.num_rows)]


@pytest.mark.slow
def test_a_table_outside_is_rehearsed_with_its_own_rows_and_left_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    people = SyntheticPeople(SyntheticConfig(identities=4, images_per_identity=2))
    for name, table in (("images", people.image_table()), ("captions", people.caption_table())):
        (tmp_path / "mine" / name).mkdir(parents=True)
        pq.write_table(table, tmp_path / "mine" / name / "a.parquet")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")}
    (verdict,) = rehearse([Command("lint", None, ("source.format=parquet", "source.path=mine", "output.path=page"))])
    assert (verdict.read, verdict.written) == (8, 8)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]


@pytest.mark.slow
def test_tables_at_an_address_are_rehearsed_in_part_and_one_that_is_not_there_is_named(tmp_path, monkeypatch):
    people = SyntheticPeople(SyntheticConfig(identities=40, images_per_identity=3))
    (tmp_path / "root").mkdir()
    monkeypatch.chdir(tmp_path / "root")
    for name, table in (("images", people.image_table()), ("captions", people.caption_table())):
        (tmp_path / "bucket" / name).mkdir(parents=True)
        pq.write_table(table, tmp_path / "bucket" / name / "a.parquet")
    at = f"file://{tmp_path}/bucket"
    given = (f"images.path={at}/images", f"captions.paths=[{at}/captions]")
    act = planned([Command("train", "train/train.yaml", given)], tmp_path / "root", home=tmp_path)[0]
    told = {"images": act.config.images.path, "captions": act.config.captions.paths[0]}
    assert [(place, str(to)) for place, to in act.own] == [(f"{at}/{name}", told[name]) for name in told]
    assert all(place.startswith(f"{tmp_path}/root/") for place in told.values())
    assert len(list(excerpts(act.own))) == 2
    images, captions = (pq.read_table(told[name]) for name in told)
    assert 0 < images.num_rows < people.num_images
    assert set(captions["image_id"].to_pylist()) == set(images["image_id"].to_pylist())
    with refused(ConfigError, "train/train.yaml", "images.path", f"{at}/nothing"):
        planned([Command("train", "train/train.yaml", (f"images.path={at}/nothing", given[1]))], tmp_path / "root", home=tmp_path)


def test_a_model_outside_is_a_tiny_one_of_its_class_and_an_encoder_of_ours_itself(tmp_path):
    for name, files in (("big", {}), ("ours", {"manifest.json": {}})):
        (tmp_path / name).mkdir()
        for file, content in {"config.json": {"model_type": "qwen2_5_vl", "architectures": ["X"]}, **files}.items():
            (tmp_path / name / file).write_text(json.dumps(content))
    said = list(excerpts([(tmp_path / name, tmp_path / "few" / name) for name in ("big", "ours")]))
    assert "Qwen2_5_VLForConditionalGeneration" in said[0]
    assert (tmp_path / "few" / "ours" / "manifest.json").resolve() == tmp_path / "ours" / "manifest.json"


@pytest.mark.slow
def test_a_job_that_changes_what_it_is_given_leaves_the_users_own_as_it_is(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(root / "tests/golden/96cb249/training/model", "mine")  # of an older version, so that there is something to migrate
    before = {path: path.read_bytes() for path in (tmp_path / "mine").iterdir()}
    (verdict,) = rehearse([Command("migrate", None, ("path=mine",))])
    assert verdict.written > 0
    assert {path: path.read_bytes() for path in (tmp_path / "mine").iterdir()} == before


@pytest.mark.slow
def test_a_training_on_ones_own_tables_ends_in_the_score_of_a_benchmark(tmp_path, monkeypatch):
    home, root = tmp_path / "home", (tmp_path / "root")
    for folder in (root, home / "images", home / "captions"):
        folder.mkdir(parents=True)
    pq.write_table(pa.table({"image_id": ["a"]}), home / "images" / "a.parquet")
    monkeypatch.chdir(root)
    acts = planned([Command("train", "train/train.yaml", ("images.path=images", "captions.paths=[captions]"))], root, home=home)
    assert [act.command.job for act in acts] == ["train", "ingest", "evaluate"]
    assert [(str(place), str(to)) for place, to in acts[0].own] == [(str(home / n), str(root / n)) for n in ("images", "captions")]


@pytest.mark.slow
def test_a_search_of_her_own_crops_reads_her_pictures_and_what_it_writes_itself(tmp_path, monkeypatch):
    (tmp_path / "pics").mkdir()
    root = tmp_path / "root"
    root.mkdir()
    monkeypatch.chdir(root)
    (act,) = planned([Command("search", "search.yaml", tuple(changes_of("pics", None, "runs/mine")))], root, home=tmp_path)
    assert set(act.own) == {(tmp_path / "pics", root / "pics")}
    assert act.before == act.models == act.data_sets == []


@pytest.mark.slow
def test_a_folder_of_the_users_goes_before_a_hubs_name(tmp_path, monkeypatch):
    home, root = tmp_path / "home", tmp_path / "root"
    root.mkdir()
    (home / "models" / "clip").mkdir(parents=True)
    monkeypatch.chdir(root)
    changes = [f"model.init={name}" for name in ("models/clip", "openai/clip")]
    (mine, hubs) = (planned([Command("train", "train/train_irra_rstpreid.yaml", (change,))], root, home=home) for change in changes)
    assert [(act.own, act.models) for act in mine if act.command.overrides[:1] == (changes[0],)] == [
        ([(home / "models" / "clip", root / "models" / "clip")], [])
    ]
    assert [(act.own, act.models) for act in hubs if act.command.overrides[:1] == (changes[1],)] == [([], ["openai/clip"])]


def test_what_another_job_made_is_read_as_it_is_and_a_table_needs_no_splits(tmp_path):
    run = tmp_path / "run"
    (run / "captions").mkdir(parents=True)
    (run / "manifest.json").write_text("{}")
    for place in (run / "captions", tmp_path / "plain"):
        place.mkdir(exist_ok=True)
        pq.write_table(pa.table({"number": range(40)}), place / "a.parquet")
    list(excerpts([(run, tmp_path / "few" / "run"), (tmp_path / "plain", tmp_path / "few" / "plain")]))
    linked = [path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()]
    assert all((tmp_path / "few" / "run" / name).resolve() == run / name for name in linked)
    assert pq.read_table(tmp_path / "few" / "plain")["number"].to_pylist() == list(range(32))


@pytest.mark.slow
@pytest.mark.parametrize("file", ["best.pth", "open_clip_config.json", "tokenizer.json"])
def test_a_model_without_a_configuration_of_transformers_is_a_tiny_clip(file, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / file).write_bytes(b"large")
    (said,) = excerpts([(tmp_path / "mine", tmp_path / "few")])
    assert "CLIPModel" in said
    assert load_encoder(tmp_path / "few").tokenizer is not None
