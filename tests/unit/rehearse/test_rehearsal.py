"""A rehearsal runs jobs in the order in which they read each other, tells each verdict, and goes on after a failure where it can."""

import json
import os

import pytest

from reid_ray.cli.main import main
from reid_ray.errors import ConfigError, DataError
from reid_ray.jobs import JOBS
from reid_ray.model.pretrained import load_encoder
from reid_ray.rehearse.chain import Command, planned
from reid_ray.rehearse.job import rehearse, run_apart
from reid_ray.rehearse.sizes import SIZES
from reid_ray.rehearse.stand_ins import stand_in
from reid_ray.rehearse.verdicts import number_of

INGEST = Command("ingest", "data/ingest_cuhk_pedes.yaml")


@pytest.mark.slow
def test_a_failure_ends_what_reads_its_output_and_nothing_else(tmp_path):
    wanted = [
        Command("export", None, ("tables=runs/ingest/cuhk_pedes", "format=market1501", "output.path=out")),  # it has no query split
        Command("lint", None, ("source.format=parquet", "source.path=out", "output.path=page")),
        Command("lint", "data/lint.yaml"),
        Command("lint", None, ("source.format=parquet", "source.path=nowhere", "output.path=nothing")),
    ]
    with pytest.raises(DataError, match=r" 3 did not pass"):
        rehearse(wanted, report=tmp_path / "table.json")
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert "source.path is nowhere" in rows[0]["said"]
    assert [(row["job"], row["verdict"]) for row in rows] == [
        ("lint", "failed"),
        ("ingest", "ok"),
        ("export", "failed"),
        ("lint", "not reached"),
        ("lint", "ok"),
    ]
    assert [row["read"] for row in rows] == [0, 96, 0, 0, 96]
    assert [row["failed"] for row in rows] == [0, 1, 0, 0, 1], "each data set has one damaged image"


@pytest.mark.slow
def test_a_configuration_of_ones_own_is_rehearsed_from_any_folder_and_leaves_nothing_there(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("source: {format: rstpreid, path: /data/of/mine}\noutput: {path: runs/mine}\n")
    assert main(["ingest", "--config", "mine.yaml", "limit=20", "--rehearse"]) == 0
    said = capsys.readouterr().out
    assert "source.path /data/of/mine -> ./data/of/mine" in said
    assert "ok: 19 rows" in said
    assert os.listdir() == ["mine.yaml"]


def test_a_command_that_is_mistyped_is_refused_as_without_a_rehearsal(capsys):
    assert main(["ingest", "--config", "data/ingest_cuhk_pedes.yaml", "limt=20", "--rehearse"]) == 2
    assert "limt: unknown key" in capsys.readouterr().err


@pytest.mark.slow
def test_a_job_in_a_process_of_its_own_returns_what_it_returns_here_and_its_errors_are_ours(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (act,) = planned([Command("synthesize", "data/synthesize.yaml", ("people.identities=2",))], tmp_path)
    assert run_apart(act)["counts"]["written"] == 8
    (tmp_path / "runs" / "synthetic" / "mine.txt").touch()  # a file that no job made is not replaced
    with pytest.raises(DataError, match=r"mine\.txt"):
        run_apart(act)


@pytest.mark.parametrize("job", JOBS)
def test_every_job_takes_the_word(job, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([job, "--help"])
    assert "--rehearse" in capsys.readouterr().out


def test_a_model_of_an_unknown_class_has_no_stand_in(tmp_path):
    with pytest.raises(ConfigError, match="somebody/resnet50"):
        stand_in("somebody/resnet50", tmp_path / "somebody" / "resnet50")


@pytest.mark.slow
def test_what_cannot_be_made_smaller_says_what_stands_in_the_way(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(SIZES, "WorkersConfig", {"count": lambda _, __: 5})
    with pytest.raises(ConfigError, match=r"batches.size 32 is not a multiple of workers.count 5"):
        planned([Command("train", "train/train.yaml")], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "class_name"),
    [
        ("openai/clip-vit-base-patch32", "CLIPModel"),
        ("google/siglip-base-patch16-224", "SiglipModel"),
        ("llava-hf/llava-1.5-13b-hf", "LlavaForConditionalGeneration"),
        ("Qwen/Qwen3-VL-8B-Instruct", "Qwen3VLForConditionalGeneration"),
        ("Qwen/Qwen2.5-VL-7B-Instruct", "Qwen2_5_VLForConditionalGeneration"),
        ("lmsys/vicuna-7b-v1.5", "LlamaForCausalLM"),
        ("sentence-transformers/all-MiniLM-L6-v2", "BertModel"),
    ],
)
def test_a_published_model_has_a_stand_in_of_its_class(name, class_name, tmp_path):
    assert stand_in(name, tmp_path / name).startswith(class_name)
    if class_name in ("CLIPModel", "SiglipModel"):
        encoder = load_encoder(tmp_path / name)
        assert encoder.encode_texts(["a person in a red coat"]).shape == (1, encoder.dim)


def test_the_scores_of_the_table_stand_beside_their_marks():
    scores = {"r1": 0.5, "map": 0.4, "queries": 8, "gallery": 4}
    for found, shown in ((["SEEN", "UNKNOWN"], True), ([], False)):
        exposure = {"marks": found}
        others = [{"dataset": "Market-1501", "split": "val", "r1": 0.3, "exposure": exposure}]
        trained = {"steps": 4, "last_loss": 1.0, "selected": {"r1": 0.5}, "validation_exposure": exposure, "transfer": others}
        for job, facts, scored in (("evaluate", {**scores, "exposure": exposure}, 1), ("train", trained, 2)):
            assert number_of(job, {"facts": facts}).count("(SEEN, UNKNOWN)") == scored * shown
    assert "UNKNOWN" in number_of("train", {"facts": {**trained, "validation_exposure": None}})  # of data that do not tell
