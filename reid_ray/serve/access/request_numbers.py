"""Numbers of requests: the caller's own, or random bits. The audit log, answers and logs know a request by it."""

from __future__ import annotations

import re
import secrets

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DRAWN = 64  # drawn at once: whoever asks the system waits for the interpreter's lock afterwards


class RequestNumbers:
    """Gives each request its number."""

    def __init__(self) -> None:
        self._drawn: list[str] = []

    def of(self, given: str) -> str:
        """The number that a caller gave, if it can be one, or 64 random bits."""
        if _REQUEST_ID.fullmatch(given):
            return given
        if not self._drawn:
            drawn = secrets.token_hex(8 * _DRAWN)
            self._drawn = [drawn[start : start + 16] for start in range(0, len(drawn), 16)]
        return self._drawn.pop()
