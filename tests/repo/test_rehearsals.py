"""Every shipped configuration can be rehearsed: what it reads is what others write, and a rehearsal changes its size and nothing else."""

import json
from pathlib import Path

import pytest

from reid_ray.cli.main import main
from reid_ray.config.base import flattened, load_config
from reid_ray.config.reference import job_model
from reid_ray.config.shipped import find_config, shipped_configs
from reid_ray.errors import ConfigError
from reid_ray.rehearse.chain import Command, command_of, planned

# Keys of which a rehearsal leaves every value as it is written; places apart.
RECIPE = (
    "objective.",
    "masking.",
    "optimizer.",
    "captions.",
    "images.",
    "faithfulness.",
    "select",
    "model.lora.",
    "instruction.",
    "rerank",
)
RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
SIZE_OF_IMAGES = {
    "images.limit",
    "images.val_share",
    "images.synthetic.identities",
    "images.synthetic.images_per_identity",
    "images.synthetic.cameras",
    "images.readers",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The working directory of the rehearsals that are planned here."""
    folder = tmp_path_factory.mktemp("rehearsal").resolve()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def plans(root):
    """Name -> the acts of its rehearsal."""
    return {name: planned([command_of(name)], root) for name in shipped_configs()}


@pytest.mark.slow
def test_what_a_shipped_configuration_reads_is_written_before_it(plans):
    for name, acts in plans.items():
        done = set()
        for act in acts:
            assert set(act.before) <= done, name
            done.add(act.command)
        assert command_of(name) in done


@pytest.mark.slow
def test_the_rehearsal_of_a_training_ends_in_a_score_of_its_weights(plans, root):
    trained = {name: acts for name, acts in plans.items() if name.startswith("train/train")}
    assert len(trained) > 4
    for name, (*_, last) in trained.items():
        assert last.command.job == "evaluate"
        written = load_config(job_model("train"), find_config(name)).output.path
        assert (root / last.config.encoder).parts[-2:] == (written.rpartition("/")[2], "model")


@pytest.mark.slow
def test_a_rehearsal_without_names_is_of_every_shipped_configuration(root, plans, monkeypatch):
    """And what it plans for all at once has each of them, once."""
    wanted = []
    monkeypatch.setattr("reid_ray.rehearse.job.rehearse", lambda commands, report: wanted.extend(commands))
    assert main(["rehearse"]) == 0
    assert [each.config for each in wanted] == shipped_configs() == list(plans)
    done = [act.command for act in planned(wanted, root)]
    assert len(set(done)) == len(done)
    assert {command_of(name) for name in shipped_configs()} <= set(done)


def test_the_newest_recorded_rehearsal_is_of_every_shipped_configuration_and_all_went_through():
    """A configuration that is added or renamed asks for a new record: reid-ray rehearse --report FILE."""
    rows = json.loads(max(RESULTS.glob("rehearsal_whole-*.json")).read_text())["rows"]
    assert {row["configuration"] for row in rows} >= set(shipped_configs())
    assert [row for row in rows if row["verdict"] != "ok"] == []


@pytest.mark.slow
def test_a_rehearsal_leaves_the_recipe_as_it_is_written(plans):
    seen = set()
    for acts in plans.values():
        for act in acts:
            written = load_config(job_model(act.command.job), act.command.config and find_config(act.command.config), act.command.overrides)
            before, now = (flattened(config.model_dump(mode="json")) for config in (written, act.config))
            differs = {key for key in before if before[key] != now[key]} - SIZE_OF_IMAGES
            seen |= differs
            places = {key for key in differs if "/" in str(before[key])}
            assert [key for key in differs - places if key.startswith(RECIPE)] == [], act.command
    assert {"workers.count", "workers.num_gpus", "schedule.epochs", "batches.size", "captioners.qwen.engine.dtype"} <= seen


@pytest.mark.slow
@pytest.mark.parametrize("place", ["elsewhere/images", "/elsewhere/images", pytest.param("s3://bucket/images", marks=pytest.mark.slow)])
def test_what_nobody_writes_is_refused_by_its_name(root, place):
    with pytest.raises(ConfigError, match=rf"images\.path is {place},"):
        planned([Command("train", "train/train.yaml", (f"images.path={place}",))], root)
