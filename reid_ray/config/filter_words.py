"""A filter of a gallery in the words of a command line: column=value, where a value is JSON, or a text that is none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from reid_ray.errors import ConfigError
from reid_ray.terminal.item_words import ADDED


def where_of_words(words: Sequence[str]) -> dict[str, Any]:
    """--where column=value as a filter: JSON values, [lists] and {"from": .., "to": ..}; what is no JSON is a text.

    The time of adding, in a gallery a number of seconds, may be a time in ISO 8601, as these commands print it: UTC unless it says its
    zone.

    Raises:
        ConfigError: it is not of that form.
    """
    found: dict[str, Any] = {}
    for each in words:
        column, sign, text = each.partition("=")
        if not sign:
            raise ConfigError(f"--where {each}: is not of the form column=value")
        try:
            found[column] = json.loads(text)
        except ValueError:
            found[column] = text
        if column == ADDED:
            found[column] = _seconds(found[column])
    return found


def _seconds(value: Any) -> Any:
    """Seconds since 1970 in the place of times; what is no time stays, and the gallery refuses it."""
    if isinstance(value, list):
        return [_seconds(each) for each in value]
    if isinstance(value, dict):
        return {name: _seconds(each) for name, each in value.items()}
    if not isinstance(value, str):
        return value
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        return value
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
