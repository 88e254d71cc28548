"""What the README says exists, exists: jobs, configurations, make targets, modules."""

import re
from pathlib import Path

import pytest
from module_map import readme_with_map

from reid_ray.config.reference import JOBS

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def test_the_module_map_is_what_the_modules_say():
    assert readme_with_map(README) == README, "run: make reference"


@pytest.mark.parametrize("name", sorted(set(re.findall(r"jobs/[a-z]\w*\.py|jobs/configs/(?!X\.)[\w/]+\.\w+|`[\w/]+\.yaml`", README))))
def test_files_that_the_readme_names_exist(name):
    path = ROOT / ("jobs/configs/" + name.strip("`") if name.startswith("`") else name)
    assert path.is_file()


def test_make_targets_that_the_readme_names_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"\bmake (\w+)", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_job_is_in_the_readme():
    missing = [job for job in JOBS if f"`{job}`" not in README]
    assert not missing
