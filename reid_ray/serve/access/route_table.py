"""Rules by route: the least role that may ask it, how large its body may be, and whether it counts as a search.

A request that no rule is for is refused, so that a route nobody thought about is closed. Knows methods and paths; not who asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.routing import compile_path

from reid_ray.serve.access.roles import AccessRole


@dataclass(frozen=True)
class RouteRule:
    """What holds for a route.

    Args:
        least: the least role that may ask it; None: whoever reaches the service.
        body_bytes: the largest body.
        searches: whether it counts against the caller's rate of searches, and needs a purpose where searches do.
        spooled: whether its body goes to the disk as it comes, and so is not counted as held in memory.
        probe: whether it is answered to other machines even by a service that answers only its own.
        verb: what the audit log calls it; None: the gatekeeper leaves recording to the route, or there is nothing to record.
    """

    least: AccessRole | None
    body_bytes: int = 0
    searches: bool = False
    spooled: bool = False
    probe: bool = False
    verb: str | None = None


class RouteTable:
    """The rules of an application.

    Args:
        rules: (method, path as the application's routes spell it, such as /v1/items/{name}) -> rule. HEAD is as GET.
    """

    def __init__(self, rules: Mapping[tuple[str, str], RouteRule]) -> None:
        self.rules = dict(rules)
        self._fixed = {key: rule for key, rule in self.rules.items() if "{" not in key[1]}
        self._patterns = [(method, compile_path(path)[0], rule) for (method, path), rule in self.rules.items() if "{" in path]

    def rule_of(self, method: str, path: str) -> RouteRule | None:
        """The rule of a request; where several patterns fit, the one that asks for the highest role."""
        method = "GET" if method == "HEAD" else method
        fixed = self._fixed.get((method, path))
        if fixed is not None:
            return fixed
        fitting = [rule for each, pattern, rule in self._patterns if each == method and pattern.match(path)]
        return max(fitting, key=lambda rule: rule.least or 0) if fitting else None

    def methods_of(self, path: str) -> list[str]:
        """The methods that rules allow for a path; none for a path that is no route's."""
        found = {method for method, each in self._fixed if each == path} | {
            method for method, each, _ in self._patterns if each.match(path)
        }
        return sorted(found | ({"HEAD"} if "GET" in found else set()))
