"""The table of jobs says what must be installed for each, and no job's code asks for more."""

import subprocess
import sys

import pytest
from test_layering import MODULES, _imports

from reid_ray.jobs import JOBS
from reid_ray.setup.requirements import ALL, SEARCH

pytestmark = pytest.mark.slow

BLOCKED = """
import importlib, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError(name + " is not installed here")

sys.meta_path.insert(0, Blocker())
for module in {modules}:
    importlib.import_module(module)
"""


def _modules(engines):
    return [job.run.partition(":")[0] for job in JOBS.values() if job.engines == engines]


def _reached(module):
    """Every module that the code of one names, and that of those, wherever the import stands."""
    found, left = set(), [module]
    while left:
        if (name := left.pop()) not in found:
            found.add(name)
            left += _imports(MODULES[name]) if name in MODULES else []
    return {name.partition(".")[0] for name in found}


@pytest.mark.parametrize("module", _modules("search"))
def test_a_job_of_search_names_neither_vllm_nor_deepspeed_anywhere(module):
    assert _reached(module) & set(ALL) <= set(SEARCH)


@pytest.mark.parametrize("name", [name for name, job in JOBS.items() if job.engines == "all" and name != "demo"])
def test_a_job_that_asks_for_all_engines_names_one_that_search_lacks(name):
    assert _reached(JOBS[name].run.partition(":")[0]) & (set(ALL) - set(SEARCH))


def test_jobs_of_the_core_start_without_any_engine():
    code = BLOCKED.format(blocked=set(ALL), modules=_modules("none"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
