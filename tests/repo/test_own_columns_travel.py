"""Every job that reads images hands their further columns on, says that it does not, or writes no row about an image: none is forgotten."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "reid_ray"
OPENS = {"image_listing", "open_source", "read_source"}
# What these write has no row about an image that further columns could stand in.
NO_ROWS = {
    "caption/plausibility/job.py": "counts of captions",
    "data/lint/job.py": "counts and examples",
    "edit/verify/job.py": "weights",
}


def called(path):
    names = (node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
    return {name.id for name in names if isinstance(name, ast.Name)}


def test_every_job_that_opens_images_says_what_becomes_of_their_further_columns():
    jobs = {str(path.relative_to(PACKAGE)): called(path) for path in PACKAGE.rglob("job.py")}
    readers = {name for name, calls in jobs.items() if calls & OPENS}
    assert {"data/ingest/job.py", "retrieval/index/job.py", "caption/job.py"} <= readers
    assert {name for name in readers if "note_own" not in jobs[name]} == set(NO_ROWS)
