"""Every job that takes captions in says where their maker found them hardly true: none is forgotten."""

import pytest
from pydantic import BaseModel
from test_own_columns_travel import PACKAGE, called

from reid_ray.config.paths import names_place
from reid_ray.jobs import JOBS, named

# What these do with captions that they are given is to judge others by them, or these themselves.
JUDGES = {"caption", "plausibility"}
RUNS_OTHERS = {"demo"}  # which say it themselves


def takes_captions(model):
    """Whether a configuration has a place named captions, or a section of that name that has places."""
    for name, field in model.model_fields.items():
        sections = [each for each in (field.annotation, *getattr(field.annotation, "__args__", ())) if is_section(each)]
        if name == "captions" and (
            names_place(field) or any(names_place(inner) for each in sections for inner in each.model_fields.values())
        ):
            return True
        if any(takes_captions(each) for each in sections):
            return True
    return False


def is_section(kind):
    return isinstance(kind, type) and issubclass(kind, BaseModel)


@pytest.mark.slow
def test_every_job_that_takes_captions_says_of_those_that_are_hardly_true():
    assert "note_doubted" in called(PACKAGE / "train" / "run.py")
    readers = {name for name, job in JOBS.items() if takes_captions(named(job.config))}
    assert {"train", "tune", "train_editor", "evaluate", "embed", "segment", "edit", "rewrite", "ingest", "export"} <= readers
    silent = set()
    for name in readers:
        module = JOBS[name].run.partition(":")[0].removeprefix("reid_ray.").replace(".", "/")
        if not called(PACKAGE / f"{module}.py") & {"note_doubted", "run_recipe"}:
            silent.add(name)
    assert silent == JUDGES | RUNS_OTHERS
