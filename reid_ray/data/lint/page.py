"""Lint's findings as a table for the terminal, as JSON, and as one HTML page with sample pictures in it.

Knows findings; not how they were found. The page stands alone: no script, no file beside it, every text escaped.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from reid_ray.data.lint.checks import Finding

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #1b1f24; background: #fff }
table { border-collapse: collapse; margin: 1rem 0 } td, th { border-bottom: 1px solid #d7dbe0; padding: .3rem .8rem; text-align: left }
td.number { text-align: right; font-variant-numeric: tabular-nums } .level { font-weight: 600 }
.warning { color: #8a5300 } .note { color: #2f5d8a }
figure { display: inline-block; margin: .5rem 1rem .5rem 0; vertical-align: top; max-width: 22rem } img { height: 128px; margin-right: 4px }
figcaption { font-size: 13px; color: #4a525c; overflow-wrap: anywhere }
"""


def table_text(findings: Sequence[Finding]) -> str:
    """A plain table: level, rule, count, what it means."""
    if not findings:
        return "lint: nothing found"
    rows = [("level", "rule", "count", "what"), *((f.level, f.rule, str(f.count), f.message) for f in findings)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}  {d}" for a, b, c, d in rows)


def as_json(source: str, splits: Mapping[str, Any], unusable: Mapping[str, int], findings: Sequence[Finding]) -> dict[str, Any]:
    """The whole report without pictures."""
    return {
        "source": source,
        "splits": dict(splits),
        "unusable": dict(sorted(unusable.items())),
        "findings": [
            {
                "rule": finding.rule,
                "level": finding.level,
                "count": finding.count,
                "message": finding.message,
                "examples": [{"image_ids": list(example.image_ids), "text": example.text} for example in finding.examples],
            }
            for finding in findings
        ],
    }


def as_html(report: Mapping[str, Any], thumbnails: Mapping[str, bytes]) -> str:
    """The report as a page; `thumbnails` maps image ids to JPEG files, where there is a picture to show."""
    sections = "".join(
        f'<section id="{number}">{_section(finding, thumbnails)}</section>' for number, finding in enumerate(report["findings"])
    )
    split_rows = "".join(
        f"<tr><td>{escape(split)}</td>" + "".join(f'<td class="number">{sizes[key]:,}</td>' for key in ("images", "identities", "captions"))
        for split, sizes in report["splits"].items()
    )
    finding_rows = "".join(
        f'<tr><td class="level {finding["level"]}">{finding["level"]}</td><td><a href="#{n}">{escape(finding["rule"])}</a></td>'
        f'<td class="number">{finding["count"]:,}</td><td>{escape(finding["message"])}</td></tr>'
        for n, finding in enumerate(report["findings"])
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Lint of {escape(report["source"])}</title><style>{_STYLE}</style>'
        f"<h1>Lint of {escape(report['source'])}</h1>"
        f"<table><tr><th>split</th><th>usable images</th><th>identities</th><th>captions</th></tr>{split_rows}</table>"
        f"<table><tr><th>level</th><th>rule</th><th>count</th><th>what</th></tr>{finding_rows or '<tr><td>nothing found</td></tr>'}</table>"
        f"{sections}</html>\n"
    )


def _section(finding: Mapping[str, Any], thumbnails: Mapping[str, bytes]) -> str:
    figures = "".join(_figure(example, thumbnails) for example in finding["examples"])
    title = f'<span class="{finding["level"]}">{finding["level"]}</span> {escape(finding["rule"])}: {finding["count"]:,}'
    return f"<h2>{title}</h2><p>{escape(finding['message'])}</p>{figures}"


def _figure(example: Mapping[str, Any], thumbnails: Mapping[str, bytes]) -> str:
    pictures = "".join(
        f'<img alt="{escape(image_id)}" src="data:image/jpeg;base64,{base64.b64encode(thumbnails[image_id]).decode()}">'
        for image_id in example["image_ids"]
        if image_id in thumbnails
    )
    names = ", ".join(escape(image_id) for image_id in example["image_ids"])
    return f"<figure>{pictures}<figcaption>{names}<br>{escape(example['text'])}</figcaption></figure>"
