"""Every shipped configuration loads, and the reference says what the models say."""

from pathlib import Path

import pytest

from reid_ray.config import load_config
from reid_ray.config.reference import job_model, job_of_config, render
from reid_ray.jobs import JOBS

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "jobs" / "configs").rglob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=[path.name for path in CONFIGS])
def test_every_shipped_config_loads(path):
    load_config(job_model(job_of_config(path)), path)


@pytest.mark.parametrize("job", JOBS)
def test_every_job_has_a_script_and_a_config(job):
    assert (ROOT / "jobs" / f"{job}.py").is_file()
    assert any(job_of_config(path) == job for path in CONFIGS)


def test_the_reference_is_what_the_models_say():
    assert (ROOT / "jobs" / "configs" / "REFERENCE.md").read_text() == render(), "run: make reference"


def test_every_field_says_what_it_means():
    undescribed = []
    for job in JOBS:
        sections = [job_model(job)]
        while sections:
            section = sections.pop()
            for name, field in section.model_fields.items():
                nested = [c for c in (field.annotation, *getattr(field.annotation, "__args__", ())) if hasattr(c, "model_fields")]
                sections += nested
                if not nested and not field.description:
                    undescribed.append(f"{section.__name__}.{name}")
    assert not undescribed


def test_what_the_shipped_configurations_read_and_write_is_not_committed_or_uploaded():
    """People's pictures lie there."""
    ignored = {file: (ROOT / file).read_text().splitlines() for file in (".gitignore", ".dockerignore")}
    for folder in ("data", "runs", "demo"):
        assert f"/{folder}/" in ignored[".gitignore"]
        assert folder in ignored[".dockerignore"]
