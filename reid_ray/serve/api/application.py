"""The HTTP application of the retrieval service: every route over a desk, the guard in front, the page.

Knows what belongs together; not models, galleries or Ray: those stand behind the desk.
"""

from __future__ import annotations

from fastapi import FastAPI, HTTPException, Response

from reid_ray import __version__
from reid_ray.serve.api.gallery_routes import gallery_routes
from reid_ray.serve.api.load_shedding import LoadShedding
from reid_ray.serve.api.problems import add_handlers, problems
from reid_ray.serve.api.prometheus import ServiceMetrics
from reid_ray.serve.api.schema import StatusOut
from reid_ray.serve.api.search_routes import search_routes
from reid_ray.serve.desk.search_desk import Desk
from reid_ray.serve.guard import Guard
from reid_ray.serve.web.page import add_page


def make_api(desk: Desk, *, token_digest: bytes | None) -> FastAPI:
    """The application: searching, reading, health, OpenAPI and the page."""
    api = FastAPI(
        title="reid_ray search",
        version=__version__,
        description="Find people in a gallery by text, by pictures, or by both.",
        docs_url=None,  # Swagger's page would load scripts from another host
        redoc_url=None,
    )
    metrics = ServiceMetrics(desk)
    api.add_middleware(LoadShedding, desk=desk)
    api.add_middleware(Guard, limits=desk.limits, token_digest=token_digest)
    api.add_middleware(metrics.middleware)
    add_handlers(api)
    for routes in (search_routes, gallery_routes):
        api.include_router(routes(desk))
    _add_health(api, desk, metrics)
    add_page(api)
    return api


def _add_health(api: FastAPI, desk: Desk, metrics: ServiceMetrics) -> None:
    @api.head("/v1/live", include_in_schema=False)
    @api.get("/v1/live", tags=["health"], responses=problems())
    async def live() -> StatusOut:
        """200 while the process answers; needs no token and says nothing else."""
        return StatusOut(status="ok")

    @api.head("/v1/ready", include_in_schema=False)
    @api.get("/v1/ready", tags=["health"], responses=problems())
    async def ready() -> StatusOut:
        """200 while searches succeed: one is made, at most once a second; needs no token."""
        if not await desk.is_ready():
            raise HTTPException(503, "searches are not answered yet, or not any more", {"Retry-After": "1"})
        return StatusOut(status="ok")

    @api.get("/metrics", tags=["health"], responses={200: {"content": {"text/plain": {}}}, **problems()}, response_class=Response)
    async def numbers() -> Response:
        """Metrics of this process for Prometheus."""
        return Response(metrics.text(), media_type=metrics.content_type)
