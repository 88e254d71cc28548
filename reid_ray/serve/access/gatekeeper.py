"""The gatekeeper: ASGI middleware in front of the whole application, through which every request and every answer passes once.

It says who asks (token, session, or this machine), compares their role with the route's, and holds rates, sizes and speed. The application
finds in scope["state"] the caller, the number of the request and its purpose. Knows headers, addresses and byte counts; not what is asked.
"""

from __future__ import annotations

import ipaddress
import logging
from collections import Counter
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import unquote

from starlette.requests import ClientDisconnect

from reid_ray.redaction import error_location
from reid_ray.serve.access.audit.audit_log import AuditedAct, AuditFailedError
from reid_ray.serve.access.audit.noted import note_in
from reid_ray.serve.access.body_intake import BodyIntake, BodyRefusedError, IncomingBody, too_large
from reid_ray.serve.access.own_machine import why_remote
from reid_ray.serve.access.refusals import Message, Receive, Refusal, Send, protected, refuse
from reid_ray.serve.access.request_numbers import RequestNumbers
from reid_ray.serve.access.roles import LOCAL, AccessRole, Caller
from reid_ray.serve.access.route_table import RouteRule, RouteTable
from reid_ray.serve.access.service_access import ServiceAccess
from reid_ray.serve.access.session_cookies import why_forged
from reid_ray.serve.client_presence import ClientGoneError

Scope = MutableMapping[str, Any]

MOST_PURPOSE_CHARS = 500
_LOG = logging.getLogger(__name__)
# Stated twice, one part of a service may go by the first and another by the second.
_ONCE = frozenset({b"authorization", b"host", b"origin", b"sec-fetch-site", b"content-length", b"content-type", b"reid-purpose"})
_TOO_MANY = frozenset({429, 503})  # nothing was done for those, and a flood of them must not fill the log
_CHALLENGE = ((b"www-authenticate", b"Bearer"),)
_FAILED = Refusal(500, "the request failed inside the service; its log says where")


