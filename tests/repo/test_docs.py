"""The documents are true: README's length, links, files and functions that are named, and every command that is shown.

A command either says in a comment what it needs (a GPU, a hub, a cluster, data of the reader's), or it has to run on a laptop on what the
commands above it on its page wrote: that is checked from its configuration here, and a few are run.
"""

import ast
import os
import re
import subprocess
import sys
from functools import cache

import pytest
from commands_in_pages import PAGES, ROOT, Command, commands_of
from test_layering import ALLOWED, LEAVES

from reid_ray.config import load_config
from reid_ray.config.base import Section
from reid_ray.config.paths import named_places
from reid_ray.config.reference import job_model
from reid_ray.config.shipped import find_config
from reid_ray.jobs import JOBS

README = (ROOT / "README.md").read_text()
COMMANDS = [command for page in PAGES for command in commands_of(page)]
RUN_JOBS = [
    command for command in COMMANDS if command.job in JOBS and JOBS[command.job].command is None and "--rehearse" not in command.words
]
# What a reader is expected to have, or is told to get; anything else in a block is a job, a target of make, or a mistake.
TOOLS = {
    "ray",
    "serve",
    "bash",
    "curl",
    "pip",
    "git",
    "source",
    "export",
    "cd",
    "kubectl",
    "helm",
    "docker",
    "sbatch",
    "srun",
    "ulimit",
    "ssh",
    "scp",
    "chmod",
    "mkdir",
}
OWN = {"setup", "configs", "constraints", "gallery", "rehearse", "service", "tokens", "audit", "label"}  # of reid-ray beside its jobs
MODELS = {"model", "init", "base", "tokenizer"}  # fields that take a hub's name
HUB_NAME = re.compile(r"(?!runs/|data/|jobs/|demo/)[A-Za-z][\w-]*/[\w.-]+")
CLUSTER = ROOT / "cluster" / "README.md"


def test_the_readme_is_short():
    assert len(README.split()) <= 1500


def test_every_job_is_in_the_readme():
    assert [job for job in JOBS if f"`{job}`" not in README] == []


