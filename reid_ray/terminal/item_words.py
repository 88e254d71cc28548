"""What a gallery holds, in words for people: items as JSON on a line, the time of adding and other times in ISO 8601, ids by name.

Knows values; not galleries. Programs read numbers: the commands' --json, or tables.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

ADDED = "added_s"  # the gallery's column of seconds since 1970 (gallery.items)
_SHOWN = 8


def item_in_words(item: Mapping[str, Any]) -> str:
    """The columns of an item that have a value, but for its id, as JSON."""
    shown = {name: value_in_words(name, value) for name, value in item.items() if value is not None and name != "item_id"}
    return json.dumps(shown, ensure_ascii=False, default=str)


def value_in_words(column: str, value: Any) -> Any:
    """As in 2026-03-01T07:15:00Z for 1772349300.25 of added_s; what is no time as it is."""
    if column == ADDED and isinstance(value, int | float) and not isinstance(value, bool):
        return datetime.fromtimestamp(int(value), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return value.isoformat() if isinstance(value, datetime) else value


def ids_in_words(ids: Sequence[str]) -> str:
    """As in: a, b and 3 more."""
    return ", ".join(ids[:_SHOWN]) + (f" and {len(ids) - _SHOWN:,} more" if len(ids) > _SHOWN else "")