class Gatekeeper:
    """Lets a request through to `app`, or answers it itself in a sentence of JSON.

    It is added to the application as middleware, within what starlette itself puts outside, which would answer failures as plain text.

    Args:
        app: the ASGI application.
        rules: what holds for each route; a request that none is for is refused.
        access: tokens, sessions, rates and the audit log. Without tokens only this machine is answered, whatever address the service is
            bound to, and no request that came through a proxy: it reaches the service from this machine, whoever sent it.
    """

    def __init__(self, app: Any, *, rules: RouteTable, access: ServiceAccess) -> None:
        self._app, self._rules, self._access = app, rules, access
        self._intake = BodyIntake(access.limits)
        self.refused: Counter[int] = Counter()  # status -> requests, for metrics
        self._numbers = RequestNumbers()

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
        request_id = self._numbers.of(headers.get(b"x-request-id", ""))
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        verdict = malformed or self._judged(scope, headers, state)
        if isinstance(verdict, Refusal):
            self.refused[verdict.status] += 1
            await refuse(send, await self._refusal_recorded(verdict, scope, state), request_id.encode())
        else:
            await self._through(scope, receive, send, verdict, request_id.encode())

    async def _through(self, scope: Scope, receive: Receive, send: Send, rule: RouteRule, request_id: bytes) -> None:
        started, refusal = False, None

        async def send_protected(message: Message) -> None:
            nonlocal started
            if body.refusal is not None and not started:
                return  # whatever the application makes of a body that was cut off
            if message["type"] == "http.response.start":
                if rule.verb is not None and (_changes(scope, rule) or message["status"] not in _TOO_MANY):
                    await self._record(scope["state"], rule.verb, message["status"], durable=_changes(scope, rule))
                started = True
                message["headers"] = protected(message.get("headers", ()), request_id)
            await send(message)

        with IncomingBody(receive, rule, self._intake) as body:
            try:
                if _changes(scope, rule):  # whatever happens to this process, that it was asked for is on the disk
                    asked = {"method": scope["method"], "path": scope["path"][:300]}
                    await self._record(scope["state"], "asked", "begun", durable=True, **asked)
                await self._app(scope, body.receive, send_protected)
            except BodyRefusedError:
                pass
            except (ClientDisconnect, ClientGoneError):
                return  # nobody is left to be answered
            except Exception as error:
                if started:
                    raise  # the server ends a connection whose answer is not whole
                refusal = _refusal_of(error, request_id)
        refusal = body.refusal or refusal
        if refusal is not None and not started:
            self.refused[refusal.status] += 1
            verb = rule.verb or ("refused" if _changes(scope, rule) else None)
            await refuse(send, await self._refusal_recorded(refusal, scope, scope["state"], verb), request_id)

    async def _record(self, state: dict[str, Any], verb: str, outcome: int | str, *, durable: bool = False, **what: Any) -> None:
        """Record a request.

        Raises:
            AuditFailedError: it cannot be recorded, and so not be answered.
        """
        if self._access.audit is None:
            return
        note = note_in(state)
        act = AuditedAct(
            state.get("caller"),
            verb,
            outcome,
            purpose=state.get("purpose"),
            request=state["request_id"],
            items=note.items,
            sought=note.sought,
            ids=note.ids,
            what={**note.what, **what},
            durable=durable,
        )
        await self._access.audit.recorded(act)

    async def _refusal_recorded(self, refusal: Refusal, scope: Scope, state: dict[str, Any], verb: str | None = None) -> Refusal:
        """A refusal, recorded if it tells of somebody who tried what they may not, or of a request that was let through."""
        wrong_token = refusal.status == 401 and state.get("guessed", False)
        known = refusal.status == 403 and state.get("caller") is not None
        if verb is None and not known and not wrong_token:
            return refusal
        try:
            what = {"method": scope["method"][:20], "path": scope["path"][:300]} if verb is None else {}
            await self._record(state, verb or "refused", refusal.status, **what)
        except AuditFailedError as error:
            return _refusal_of(error, state["request_id"].encode())
        return refusal

    def _judged(self, scope: Scope, headers: dict[bytes, str], state: dict[str, Any]) -> RouteRule | Refusal:
        method, path = scope["method"], scope["path"].removeprefix(scope.get("root_path", ""))
        rule = self._rules.rule_of(method, path)
        is_open = rule is not None and rule.least is None
        if self._access.book is None and not (is_open and rule is not None and rule.probe):
            remote = why_remote(scope.get("client"), headers)
            if remote is not None:
                return Refusal(
                    403, f"this service has no tokens, so it answers only its own machine, {remote}; set access.tokens to open it"
                )
        caller = None if is_open else self._caller(scope, headers, state)
        if isinstance(caller, Refusal):
            return caller
        state["caller"] = caller
        if rule is None:
            return self._no_route(method, path)
        forged = self._why_forged(scope, headers, rule, caller)
        if forged is not None:
            return Refusal(403, f"another site's page may have sent this request, for {forged}; ask from this service's own page")
        if caller is not None and rule.least is not None and caller.role < rule.least:
            return Refusal(403, f"{caller.name} has the role {caller.role.word}; this needs the role {rule.least.word}")
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
        if self._access.purpose_required and not purpose:
            return Refusal(422, "this service wants to know what a search is for: state it in the header Reid-Purpose, or at login")
        if self._access.searches is not None and caller is not LOCAL:
            wait = self._access.searches.take(caller.name)
            if wait:
                return Refusal.later(429, f"{caller.name} searches faster than this service allows; wait {wait:.1f} s", wait)
        return rule

    def _caller(self, scope: Scope, headers: dict[bytes, str], state: dict[str, Any]) -> Caller | Refusal:
        """Who asks, by token, session or machine."""
        book, sessions = self._access.book, self._access.sessions
        if book is None:
            return LOCAL
        authorization, cookies = headers.get(b"authorization"), headers.get(b"cookie")
        caller = None
        if authorization is not None:
            scheme, _, token = authorization.partition(" ")
            caller = book.caller_of(token.strip()) if scheme.lower() == "bearer" else None
        elif cookies is not None and sessions is not None:
            caller = sessions.caller_of(cookies)
        if caller is not None:
            return caller
        if authorization is not None:
            state["guessed"] = True
            refusal = why_no_guess(self._access, scope)
            if refusal is not None:
                return refusal
        return Refusal(401, "a valid token is required: send the header Authorization: Bearer TOKEN, or log in on the page", _CHALLENGE)

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


def why_no_guess(access: ServiceAccess, scope: Scope) -> Refusal | None:
    """Count a wrong token from a request's address; a refusal once there were too many.

    Only wrong ones are ever refused: of 256 random bits nothing is guessed, and a limit on right ones would let whoever shares an address
    with others (a proxy, an office) lock them out.
    """
    wait = access.guesses.take(_network_of(scope.get("client")))
    return Refusal.later(429, f"too many wrong tokens came from this address; wait {wait:.0f} s", wait) if wait else None


def _changes(scope: Scope, rule: RouteRule) -> bool:
    """Whether a request may change the gallery."""
    return rule.least is not None and rule.least >= AccessRole.WRITE and scope["method"] not in ("GET", "HEAD")


def _refusal_of(error: Exception, request_id: bytes) -> Refusal:
    if isinstance(error, AuditFailedError):
        return Refusal.later(503, str(error), 5)
    _LOG.error("request %s failed: %s", request_id.decode(), error_location(error))
    return _FAILED


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
