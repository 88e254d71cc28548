"""One progress bar for every job: label, rate and counts on a terminal, a line every few seconds in a log."""

from __future__ import annotations

import sys
from typing import Any


def progress_bar(label: str, total: int | None, *, unit: str = "img", initial: int = 0) -> Any:
    """A tqdm bar on stderr, for use as a context manager: call .update(n) and .set_postfix_str(counts).

    `initial` of the total were done before; they do not count for the rate.
    """
    from tqdm import tqdm

    on_terminal = sys.stderr.isatty()
    return tqdm(
        desc=label,
        total=total,
        initial=initial,
        unit=unit,
        dynamic_ncols=on_terminal,
        ncols=None if on_terminal else 100,
        mininterval=0.2 if on_terminal else 5.0,
    )