def test_the_readme_leads_to_every_page():
    assert [page.name for page in PAGES if page.parent == ROOT / "docs" and f"](docs/{page.name})" not in README] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    assert [target for target in targets if "://" not in target and not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_page_names_exist(page):
    named = re.findall(r"(?<![\w./-])((?:reid_ray|jobs|tests|benchmarks|cluster)/(?!NAME|configs/TASK)[\w./-]+\.\w+)", page.read_text())
    named += [f"jobs/configs/{name}" for name in re.findall(r"`((?:caption|data|edit|retrieval|serve|train)/\w+\.yaml)`", page.read_text())]
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_results_are_named_by_their_date_and_those_that_a_page_names_exist():
    results = {path.name for path in (ROOT / "benchmarks" / "results").iterdir()}
    assert [name for name in results if not re.fullmatch(r"\w+-\d{4}-\d\d-\d\d\.json", name)] == []
    measured = (ROOT / "docs" / "measured.md").read_text()
    named = re.findall(r"`(?:benchmarks/results/)?([\w.-]+\.json)`", measured)
    assert len(named) >= 5
    assert [name for name in named if name not in results] == []
    scripts = re.findall(r"`(?:python )?(?:benchmarks/)?(\w+\.py)\b", measured)
    assert len(scripts) >= 10
    assert [name for name in scripts if not (ROOT / "benchmarks" / name).is_file()] == []


def test_every_configuration_is_shown_by_a_command():
    shown = {command.config for command in COMMANDS}
    files = {str(path.relative_to(ROOT)) for path in (ROOT / "jobs" / "configs").rglob("*.yaml")}
    assert files - shown - {"jobs/configs/demo.yaml", "jobs/configs/search.yaml", "jobs/configs/migrate.yaml"} == set()


def test_every_job_is_shown_by_a_command():
    assert set(JOBS) - {command.job for command in COMMANDS} == set()


TASKS = {
    "search your own crops": r"reid-ray search ",
    "ingest": r"jobs/ingest\.py .*source\.path=",
    "crop": r"jobs/crop\.py .*footage\.path=",
    "label": r"reid-ray label ask ",
    "lint": r"jobs/lint\.py ",
    "caption": r"jobs/caption\.py ",
    "report": r"jobs/report\.py ",
    "train": r"jobs/train\.py ",
    "fine-tune": r"jobs/train\.py .*model\.init=runs/",
    "noise": r"jobs/train\.py .*masking\.kind=nam",
    "evaluate": r"jobs/evaluate\.py ",
    "compare": r"jobs/compare\.py ",
    "export": r"jobs/export\.py .*format=",
    "index": r"jobs/index\.py ",
    "serve": r"jobs/serve\.py ",
    "ask a service": r"reid-ray service search ",
    "add": r"reid-ray service add ",
    "erase": r"reid-ray gallery erase .*--where",
    "let colleagues in": r"reid-ray tokens create ",
}


@pytest.mark.parametrize("task", TASKS)
def test_the_page_of_commands_has_one_for_every_task(task):
    shown = [" ".join(command.words) for command in COMMANDS if command.page.name == "commands.md"]
    assert [line for line in shown if re.search(TASKS[task], line)] != []


@pytest.mark.slow
def test_the_methods_page_names_functions_that_exist():
    rows = re.findall(r"`([\w/]+\.py)`((?: `\w+`(?:, `\w+`)*)?)", (ROOT / "docs" / "methods.md").read_text())
    assert len(rows) > 30
    for file, names in rows:
        defined = {getattr(node, "name", None) for node in ast.parse((ROOT / "reid_ray" / file).read_text()).body}
        assert set(re.findall(r"\w+", names)) - defined == set(), file


def test_the_architecture_page_draws_who_may_import_whom():
    drawn = {}
    for line in (ROOT / "docs" / "architecture.md").read_text().splitlines():
        part, arrow, others = line.strip().partition(" --> ")
        if arrow:
            drawn[part] = set(others.split(" & "))
    assert {part: others for part, others in drawn.items() if part != "jobs"} == {
        part: others for part, others in ALLOWED.items() if part not in LEAVES and others
    }


def test_the_architecture_page_says_what_every_folder_knows():
    rows = [line for line in (ROOT / "docs" / "architecture.md").read_text().splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)/`", row.split("|")[1])}
    assert named == {path.parent.name for path in (ROOT / "reid_ray").glob("*/__init__.py")}


def test_the_architecture_page_lists_files_that_exist():
    listed = re.findall(r"^\d+\. `([\w/]+\.py)`", (ROOT / "docs" / "architecture.md").read_text(), re.MULTILINE)
    assert len(listed) > 100
    assert [file for file in listed if not (ROOT / "reid_ray" / file).is_file()] == []


def test_the_measured_page_names_results_that_exist():
    page = (ROOT / "docs" / "measured.md").read_text()
    assert [name for name in re.findall(r"`([\w-]+\.json)`", page) if not (ROOT / "benchmarks" / "results" / name).is_file()] == []
    assert [name for name in re.findall(r"`(?:python benchmarks/)?(\w+\.py)\b", page) if not (ROOT / "benchmarks" / name).is_file()] == []


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_a_command_is_a_job_a_target_or_a_tool(command):
    first, *rest = command.words
    if command.job is not None:
        assert command.job in {*JOBS, *OWN}
    elif first == "make":
        makefile = (ROOT / "Makefile").read_text()
        targets = [word for word in rest if "=" not in word]
        assert targets
        assert [target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []
    elif first.endswith("python"):
        assert rest[:2] == ["-m", "pytest"] or (ROOT / rest[0]).is_file()
        assert [word for word in rest if word.startswith("tests/") and not (ROOT / word).exists()] == []
    else:
        assert first in TOOLS


@pytest.mark.parametrize("command", RUN_JOBS, ids=str)
def test_the_configuration_of_a_command_loads_and_its_needs_are_said(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = load_config(job_model(command.job), command.config and find_config(command.config), command.overrides)
    said = command.needs or ("a cluster, GPUs, a hub and your data" if command.page == CLUSTER else "")
    needs = needs_of(command, config)
    assert [need for need in needs if need not in said] == [], f"says that it needs: {said or 'nothing'}"
    if not said:
        assert inputs_that_nothing_wrote(command, config) == []


def needs_of(command: Command, config: Section) -> set[str]:
    """What a command cannot run without, by its configuration: words that what it says must hold."""
    needs = set()
    values = list(leaves(config.model_dump(mode="json")))
    if any(name == "num_gpus" and value for name, value in values):
        needs.add("GPU")
    if any(name in MODELS and isinstance(value, str) and HUB_NAME.fullmatch(value) for name, value in values):
        needs.add("hub")
    if command.words[0] == "ray" or any(name == "address" and value for name, value in values):
        needs.add("cluster")
    return needs


def inputs_that_nothing_wrote(command: Command, config: Section) -> list[str]:
    """The inputs of a command that are neither files of the repository nor outputs of commands above it on its page."""
    before = COMMANDS[: next(at for at, other in enumerate(COMMANDS) if other is command)]
    made = [written_by(other) for other in before if other.page == command.page and other in RUN_JOBS and not other.needs]
    places = {key: place.partition("#")[0] for key, place in named_places(config).items() if not place.startswith("builtin:")}
    return [
        f"{key}={place}"
        for key, place in places.items()
        if not key.startswith("output.")
        and not (ROOT / place).is_file()
        and not any((ROOT / place).is_relative_to(folder) for folder in made)
    ]


@cache
def written_by(command: Command) -> str:
    """The folder that a job writes, in full."""
    config = load_config(job_model(command.job), command.config and find_config(command.config), command.overrides)
    return config.output.path if hasattr(config, "output") else "/no/output"


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_stand_in_the_order_in_which_the_page_of_commands_is_run(page):
    order = {command.words: number for number, command in reversed(list(enumerate(commands_of(ROOT / "docs" / "commands.md"))))}
    shown = [command.words for command in commands_of(page) if command.words in order and not command.needs]
    assert shown == sorted(shown, key=order.__getitem__)


@pytest.mark.slow
def test_a_few_commands_of_the_page_run(tmp_path):
    """Those that start no engine, on fewer people."""
    (tmp_path / "jobs").symlink_to(ROOT / "jobs")
    ran = []
    for command in COMMANDS:
        if command.page.name == "commands.md" and not command.needs and command.job in {"synthesize", "lint", "export", "configs"}:
            small = ["people.identities=20", "people.images_per_identity=2"] if command.job == "synthesize" else []
            arguments = [command.job, *command.words[2:], *small]
            words = [sys.executable, "-c", "import sys; from reid_ray.cli.main import main; sys.exit(main())", *arguments]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]])}
            done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False)
            assert done.returncode == 0, done.stderr
            ran.append((command.job, done.stdout))
    assert [job for job, _ in ran] == ["configs", "synthesize", "lint", "export"]
    assert "caption_folder.yaml" in ran[0][1]
    assert (tmp_path / "runs" / "export" / "cuhk_pedes" / "reid_raw.json").is_file()


def leaves(value, name=""):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner, name)
    else:
        yield name, value
