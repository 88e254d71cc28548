"""One progress bar for every job: label, rate and counts on a terminal, a line every few seconds in a log."""

from __future__ import annotations

import sys
from typing import Any


def progress_bar(label: str, total: int | None, *, unit: str = "img") -> Any:
    """A tqdm bar on stderr. Use as a context manager; call .update(n) and .set_postfix_str(counts)."""
    from tqdm import tqdm

    on_terminal = sys.stderr.isatty()
    return tqdm(
        desc=label,
        total=total,
        unit=unit,
        dynamic_ncols=on_terminal,
        ncols=None if on_terminal else 100,
        mininterval=0.2 if on_terminal else 5.0,
    )
