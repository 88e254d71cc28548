"""Bar charts as coordinates, which the template parts.html.jinja draws as inline SVG. Knows numbers and labels; not HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Bar:
    """One bar, in pixels from the left and the top; a label of None is not written below it."""

    x: float
    y: float
    width: float
    height: float
    title: str
    label: str | None

    @property
    def middle(self) -> float:
        """Where the label is centred."""
        return round(self.x + self.width / 2, 1)


@dataclass(frozen=True)
class Chart:
    """Bars, the picture's size in pixels, and where a dotted line stands, if any."""

    bars: tuple[Bar, ...]
    width: int
    height: int
    colour: str
    mark: float | None


def bar_chart(
    bars: Sequence[tuple[str, float]], *, colour: str = "#4c72b0", height: int = 110, every: int = 1, mark: float | None = None
) -> Chart:
    """Vertical bars.

    Args:
        bars: (label, value) from left to right.
        colour: of the bars.
        height: of the tallest bar, pixels.
        every: label every n-th bar.
        mark: a dotted line at this position, in bars from the left.
    """
    step = max(4.0, min(28.0, 960 / max(1, len(bars))))
    peak = max((value for _, value in bars), default=0) or 1
    drawn = tuple(
        Bar(
            x=round(i * step + 20, 1),
            y=round(height - height * value / peak + 14, 1),
            width=round(step * 0.86, 1),
            height=round(height * value / peak, 1),
            title=f"{label}: {value:g}",
            label=label if i % every == 0 else None,
        )
        for i, (label, value) in enumerate(bars)
    )
    return Chart(drawn, round(len(bars) * step + 40), height + 34, colour, None if mark is None else round(mark * step + 20, 1))
