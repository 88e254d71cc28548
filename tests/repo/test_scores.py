"""No score is shown without what its weights have seen: a module whose texts name a score says exposure, or stands below with a reason."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCORE = re.compile(r"\bR@\d|\bm(AP|INP|SD)\b|^(\w+_)?(r1|r5|minp)$|^_map$")
MAY_NAME = re.compile(r"R@\d|mAP|mINP|mSD|r1|r5|minp|_map")  # without one of these a module names none

# Modules that name a score and show none: they compute it, configure it, describe a job, or hand it on to one that says what was seen.
SHOWS_NONE = {
    "reid_ray/jobs.py": "what each job is for",
    "reid_ray/retrieval/metrics.py": "computes it",
    "reid_ray/retrieval/ranking/mean_sd.py": "computes it",
    "reid_ray/train/dual/validation.py": "computes it; the run says what the validation split shares",
    "reid_ray/train/mllm/validation.py": "computes it; the run says what the validation split shares",
    "reid_ray/train/dual/job.py": "names the number that chooses; reid_ray/train/run.py shows it",
    "reid_ray/train/mllm/job.py": "names the number that chooses; reid_ray/train/run.py shows it",
    "reid_ray/train/feed/config.py": "configures which number chooses",
    "reid_ray/retrieval/evaluate/sheet.py": "draws what page.py gives it, title and legend with the marks among them",
    "reid_ray/rehearse/verdicts.py": "numbers of tiny models on stand-ins, which say that a job ran and no more",
}


def _texts(text):
    """Strings of a module, docstrings and the descriptions of a configuration's fields left out."""
    tree = ast.parse(text)
    spared = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            spared.add(id(node.body[0].value))
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "Field":
            spared |= {id(each) for each in ast.walk(node)}
    return [
        node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in spared
    ]


@pytest.fixture(scope="module")
def naming():
    """The modules whose texts name a score."""
    texts = {path: path.read_text() for path in sorted((ROOT / "reid_ray").rglob("*.py"))}
    return {
        str(path.relative_to(ROOT)): text
        for path, text in texts.items()
        if MAY_NAME.search(text) and any(SCORE.search(each) for each in _texts(text))
    }


@pytest.mark.slow
def test_whoever_shows_a_score_says_what_its_weights_have_seen(naming):
    assert [name for name, text in naming.items() if name not in SHOWS_NONE and "exposure" not in text] == []
    assert {name for name in naming if name not in SHOWS_NONE} >= {
        "reid_ray/demo/showcase.py",
        "reid_ray/retrieval/compare/job.py",
        "reid_ray/retrieval/evaluate/job.py",
        "reid_ray/retrieval/evaluate/page.py",
        "reid_ray/retrieval/transfer/job.py",
        "reid_ray/train/dual/direct_transfer.py",
    }


def test_a_module_that_shows_none_still_names_a_score(naming):
    assert set(SHOWS_NONE) - set(naming) == set()
