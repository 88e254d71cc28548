"""What the written reference says of a key is what a configuration that leaves it out gives, and gives with a neighbour set."""

import contextlib
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from reid_ray.config import Section, load_config
from reid_ray.config.reference import RUN_JOBS, job_model
from reid_ray.jobs import JOBS

REFERENCE = Path(__file__).resolve().parents[2] / "jobs" / "configs" / "REFERENCE.md"
ROW = re.compile(r"\| `([^`]+)` \| (.+?) \| (required|null|`.*`|) \| .* \|")
SOURCE = ["source.format=folder", "source.path=x"]
STRUCTURE = "sampling.structure={regex: x}"
TRUSTED = "{encoder: x, trusted: {captions: x, images: {}}}"
# The least that each job asks for, in as many forms as it takes to have every key left out once and every section of the table there.
LEAST: dict[str, list[list[str]]] = {
    "ingest": [SOURCE, [*SOURCE, "split_by_identity={}"]],
    "lint": [SOURCE],
    "export": [["tables=x", "format=market1501"]],
    "synthesize": [[]],
    "crop": [["footage.path=x"], ["footage={path: x, kind: frames}"], ["footage.path=x", "detector={kind: transformers, model: a/b}"]],
    "caption": [
        [],
        [f"plausibility={TRUSTED}"],
        ["captioners={other: {}}"],
        [f"captioners.main.{STRUCTURE}", f"rewriter.{STRUCTURE}"],
        ["rewriter.sampling.structure={choice: [x]}", "captioners.main.sampling.structure={choice: [x]}"],
    ],
    "rewrite": [
        ["captions.path=x"],
        ["captions.path=x", f"rewriter.{STRUCTURE}"],
        ["captions.path=x", "rewriter.sampling.structure={choice: [x]}"],
    ],
    "report": [["run=x"], ["run=x", "images={}"]],
    "plausibility": [["captions=x"], ["captions=x", "images={}"], ["captions=x", f"limits={TRUSTED}"]],
    "calibrate": [[], [f"rewriter.{STRUCTURE}"], ["rewriter.sampling.structure={choice: [x]}"]],
    "refilter": [["run=x"]],
    "mine": [["captions=x"], ["captions=x", f"writer.{STRUCTURE}"], ["captions=x", "writer.sampling.structure={choice: [x]}"]],
    "plan": [
        [],
        [f"captioners.main.{STRUCTURE}", f"rewriter.{STRUCTURE}"],
        ["rewriter.sampling.structure={choice: [x]}", "captioners.main.sampling.structure={choice: [x]}"],
    ],
    "captioner": [[]],
    "train_verifier": [[]],
    "segment": [["images={}"], ["images={}", "captions={path: x}", "refiner={model: a/b}"], ["segments=x"]],
    "references": [["images={}", "segments=x"], ["folders={main: {path: x}}"]],
    "train_parser": [[]],
    "edit": [
        ["captions=x", "segments=x", "references=x"],
        ["captions=x", "segments=x", "references=x", "editor.published={model: x}"],
        ["captions=x", "segments=x", "references=x", f"rewriter.{STRUCTURE}"],
        ["captions=x", "segments=x", "references=x", "rewriter.sampling.structure={choice: [x]}"],
    ],
    "plan_edits": [["run=x"]],
    "train": [
        ["images.path=x", "captions.paths=[x]"],
        ["images.path=x", "captions.paths=[x]", "batches.decoders={}", "transfer=[{name: a, images: b, captions: c}]"],
    ],
    "tune": [["images.path=x", "captions.paths=[x]"], ["images.path=x", "captions.paths=[x]", "batches.decoders={}"]],
    "train_editor": [["images.path=x", "data={segments: x, captions: [x]}"]],
    "merge": [["model=x"]],
    "memory": [["config=x"]],
    "embed": [["encoder=x", "captions=x"], ["encoder=x", "images={}"]],
    "evaluate": [
        ["query_embeddings=x", "gallery_embeddings=x"],
        ["encoder=x", "images=x", "captions=x"],
        ["protocol=image_to_image", "encoder=x", "images=x", "rerank={}"],
        ["protocol=leave_one_out", "encoder=x", "images=x"],
    ],
    "compare": [["baseline=x", "candidate=x"]],
    "transfer": [["cells=[{train: a, test: b, run: c}]"]],
    "index": [["encoder=x", "images={}"], ["embeddings=[x]"]],
    "serve": [["index=x"]],
    "migrate": [["path=x"]],
}
# Options of one layout that the layout above refuses, be they their default.
OF_OTHER_LAYOUTS = {"source.boxes", "source.val_as", "boxes", "samples_per_shard", "msmt17_version"}


def rows(job: str) -> dict[str, str]:
    """Key -> default, as the file says it."""
    table = REFERENCE.read_text().split(f"\n## {job}\n")[1].split("\n## ")[0]
    found = [ROW.fullmatch(line) for line in table.splitlines() if line.startswith("| `")]
    return {row[1]: row[3].strip("`").replace("\\|", "|") for row in found if row}


SHOWN = [job for job in JOBS if job not in RUN_JOBS]


@cache
def configurations(job: str) -> list[tuple[Section, list[str]]]:
    output = ["output.path=x"] if job not in ("serve", "migrate") else []
    return [(load_config(job_model(job), None, [*each, *output]), [*each, *output]) for each in LEAST[job]]


def shown(value: Any) -> str:
    """A value as the reference writes it; of sections by name their names."""
    named = isinstance(value, dict) and value and all(isinstance(each, Section) for each in value.values())
    return "null" if value is None else "`, `".join(value) if named else str(value)


def value_at(config: Any, key: str) -> Any:
    """What a configuration has at a key; LookupError where a section on the way is null."""
    for step in key.split("."):
        part, listed = step.removesuffix("[]"), step.endswith("[]")
        if config is None or (listed and not getattr(config, part)) or (part == "NAME" and not config):
            raise LookupError(key)
        config = config[next(iter(config))] if part == "NAME" else getattr(config, part)[0] if listed else getattr(config, part)
    return config


def given_by(overrides: list[str]) -> set[str]:
    """The keys of the reference that overrides set, those inside of {braces} and [{lists}] among them."""
    keys = set()
    for key, _, text in (each.partition("=") for each in overrides):
        inside = "[]." if text.startswith("[") else "."
        keys |= {key, *(f"{key}{inside}{name}" for name in re.findall(r"(\w+):", text))}
    return {re.sub(r"^captioners\.\w+\.", "captioners.NAME.", key) for key in keys}


@pytest.mark.parametrize("job", SHOWN)
def test_a_default_in_the_reference_is_what_a_configuration_without_that_key_has(job):
    said = {key: default for key, default in rows(job).items() if default != "required"}
    seen = {}
    for config, overrides in configurations(job):
        for key in said.keys() - given_by(overrides):
            with contextlib.suppress(LookupError):
                seen.setdefault(key, set()).add(shown(value_at(config, key)))
    assert seen == {key: {default} for key, default in said.items()}


@pytest.mark.parametrize("job", SHOWN)
def test_a_key_set_to_its_default_changes_nothing_beside_it(job):
    config, overrides = configurations(job)[0]
    changed = []
    for key in rows(job).keys() - given_by(overrides):
        with contextlib.suppress(LookupError):
            value, named = value_at(config, key), key.replace(".NAME.", ".main.")
            if isinstance(value, str | int | float) and key not in OF_OTHER_LAYOUTS:
                again = load_config(type(config), None, [*overrides, f"{named}={json.dumps(value)}"])
                changed += [key] if again != config else []
    assert not changed
