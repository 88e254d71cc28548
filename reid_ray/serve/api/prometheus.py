"""Metrics of a service process in Prometheus' text form, and the ASGI middleware that counts its requests.

No label holds what was asked or by whom: routes by their templates, statuses, and numbers. Each process has its own registry: on Ray
Serve a scrape reaches one replica; Ray exports numbers of all of them by itself.
"""

from __future__ import annotations

import time
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from reid_ray.retrieval.query import Answer
from reid_ray.serve.operations.search_operations import SearchOperations

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_NO_ROUTE = "none"
_NOBODY_LEFT = 499  # as other servers count a request whose client had gone before it was answered


class ServiceMetrics:
    """The metrics of one process.

    Args:
        operations: whose queue and gallery are told; its answers are counted from now on.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, operations: SearchOperations) -> None:
        self._registry, self._operations = CollectorRegistry(), operations
        name, known = "reid_ray_service_", self._registry
        self._requests = Counter(name + "requests", "Requests by route and status.", ["route", "method", "status"], registry=known)
        self._seconds = Histogram(
            name + "request_seconds", "From a request's head to the end of its answer.", ["route"], buckets=_SECONDS, registry=known
        )
        self._encode = Histogram(
            name + "encode_seconds", "Encoding of a batch, once for each of its searches.", buckets=_SECONDS, registry=known
        )
        self._search = Histogram(
            name + "search_seconds", "Search of a batch, once for each of its searches.", buckets=_SECONDS, registry=known
        )
        self._batch = Histogram(name + "batch_size", "Searches answered together.", buckets=(1, 2, 4, 8, 16, 32, 64, 128), registry=known)
        self._in_hand = Gauge(name + "requests_in_hand", "Requests that are being answered.", registry=known)
        Gauge(name + "searches_waiting", "Searches that wait for a batch.", registry=known).set_function(lambda: operations.waiting)
        Gauge(name + "wait_seconds", "What a search that comes now would wait, about.", registry=known).set_function(
            lambda: operations.wait_s
        )
        self._items = Gauge(name + "gallery_items", "Items that are searched.", registry=known)
        self._generation = Gauge(name + "gallery_generation", "Generation of the gallery that is searched.", registry=known)
        self._ready = Gauge(name + "ready", "Whether model and gallery are loaded.", registry=known)
        self._kinds: dict[tuple[str, str, int], tuple[Any, Any]] = {}
        operations.on_answer(self._answered)

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        self._ready.set(self._operations.is_loaded)
        if self._operations.is_loaded:
            gallery = self._operations.engine.gallery
            self._items.set(len(gallery))
            self._generation.set(gallery.generation)
        found: bytes = generate_latest(self._registry)
        return found

    def _answered(self, answer: Answer) -> None:
        self._encode.observe(answer.encode_ms / 1e3)
        self._search.observe(answer.search_ms / 1e3)
        self._batch.observe(answer.batch)

    def count_refused(self, status: int) -> None:
        """Count a request that was refused by its head alone."""
        requests, seconds = self._of(_NO_ROUTE, _NO_ROUTE, status)
        requests.inc()
        seconds.observe(0.0)

    def _of(self, route: str, method: str, status: int) -> tuple[Any, Any]:
        """The counter and the histogram of a kind of request: looked up once, for that takes longer than to count."""
        key = route, method, status
        if key not in self._kinds:
            self._kinds[key] = self._requests.labels(route, method, str(status)), self._seconds.labels(route)
        return self._kinds[key]

    def middleware(self, app: Any) -> Any:
        """ASGI middleware that counts what `app` answers."""

        async def counted(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            status, started = _NOBODY_LEFT, time.perf_counter()

            async def noted(message: Any) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                await send(message)

            self._in_hand.inc()
            try:
                await app(scope, receive, noted)
            except BaseException:
                status = 500
                raise
            finally:
                self._in_hand.dec()
                route = getattr(scope.get("route"), "path", _NO_ROUTE)
                method = scope["method"] if route != _NO_ROUTE else _NO_ROUTE
                requests, seconds = self._of(route, method, status)
                requests.inc()
                seconds.observe(time.perf_counter() - started)

        return counted
