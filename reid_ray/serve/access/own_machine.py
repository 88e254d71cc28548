"""Whether a request comes from this machine, which is whom a service without tokens answers.

Knows addresses and headers. A proxy that leaves no trace in the headers cannot be told from its user; put a token behind it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

# What proxies, load balancers and tunnels add to a request: RFC 7239 and 9110, and the names of the usual ones.
_PROXY = re.compile(
    rb"forwarded|forwarded-.*|via|proxy-.*|x-forwarded|x-forwarded-.*|x-proxy.*|x-original-.*|x-envoy-.*|x-arr-.*|x-amzn-trace-id|cf-.*|"
    rb"cdn-loop|(.*-)?(client|real|remote|connecting|user)-?(ip|addr|address)"
)


@lru_cache(4096)
def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`. A name other than localhost counts as reachable: it may resolve to anything."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def why_remote(client: Any, headers: Mapping[bytes, str]) -> str | None:
    """Why a request may come from another machine; None if it comes from this one.

    Args:
        client: (address, port) of the other end, as ASGI gives it.
        headers: by lower-case name.
    """
    if not client or not is_loopback(str(client[0])) or not _is_own_name(headers.get(b"host", "")):
        return "by its own name"
    trace = next((name for name in headers if _tells_a_proxy(name)), None)
    return None if trace is None else f"and the header {trace.decode('latin-1')} says that this request came through a proxy"


@lru_cache(4096)
def _is_own_name(host: str) -> bool:
    # The Host header too: a page from elsewhere may point its own name at 127.0.0.1 and read the answers through the user's browser.
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    return name is not None and is_loopback(name)


@lru_cache(4096)
def _tells_a_proxy(name: bytes) -> bool:
    return _PROXY.fullmatch(name) is not None
