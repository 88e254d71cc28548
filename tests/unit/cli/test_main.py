"""`reid-ray`: it lists the jobs at once, finds shipped configurations by their names, copies them, and says in a sentence what is wrong."""

import ast
import importlib
import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reid_ray.cli.commands import purpose
from reid_ray.cli.job_config import job_config
from reid_ray.cli.main import _COMMANDS, main
from reid_ray.config.base import Section
from reid_ray.config.shipped import configs_folder, find_config, shipped_configs
from reid_ray.data.synthetic.config import SynthesizeJob
from reid_ray.jobs import JOBS, named

ROOT = Path(__file__).resolve().parents[3]


def test_the_overview_names_every_job_in_pipeline_order_and_imports_nothing_for_it():
    code = (
        "import sys; from reid_ray.cli.main import main; main(['--help']); print(sorted(set(sys.modules) & {'pydantic', 'numpy', 'ray'}))"
    )
    clock = time.perf_counter()
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, cwd=ROOT).stdout
    assert time.perf_counter() - clock < 3
    assert said.splitlines()[-1] == "[]"
    assert [line.split()[0] for line in said.splitlines() if line.startswith("  ")][: len(JOBS)] == list(JOBS)
    pipeline = ["ingest", "caption", "train", "evaluate", "index", "serve"]
    assert [name for name in JOBS if name in pipeline] == pipeline


@pytest.mark.parametrize("name", JOBS)
def test_a_job_is_a_configuration_and_a_function_and_its_examples_name_configurations_that_ship(name):
    job = JOBS[name]
    assert issubclass(named(job.config), Section)
    module, _, function = job.run.partition(":")
    source = Path(importlib.util.find_spec(module).origin).read_text()
    assert function in {node.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)}
    for example in job.examples:
        words = example.split()
        for option, value in itertools.pairwise(words):
            assert option != "--config" or value in shipped_configs(), value


def test_help_of_a_job_shows_what_was_typed(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["caption", "--help"])
    assert "    reid-ray caption --config caption/caption.yaml" in capsys.readouterr().out


def test_keys_may_stand_before_and_behind_the_options(capsys):
    for line in ("people.cameras=0 --config synthesize.yaml output.path=x", "--config synthesize.yaml people.cameras=0 output.path=x"):
        assert main(["synthesize", *line.split()]) == 2
        assert "people.cameras" in capsys.readouterr().err


def test_a_shipped_configuration_is_found_by_its_name_and_a_file_of_that_name_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = configs_folder() / "caption" / "caption_folder.yaml"
    for name in ("caption_folder.yaml", "caption/caption_folder.yaml", "jobs/configs/caption/caption_folder.yaml"):
        assert find_config(name) == shipped
    (tmp_path / "caption_folder.yaml").write_text("{}")
    assert find_config("caption_folder.yaml") == Path("caption_folder.yaml")
    assert find_config("train/caption_folder.yaml") == Path("train/caption_folder.yaml")
    assert find_config(tmp_path / "caption.yaml") == tmp_path / "caption.yaml"


def test_no_two_shipped_configurations_have_one_name():
    files = [Path(name).name for name in shipped_configs()]
    assert len(set(files)) == len(files) > 40


def test_configs_lists_each_shipped_configuration_with_what_it_is_for(capsys):
    assert main(["configs"]) == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert [name for name, _ in lines] == [Path(name).name for name in shipped_configs()]
    assert ["caption_folder.yaml", "Your own crops on a CPU"] in lines


def test_a_copy_holds_what_was_shipped_and_is_never_written_over(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["configs", "copy", "caption/caption.yaml"]) == 0
    assert main(["configs", "copy", "caption.yaml", "mine.yaml"]) == 0
    assert (
        (tmp_path / "caption.yaml").read_text()
        == (tmp_path / "mine.yaml").read_text()
        == find_config(ROOT / "jobs/configs/caption/caption.yaml").read_text()
    )
    (tmp_path / "mine.yaml").write_text("changed: by hand")
    capsys.readouterr()
    for again in (["caption.yaml"], ["train.yaml", "mine.yaml"], ["caption.yaml", str(tmp_path)]):
        assert main(["configs", "copy", *again]) == 2
    assert capsys.readouterr().err.count("is not written over") == 3
    assert (tmp_path / "mine.yaml").read_text() == "changed: by hand"


