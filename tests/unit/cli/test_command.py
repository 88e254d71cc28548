"""`reid-ray`: it lists the jobs at once, finds shipped configurations by their names, copies them, and says in a sentence what is wrong."""

import ast
import importlib
import itertools
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reid_ray.cli.main import main
from reid_ray.config.base import Section
from reid_ray.config.shipped import configs_folder, find_config, shipped_configs
from reid_ray.jobs import JOBS, named

ROOT = Path(__file__).resolve().parents[3]


def test_the_overview_names_every_job_on_the_road_and_imports_nothing_for_it():
    code = (
        "import sys; from reid_ray.cli.main import main; main(['--help']); print(sorted(set(sys.modules) & {'pydantic', 'numpy', 'ray'}))"
    )
    clock = time.perf_counter()
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, cwd=ROOT).stdout
    assert time.perf_counter() - clock < 3
    assert said.splitlines()[-1] == "[]"
    assert [line.split()[0] for line in said.splitlines() if line.startswith("  ")][: len(JOBS)] == list(JOBS)
    road = ["ingest", "caption", "train", "evaluate", "index", "serve"]
    assert [name for name in JOBS if name in road] == road


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


def test_the_pinned_versions_are_where_the_command_says(capsys):
    for stack in ("cpu", "gpu"):
        assert main(["constraints", stack]) == 0
        assert "torch==" in Path(capsys.readouterr().out.strip()).read_text()
