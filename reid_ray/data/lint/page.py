"""Lint's findings as a table for the terminal, as JSON, and as one HTML page with sample pictures in it.

Knows findings; not how they were found. The page is the template lint.html.jinja of reid_ray.pages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reid_ray.data.lint.checks import Finding
from reid_ray.pages import jpeg_url, render


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
    pictures = {image_id: jpeg_url(jpeg) for image_id, jpeg in thumbnails.items()}
    return render("lint", title=f"Lint of {report['source']}", splits=report["splits"], findings=report["findings"], pictures=pictures)