@pytest.mark.parametrize(
    "typed",
    [["captoin"], ["configs", "copy", "no.yaml"], ["synthesize", "--config", "no.yaml"], ["synthesize", "peopel.seed=1"]],
)
def test_what_is_mistyped_ends_in_one_sentence(typed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(typed) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("place", "named"),
    [
        ("sub/folder", "sub:"),
        ("sub/", "sub:"),
        ("a_file/below", "a_file/below:"),
        ("locked/below", "locked/below:"),
        ("dangling", "dangling:"),
        ("dangling/below", "dangling:"),
        ("x" * 300, "xxx:"),
    ],
)
def test_a_copy_that_has_no_place_ends_in_a_sentence_that_names_it_and_makes_nothing(place, named, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_file").touch()
    (tmp_path / "locked").mkdir(mode=0o555)
    (tmp_path / "dangling").symlink_to("nowhere")
    if place.startswith("locked") and os.access(tmp_path / "locked", os.W_OK):
        pytest.skip("this user may write anywhere")
    before = sorted(tmp_path.rglob("*"))
    assert main(["configs", "copy", "train.yaml", place]) == 2
    said = capsys.readouterr().err
    assert named in said
    assert said.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_the_purpose_of_a_configuration_is_its_first_sentence_whatever_it_abbreviates(tmp_path):
    path = tmp_path / "some.yaml"
    path.write_text("# As Li et al. 2024 did,\n# i.e. at once. And more.\nseed: 0\n")
    assert purpose(path) == "As Li et al. 2024 did, i.e. at once"


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        (["captoin"], ["caption"]),
        (["Train"], ["train"]),
        (["caption"], ["--config", "caption/caption.yaml"]),
        (["train", "--config", "trian.yaml"], ["trian.yaml", "train/train.yaml", "reid-ray configs"]),
        (["caption", "--config", "caption"], ["caption/caption.yaml", "reid-ray configs"]),
        (["train", "--config", "."], ["reid-ray configs"]),
        (["configs", "copy", "trian.yaml"], ["train/train.yaml", "reid-ray configs"]),
        (["train", "--config", "index.yaml"], ["index.yaml", "the job index", "train/train.yaml"]),
        (["train", "--config", "mine.yaml"], ["mine.yaml", "the job index", "train/train.yaml"]),
    ],
)
def test_wrong_usage_is_told_by_what_was_likely_meant(typed, named, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(find_config("index.yaml").read_text())
    assert main(typed) == 2
    said = capsys.readouterr().err
    assert [word for word in named if word not in said] == []
    assert said.count("\n") == 1
    assert "unknown key" not in said


def test_what_is_left_out_of_a_command_line_is_told_by_the_keys_that_give_it(capsys):
    assert main(["export", "tables=runs/known"]) == 2
    said = capsys.readouterr().err
    assert "add format=... output.path=..., or give a file by --config, such as --config data/export.yaml" in said
    assert main(["export", "tables=runs/known", "output.path=out"]) == 2
    assert "add format=..., or give a file" in capsys.readouterr().err


@pytest.mark.slow
def test_the_help_of_a_command_speaks_of_no_module(capsys):
    for name in _COMMANDS:
        with pytest.raises(SystemExit):
            main([name, "--help"])
        assert ".py" not in capsys.readouterr().out, name


def test_a_misspelt_key_of_the_right_job_is_told_by_its_name(tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    path.write_text(find_config("index.yaml").read_text() + "\nencodr: runs/train/model\n")
    assert main(["index", "--config", str(path)]) == 2
    said = capsys.readouterr().err
    assert "encodr: unknown key" in said
    assert "the job" not in said


def test_a_configuration_comes_through_a_pipe_which_is_read_once():
    reader, writer = os.pipe()
    os.write(writer, b"people: {seed: 7}\noutput: {path: out}\n")
    os.close(writer)
    config = job_config(SynthesizeJob, f"/dev/fd/{reader}", ["people.identities=3"])
    os.close(reader)
    assert (config.people.seed, config.people.identities, Path(config.output.path).name) == (7, 3, "out")


def test_the_pinned_versions_are_where_the_command_says(capsys):
    for stack in ("cpu", "gpu"):
        assert main(["constraints", stack]) == 0
        assert "torch==" in Path(capsys.readouterr().out.strip()).read_text()
