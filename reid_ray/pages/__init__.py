"""HTML pages: templates (jinja2) beside this file, filled with values. Knows no job; what a page says is prepared beside its job.

Every page extends base.html.jinja, which has the style, and is one file that loads nothing from elsewhere. Autoescaping is on for every
template, so a caption or file name shows as text whatever it holds; no template marks a value as safe.
"""

from __future__ import annotations

import base64
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2


@lru_cache(maxsize=1)
def templates() -> jinja2.Environment:
    """The environment of all pages: a value that a template names and nobody gave is an error, not an empty place."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def render(page: str, **values: Any) -> str:
    """The page of the template `page`.html.jinja, as a string."""
    return templates().get_template(f"{page}.html.jinja").render(values)


def jpeg_url(jpeg: bytes) -> str:
    """A JPEG file as a data: URL, to embed a picture in its page."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
