"""Every page: what came from a model, a file or a person shows as text, and nothing is loaded from elsewhere."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import reid_ray.pages
from reid_ray.caption.filters.diversity import DiversityMeter
from reid_ray.caption.report.page import Sample, render_report
from reid_ray.caption.report.statistics import SCORE_EDGES, RunStatistics
from reid_ray.data.lint.checks import Example, Finding
from reid_ray.data.lint.page import as_html, as_json
from reid_ray.pages import render, templates
from reid_ray.train.masking.page import noise_page

ATTACK = "<script>alert('x')</script>\" onload=\"alert('y')\" {{ 7 * 7 }} & co"
_FETCHING = {"src", "href", "action", "data", "srcset", "poster"}


def _report() -> str:
    meter = DiversityMeter(sample=10, seed=0, templates=[f"dynamic/{ATTACK}"])
    meter.add(["a"], [f"a man {ATTACK}"], [f"dynamic/{ATTACK}"])
    scores = np.zeros(len(SCORE_EDGES) - 1, np.int64)
    scores[70] = 3
    statistics = RunStatistics(
        rows=1,
        outcomes=Counter({(ATTACK, "ok"): 1}),
        reasons=Counter({(ATTACK, ATTACK): 1}),
        examples={(ATTACK, ATTACK): ATTACK},
        scores={"ok": scores},
        diversity={ATTACK: meter.result()},
    )
    speed = {
        "images_per_second": 1.0,
        "tokens": 1,
        "tokens_per_second": 1.0,
        "startup_seconds": 1.0,
        "prefix_cache": {"hit_rate": None, "hits": 0, "queries": 0},
    }
    manifest = {
        "job": ATTACK,
        "started": ATTACK,
        "fingerprint": ATTACK,
        "inputs": {"images": ATTACK},
        "counts": {"read": 1, "written": 1, "failed": {}},
        "timings": {"total_seconds": 1.0},
        "facts": {"passes": {ATTACK: {"throughput": {"images_per_second": 1.0}, "captioner": speed, "rewriter": None}}, ATTACK: ATTACK},
        "environment": {
            "processor": ATTACK,
            "cpu_count": 1,
            "memory_bytes": 1,
            "versions": {ATTACK: ATTACK},
            "commit": ATTACK,
            "command": ATTACK,
        },
    }
    row = {"status": "ok", "faithfulness": None, "instruction_id": ATTACK, "kind": ATTACK, "text": ATTACK, "reason": None}
    samples = [Sample(ATTACK, b"no picture", (row,))]
    return render_report(title=ATTACK, statistics=statistics, manifest=manifest, samples=samples, alpha=0.5, note=ATTACK)


def _lint() -> str:
    finding = Finding(ATTACK, "warning", 1, ATTACK, (Example((ATTACK,), ATTACK),))
    sizes = {ATTACK: {"images": 1, "identities": 1, "captions": 1}}
    return as_html(as_json(ATTACK, sizes, {ATTACK: 1}, [finding]), {ATTACK: b"jpeg"})


def _noise() -> str:
    return noise_page([{"row": 0, "words": [ATTACK, ATTACK], "word_noise": [0.5, None]}], {})


def _edits() -> str:
    slot = {"slot": ATTACK, "old": ATTACK, "new": ATTACK, "read": ATTACK, "reference": None}
    said = {"image_id": ATTACK, "status": "failed", "reason": ATTACK, "original": ATTACK, "text": ATTACK, "by": ATTACK}
    edit = {**said, "tries": 1, "difference": 0.5, "before": None, "after": None, "slots": [slot]}
    return render("edits", title=ATTACK, facts={"rows": 1, "ok": 0, "tries": 1, "not_ok": {ATTACK: 1}}, edits=[edit])


PAGES = {"report": _report, "lint": _lint, "noise": _noise, "edits": _edits}


class _Elements(HTMLParser):
    """Elements, their attributes, and the text of a page as a browser reads them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data):
        self.words.append(data)


def test_there_is_a_case_for_every_template_that_is_a_page():
    extending = {name.partition(".")[0] for name in templates().list_templates(["jinja"]) if "extends" in _source(name)}
    assert set(PAGES) == extending


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_a_script_in_a_caption_or_a_file_name_shows_as_text(page):
    read = _Elements(page())
    assert ATTACK in "".join(read.words)
    assert read.elements.count("script") == 0
    assert not [name for name, _ in read.attributes if name.startswith("on")]


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_a_page_is_one_file_that_loads_nothing(page):
    read = _Elements(page())
    loaded = [value for name, value in read.attributes if name in _FETCHING and not value.startswith(("data:image/jpeg;base64,", "#"))]
    assert loaded == []
    assert "link" not in read.elements
    assert not re.search(r"@import|url\(", page())


@pytest.mark.slow
def test_no_template_and_no_other_module_writes_html_by_hand():
    """Autoescaping holds only where every value passes through a template and none is marked as safe."""
    assert [name for name in templates().list_templates(["jinja"]) if re.search(r"\|\s*safe|autoescape", _source(name))] == []
    package = Path(reid_ray.pages.__file__).parents[1]
    html = re.compile(r"</head>|<body|<style|<figure|from html import escape|html\.escape|\bMarkup\(")
    by_hand = [path for path in package.rglob("*.py") if html.search(path.read_text(encoding="utf-8"))]
    assert by_hand == []


def _source(name: str) -> str:
    return (Path(reid_ray.pages.__file__).parent / name).read_text()
