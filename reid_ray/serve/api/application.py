"""The HTTP application of the retrieval service: every route over its operations, the guard in front, the page.

Knows what belongs together; not models, galleries or Ray: those stand behind them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fastapi import APIRouter, FastAPI, HTTPException, Response

from reid_ray import __version__
from reid_ray.serve.access.access_log import AccessLog
from reid_ray.serve.access.config import AccessLogConfig
from reid_ray.serve.access.gatekeeper import Gatekeeper
from reid_ray.serve.access.roles import AccessRole
from reid_ray.serve.access.route_table import RouteRule, RouteTable
from reid_ray.serve.access.service_access import ServiceAccess
from reid_ray.serve.api.access_routes import ACCESS_RULES, access_routes
from reid_ray.serve.api.direct_search import DirectSearch
from reid_ray.serve.api.gallery_routes import gallery_routes, gallery_rules
from reid_ray.serve.api.load_shedding import EarlyShedding, LoadShedding
from reid_ray.serve.api.problems import add_handlers, problems
from reid_ray.serve.api.prometheus import ServiceMetrics
from reid_ray.serve.api.schema import StatusOut
from reid_ray.serve.api.search_routes import search_routes, search_rules
from reid_ray.serve.operations.search_operations import SearchOperations
from reid_ray.serve.web.page import PAGE_RULES, add_page

RuledRoutes = tuple[APIRouter, Mapping[tuple[str, str], RouteRule]]
_OPEN: Mapping[tuple[str, str], RouteRule] = {
    ("GET", "/v1/live"): RouteRule(None, probe=True),
    ("GET", "/v1/ready"): RouteRule(None, probe=True),
    **PAGE_RULES,
    ("GET", "/openapi.json"): RouteRule(None),
    ("GET", "/metrics"): RouteRule(AccessRole.SEARCH),
}


def make_api(
    operations: SearchOperations,
    *,
    access: ServiceAccess,
    further: Sequence[RuledRoutes] = (),
    access_log: AccessLogConfig | None = None,
) -> FastAPI:
    """The application: searching, reading, health, OpenAPI, access and the page.

    Args:
        operations: answers.
        access: who may ask.
        further: routers that are added, each with the rules of its routes.
        access_log: whether requests are logged, and whereto; None: they are not.
    """
    api = FastAPI(
        title="reid_ray search",
        version=__version__,
        description="Find people in a gallery by text, by pictures, or by both.",
        docs_url=None,  # Swagger's page would load scripts from another host
        redoc_url=None,
    )
    rules = {**_OPEN, **search_rules(operations.limits), **gallery_rules(operations.limits), **ACCESS_RULES}
    for routes, their_rules in further:
        api.include_router(routes)
        rules.update(their_rules)
    metrics = ServiceMetrics(operations)
    api.add_middleware(DirectSearch, operations=operations)
    api.add_middleware(LoadShedding, operations=operations)
    api.add_middleware(Gatekeeper, rules=RouteTable(rules), access=access)
    api.add_middleware(metrics.middleware)
    if access_log is not None and access_log.path is not None:
        api.add_middleware(AccessLog, config=access_log)
    else:  # a log of every request has refused ones, too
        api.state.early_answer = EarlyShedding(operations, metrics)
    add_handlers(api)
    for routes in (search_routes(operations), gallery_routes(operations), access_routes(access)):
        api.include_router(routes)
    _add_health(api, operations, metrics)
    add_page(api)
    return api


def _add_health(api: FastAPI, operations: SearchOperations, metrics: ServiceMetrics) -> None:
    @api.head("/v1/live", include_in_schema=False)
    @api.get("/v1/live", tags=["health"], responses=problems())
    async def live() -> StatusOut:
        """200 while the process answers; needs no token and says nothing else."""
        return StatusOut(status="ok")

    @api.head("/v1/ready", include_in_schema=False)
    @api.get("/v1/ready", tags=["health"], responses=problems())
    async def ready() -> StatusOut:
        """200 while searches succeed: one is made, at most once a second; needs no token."""
        if not await operations.is_ready():
            raise HTTPException(503, "searches are not answered yet, or not any more", {"Retry-After": "1"})
        return StatusOut(status="ok")

    @api.get("/metrics", tags=["health"], responses={200: {"content": {"text/plain": {}}}, **problems()}, response_class=Response)
    async def numbers() -> Response:
        """Metrics of this process for Prometheus."""
        return Response(metrics.text(), media_type=metrics.content_type)
