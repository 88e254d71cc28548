"""The gatekeeper: ASGI middleware in front of the whole application, through which every request and every answer passes once.

It says who asks (token, session, or this machine), compares their role with the route's, and holds rates, sizes and speed. The application
finds in scope["state"] the caller, the number of the request and its purpose. Knows headers, addresses and byte counts; not what is asked.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import secrets
from collections import Counter
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import unquote

from starlette.requests import ClientDisconnect

from reid_ray.redaction import error_location
from reid_ray.serve.access.body_intake import BodyIntake, BodyRefusedError, IncomingBody, too_large
from reid_ray.serve.access.config import AccessConfig
from reid_ray.serve.access.own_machine import why_remote
from reid_ray.serve.access.rates import RateLimit
from reid_ray.serve.access.refusals import Message, Receive, Refusal, Send, protected, refuse
from reid_ray.serve.access.roles import LOCAL, Caller
from reid_ray.serve.access.route_table import RouteRule, RouteTable
from reid_ray.serve.access.session_cookies import Sessions, why_forged
from reid_ray.serve.access.token_book import TokenBook

Scope = MutableMapping[str, Any]

MOST_PURPOSE_CHARS = 500
_LOG = logging.getLogger(__name__)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# Stated twice, one part of a service may go by the first and another by the second.
_ONCE = frozenset({b"authorization", b"host", b"origin", b"sec-fetch-site", b"content-length", b"content-type", b"reid-purpose"})
_CHALLENGE = ((b"www-authenticate", b"Bearer"),)
_FAILED = Refusal(500, "the request failed inside the service; its log says where")


class Gatekeeper:
    """Lets a request through to `app`, or answers it itself in a sentence of JSON.

    It is added to the application as middleware, within what starlette itself puts outside, which would answer failures as plain text.

    Args:
        app: the ASGI application.
        rules: what holds for each route; a request that none is for is refused.
        limits: rates and sizes.
        book: who holds a token; None: only this machine is answered, whatever address the service is bound to, and no request that came
            through a proxy, which reaches it from this machine though whoever sent it may sit anywhere.
        sessions: of the page; None where there are no tokens.
        purpose_required: whether a search has to say what it is for.
    """

    def __init__(
        self,
        app: Any,
        *,
        rules: RouteTable,
        limits: AccessConfig,
        book: TokenBook | None = None,
        sessions: Sessions | None = None,
        purpose_required: bool = False,
    ) -> None:
        self._app, self._rules, self._book, self._sessions = app, rules, book, sessions
        self._purpose_required = purpose_required
        self._intake = BodyIntake(limits)
        per_s = limits.searches_per_s
        self._searches = RateLimit(per_s, max(per_s, limits.searches_at_once)) if per_s is not None else None
        self._guesses = RateLimit(limits.guesses_per_minute / 60, max(1.0, limits.guesses_per_minute))
        self.refused: Counter[int] = Counter()  # status -> requests, for metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": "this service has no websockets"})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers, malformed = _headers(scope)
        given = headers.get(b"x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        verdict = malformed or self._judged(scope, headers, state)
        if isinstance(verdict, Refusal):
            self.refused[verdict.status] += 1
            await refuse(send, verdict, request_id.encode())
        else:
            await self._through(scope, receive, send, verdict, request_id.encode())

    async def _through(self, scope: Scope, receive: Receive, send: Send, rule: RouteRule, request_id: bytes) -> None:
        started = False

        async def send_protected(message: Message) -> None:
            nonlocal started
            if body.refusal is not None and not started:
                return  # whatever the application makes of a body that was cut off
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = protected(message.get("headers", ()), request_id)
            await send(message)

        refusal = None
        with IncomingBody(receive, rule, self._intake) as body:
            try:
                await self._app(scope, body.receive, send_protected)
            except BodyRefusedError:
                pass
            except ClientDisconnect:
                return  # nobody is left to be answered
            except Exception as error:
                _LOG.error("request %s failed: %s", request_id.decode(), error_location(error))
                if started:
                    raise  # the server ends a connection whose answer is not whole
                refusal = _FAILED
        refusal = body.refusal or refusal
        if refusal is not None and not started:
            self.refused[refusal.status] += 1
            await refuse(send, refusal, request_id)

    def _judged(self, scope: Scope, headers: dict[bytes, str], state: dict[str, Any]) -> RouteRule | Refusal:
        method, path = scope["method"], scope["path"].removeprefix(scope.get("root_path", ""))
        rule = self._rules.rule_of(method, path)
        is_open = rule is not None and rule.least is None
        if self._book is None and not (is_open and rule is not None and rule.probe):
            remote = why_remote(scope.get("client"), headers)
            if remote is not None:
                return Refusal(
                    403, f"this service has no tokens, so it answers only its own machine, {remote}; set access.tokens to open it"
                )
        caller = None if is_open else self._caller(scope, headers)
        if isinstance(caller, Refusal):
            return caller
        if rule is None:
            return self._no_route(method, path)
        forged = self._why_forged(scope, headers, rule, caller)
        if forged is not None:
            return Refusal(403, f"another site's page may have sent this request, for {forged}; ask from this service's own page")
        if caller is not None and rule.least is not None and caller.role < rule.least:
            return Refusal(403, f"{caller.name} has the role {caller.role.word}; this needs the role {rule.least.word}")
        state["caller"] = caller
        return self._admitted(headers, state, rule, caller)

    def _admitted(self, headers: dict[bytes, str], state: dict[str, Any], rule: RouteRule, caller: Caller | None) -> RouteRule | Refusal:
        length = headers.get(b"content-length", "")
        if length.isdigit() and int(length) > rule.body_bytes:
            return too_large(rule.body_bytes)
        stated = headers.get(b"reid-purpose")
        purpose = unquote(stated).strip() if stated is not None else caller.purpose if caller is not None else None
        state["purpose"] = purpose or None
        if purpose and len(purpose) > MOST_PURPOSE_CHARS:
            return Refusal(422, f"Reid-Purpose has {len(purpose)} characters; the longest allowed is {MOST_PURPOSE_CHARS}")
        if not rule.searches or caller is None:
            return rule
        if self._purpose_required and not purpose:
            return Refusal(422, "this service wants to know what a search is for: state it in the header Reid-Purpose, or at login")
        if self._searches is not None and caller is not LOCAL:
            wait = self._searches.take(caller.name)
            if wait:
                return Refusal.later(429, f"{caller.name} searches faster than this service allows; wait {wait:.1f} s", wait)
        return rule

    def _caller(self, scope: Scope, headers: dict[bytes, str]) -> Caller | Refusal:
        """Who asks, by token, session or machine."""
        if self._book is None:
            return LOCAL
        authorization, cookies = headers.get(b"authorization"), headers.get(b"cookie")
        caller = None
        if authorization is not None:
            scheme, _, token = authorization.partition(" ")
            caller = self._book.caller_of(token.strip()) if scheme.lower() == "bearer" else None
        elif cookies is not None and self._sessions is not None:
            caller = self._sessions.caller_of(cookies)
        if caller is not None:
            return caller
        if authorization is not None:
            refusal = self.wrong_guess(scope)
            if refusal is not None:
                return refusal
        return Refusal(401, "a valid token is required: send the header Authorization: Bearer TOKEN, or log in on the page", _CHALLENGE)

    def wrong_guess(self, scope: Scope) -> Refusal | None:
        """Count a wrong token from a request's address; a refusal once there were too many.

        Only wrong ones are ever refused: of 256 random bits nothing is guessed, and a limit on right ones would let whoever shares an
        address with others (a proxy, an office) lock them out.
        """
        wait = self._guesses.take(_network_of(scope.get("client")))
        return Refusal.later(429, f"too many wrong tokens came from this address; wait {wait:.0f} s", wait) if wait else None

    def _why_forged(self, scope: Scope, headers: dict[bytes, str], rule: RouteRule, caller: Caller | None) -> str | None:
        method = scope["method"]
        if rule.least is None and method in ("GET", "HEAD"):
            return None  # the page may be linked to
        if caller is not None and caller is not LOCAL and not caller.login:
            return None  # a token is in no browser's power to add
        return why_forged(method, headers, ambient=caller is not None and caller.login, scheme=scope.get("scheme", "http"))

    def _no_route(self, method: str, path: str) -> Refusal:
        methods = self._rules.methods_of(path)
        if methods:
            return Refusal(405, f"{method[:20]} is not allowed here; {' or '.join(methods)} is", ((b"allow", ", ".join(methods).encode()),))
        return Refusal(404, "there is nothing at this path; /openapi.json lists what there is")


def _headers(scope: Scope) -> tuple[dict[bytes, str], Refusal | None]:
    """Headers by lower-case name, and a refusal where they are malformed."""
    found: dict[bytes, str] = {}
    for raw, value in scope["headers"]:
        name = raw.lower()
        if not (name.isascii() and value.isascii()):
            shown = name.decode("ascii", "replace")[:40]
            return found, Refusal(400, f"the header {shown} has characters beyond ASCII; write them percent-encoded (UTF-8)")
        if name in found and name in _ONCE:
            return found, Refusal(400, f"the header {name.decode()} is there twice; send it once")
        found[name] = f"{found[name]}; {value.decode()}" if name == b"cookie" and name in found else value.decode()
    return found, None


def _network_of(client: Any) -> str:
    """An address, or of IPv6 the network of 64 bits that one site has: it may change the rest at will."""
    try:
        address = ipaddress.ip_address(str(client[0]))
    except (ValueError, TypeError, IndexError):
        return "unknown"
    return str(address) if address.version == 4 else str(ipaddress.ip_network((address, 64), strict=False))
