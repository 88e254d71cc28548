"""How many there are, in words: 1 row, 2 rows, 1,200 rows. Knows numbers and nouns."""

from __future__ import annotations


def counted(number: int, noun: str, several: str | None = None) -> str:
    """As in 1 row, 2 rows, 1,200 rows.

    Args:
        number: how many.
        noun: of one of them.
        several: of several, where that is not the noun and an s.
    """
    return f"{number:,} {noun if number == 1 else several or f'{noun}s'}"
