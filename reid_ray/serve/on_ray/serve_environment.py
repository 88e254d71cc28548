"""Environment variables by which Ray Serve is set up: its processes read them when they start, so they are set before Ray is started.

A cluster that is joined has its own; cluster/ sets the same.
"""

from __future__ import annotations

from collections.abc import MutableMapping

PROXY_CHECKS = {"RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1"}
"""Ray Serve starts a proxy anew once three looks in a row found it dead: at ten seconds apart, its default, nobody is answered for 34."""


def look_after_proxies(environment: MutableMapping[str, str]) -> None:
    """Have a proxy that has died replaced within seconds; what is set already stays."""
    for name, value in PROXY_CHECKS.items():
        environment.setdefault(name, value)
