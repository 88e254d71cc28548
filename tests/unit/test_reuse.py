"""output.if_exists=reuse is heard by every job that has it: its run function asks for a finished result before it works."""

import importlib
import inspect
import re

import pytest

from reid_ray.config.common import OutputConfig, StorableOutputConfig
from reid_ray.config.reference import job_model
from reid_ray.jobs import JOBS, named
from reid_ray.jobs import JOBS as TABLE

WRITERS = [
    job for job in JOBS if getattr(job_model(job).model_fields.get("output"), "annotation", None) in (OutputConfig, StorableOutputConfig)
]


def test_all_jobs_but_those_that_write_no_output_are_looked_at():
    assert set(JOBS) - set(WRITERS) <= {"serve", "search", "demo", "migrate"}


@pytest.mark.parametrize("job", WRITERS)
def test_a_job_asks_for_a_finished_result_before_it_works(job):
    source = inspect.getsource(named(TABLE[job].run))
    if "run_recipe(" in source:
        source = inspect.getsource(importlib.import_module("reid_ray.train.run").run_recipe)
    asked, worked = source.find(".kept("), re.search(r"\n +(with .*\bout(put)?\b|\w+\.enter_context\(output\))", source).start()
    assert asked >= 0, f"{job} ignores output.if_exists=reuse"
    assert asked < worked or job in ("caption", "rewrite", "edit")  # which ask under their ledger's lock, before any engine starts
