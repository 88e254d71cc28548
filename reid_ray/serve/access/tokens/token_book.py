"""Tokens as a running service knows them: the tokens file, read again when it has changed, looked at once a second at most.

A file that breaks while the service runs does not lock everybody out, nor let anybody in: what it held last stays valid, and the log says
so. Knows the file and the time; not requests.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from reid_ray.errors import DataError
from reid_ray.serve.access.roles import Caller
from reid_ray.serve.access.tokens.token_file import TokenEntry, entry_of, read_tokens

_LOG = logging.getLogger(__name__)
LOOK_EVERY_S = 1.0


class TokenBook:
    """Who holds a token. Threads may share one.

    Args:
        path: the tokens file.
        clock: seconds since 1970, for expiry.
        ticks: seconds since any time, for looking at the file.

    Raises:
        DataError: the file is missing or broken at the start.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time, ticks: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock, self._ticks = path, clock, ticks
        self._by_id = {entry.id: entry for entry in read_tokens(path)}
        self._looked, self._complaint = ticks(), ""
        self._looking = threading.Lock()

    def caller_of(self, token: str) -> Caller | None:
        """Who a token belongs to; None if it is unknown, revoked or expired."""
        self._look()
        return self._caller(entry_of(token, self._by_id))

    def caller_by_id(self, token_id: str) -> Caller | None:
        """Who the token of an id belongs to, for sessions that it began; None once it is revoked, rotated or expired."""
        self._look()
        return self._caller(self._by_id.get(token_id))

    def _caller(self, entry: TokenEntry | None) -> Caller | None:
        return Caller(entry.name, entry.role, entry.id) if entry is not None and entry.valid_at(self._clock()) else None

    def _look(self) -> None:
        if self._ticks() - self._looked < LOOK_EVERY_S or not self._looking.acquire(blocking=False):
            return
        try:
            self._looked = self._ticks()
            self._by_id = {entry.id: entry for entry in read_tokens(self._path)}
            if self._complaint:
                _LOG.warning("%s: the tokens file can be read again", self._path)
            self._complaint = ""
        except DataError as error:
            if str(error) != self._complaint:
                _LOG.error("%s; until it is mended, the tokens that it held before stay valid", error)
            self._complaint = str(error)
        finally:
            self._looking.release()
