"""Whether the client of a request is still there: the HTTP server says it, and what waits for its turn asks before it is computed.

On Ray Serve nothing is said, for there a request whose client has gone is cancelled. Knows ASGI's scope; not what is asked.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any

_KEY = "client_is_gone"


class ClientGoneError(Exception):
    """Nobody waits for the answer any more."""


def stays() -> bool:
    """Of a client that nothing is known of: it is not gone."""
    return False


def say_presence(state: MutableMapping[str, Any], is_gone: Callable[[], bool]) -> None:
    """Have a request, of that scope["state"], know whether its client has gone; asked from any thread."""
    state[_KEY] = is_gone


def gone_of(state: MutableMapping[str, Any]) -> Callable[[], bool]:
    """Says whether the client has gone, of a request's scope["state"]."""
    found: Callable[[], bool] = state.get(_KEY, stays)
    return found
