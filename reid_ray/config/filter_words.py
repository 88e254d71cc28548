"""A filter of a gallery in the words of a command line: column=value, where a value is JSON, or a text that is none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from reid_ray.errors import ConfigError


def where_of_words(words: Sequence[str]) -> dict[str, Any]:
    """--where column=value as a filter: JSON values, [lists] and {"from": .., "to": ..}; what is no JSON is a text.

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
    return found
