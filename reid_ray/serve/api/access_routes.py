"""Routes of access itself: the page's login and logout, and reading and verifying the audit log.

Knows HTTP; tokens, sessions and the log are others'.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from reid_ray.errors import DataError
from reid_ray.serve.access.audit.chain_check import records_before, verified
from reid_ray.serve.access.gatekeeper import MOST_PURPOSE_CHARS, why_no_guess
from reid_ray.serve.access.roles import AccessRole
from reid_ray.serve.access.route_table import RouteRule
from reid_ray.serve.access.service_access import ServiceAccess
from reid_ray.serve.api.problems import problems

ACCESS_RULES: Mapping[tuple[str, str], RouteRule] = {
    ("POST", "/v1/login"): RouteRule(None, 8192, verb="login"),
    ("POST", "/v1/logout"): RouteRule(None, 1024, verb="logout"),
    ("GET", "/v1/audit"): RouteRule(AccessRole.ADMIN, verb="audit"),
    ("GET", "/v1/audit/verify"): RouteRule(AccessRole.ADMIN, verb="audit.verify"),
}


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class LoginIn(_Strict):
    """A token, and what the session is for."""

    token: str = Field(max_length=200)
    purpose: str | None = Field(None, max_length=MOST_PURPOSE_CHARS)


class LoginOut(BaseModel):
    """Who is logged in."""

    name: str
    role: str


class AuditOut(BaseModel):
    """Records, newest first; `before` asks for the next ones, null where there are none."""

    records: list[dict[str, Any]]
    before: int | None


class AuditVerdictOut(BaseModel):
    """Whether the log is as it was written; `fault` names the first line that is not. `head` is to be noted elsewhere."""

    sound: bool
    records: int
    head: str | None
    mended: int
    fault: str | None


def access_routes(access: ServiceAccess) -> APIRouter:
    """Login, logout and the audit log."""
    router = APIRouter(prefix="/v1", tags=["access"])

    @router.post("/login", responses=problems(409))
    def login(asked: LoginIn, request: Request, response: Response) -> LoginOut:
        """Begin a session: a cookie stands for the token from now on."""
        if access.book is None or access.sessions is None:
            raise HTTPException(409, "this service has no tokens, so there is nothing to log in to: its own machine may do everything")
        caller = access.book.caller_of(asked.token.strip())
        if caller is None:
            refusal = why_no_guess(access, request.scope)
            headers = {name.decode(): value.decode() for name, value in refusal.headers} if refusal else None
            raise HTTPException(refusal.status if refusal else 401, refusal.detail if refusal else "this token is not valid", headers)
        purpose = (asked.purpose or "").strip() or None
        request.scope["state"].update(caller=caller, purpose=purpose)
        response.headers["set-cookie"] = access.sessions.begin(caller, purpose)
        return LoginOut(name=caller.name, role=caller.role.word)

    @router.post("/logout", status_code=204, responses=problems())
    def logout(request: Request) -> Response:
        """End the session, on every replica."""
        if access.sessions is None:
            return Response(status_code=204)
        cookies = request.headers.get("cookie", "")
        request.scope["state"]["caller"] = access.sessions.caller_of(cookies)
        return Response(status_code=204, headers={"set-cookie": access.sessions.end(cookies)})

    _add_audit(router, access)
    return router


def _add_audit(router: APIRouter, access: ServiceAccess) -> None:
    @router.get("/audit", responses=problems(404))
    async def audit(
        before: Annotated[int | None, Query(ge=1, description="only records with smaller numbers")] = None,
        limit: Annotated[int, Query(ge=1, le=1000, description="how many")] = 100,
    ) -> AuditOut:
        """The audit log's records, newest first."""
        if access.audit is None:
            raise HTTPException(404, "this service keeps no audit log; set audit.enabled to keep one")
        records = await asyncio.to_thread(records_before, access.audit.folder, before, limit)
        return AuditOut(records=records, before=records[-1]["n"] if len(records) == limit and records[-1]["n"] > 1 else None)

    @router.get("/audit/verify", responses=problems(404))
    async def verify() -> AuditVerdictOut:
        """Read the whole log: is every record as it was written, and none missing?"""
        if access.audit is None:
            raise HTTPException(404, "this service keeps no audit log; set audit.enabled to keep one")
        try:
            chain = await asyncio.to_thread(verified, access.audit.folder, first_file=None)
        except DataError as error:
            return AuditVerdictOut(sound=False, records=0, head=None, mended=0, fault=str(error))
        head = f"{chain.head.number}:{chain.head.hash}"
        return AuditVerdictOut(sound=True, records=chain.head.number - chain.first + 1, head=head, mended=chain.mended, fault=None)
