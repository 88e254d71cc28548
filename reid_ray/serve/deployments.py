"""Ray Serve deployments of the search service: Searcher replicas with encoder and index, Front replicas as HTTP ingress.

Knows Ray Serve; the work is in plain classes: retrieval.search.SearchEngine and serve.app.make_api. Queries that arrive together are
encoded and searched together.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray import serve
from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle

from reid_ray.errors import ResourceError
from reid_ray.redaction import error_location
from reid_ray.retrieval.divided_gallery import SharesConfig
from reid_ray.retrieval.encoder_identity import encoder_identity
from reid_ray.retrieval.search import Answer, Query, SearchEngine
from reid_ray.retrieval.searched_folder import SearchedGallery, encoder_of, keep_erasures, refuse_unfit
from reid_ray.serve.app import IncompleteError, OverloadedError, make_api
from reid_ray.serve.config import SearcherConfig, ServeConfig, ServeJob
from reid_ray.serve.guard import digest_of
from reid_ray.serve.micro_batches import MicroBatcher
from reid_ray.storage.object_store.object_client import is_store_address


def application(config: ServeJob, *, searcher_class: type | None = None) -> serve.Application:
    """The service, ready for serve.run; what cannot work is refused here, before a replica starts.

    Args:
        config: the service.
        searcher_class: what answers the queries, with Searcher's interface; None takes Searcher.

    Raises:
        ConfigError: the token is not set.
        DataError: index or encoder are missing, or do not belong together, or an editor made pictures of the index.
    """
    token = config.serve.token()
    encoder = encoder_of(config.index, config.encoder)
    dim, fingerprint = encoder_identity(encoder)
    refuse_unfit(config.index, dim=dim, fingerprint=fingerprint, include_synthetic=config.include_synthetic)
    deployment = _searcher_deployment(searcher_class or Searcher, config.searcher)
    searcher = deployment.bind(_absolute(config.index), _absolute(encoder), config.searcher, config.serve, config.shares)
    front = serve.deployment(
        Front,
        name="Front",
        num_replicas=config.front.replicas,
        max_ongoing_requests=config.front.max_ongoing_requests,
        ray_actor_options={"num_cpus": config.front.num_cpus},
    )
    return front.bind(searcher, _absolute(config.index), config.serve, digest_of(token) if token is not None else None)


class QueryFailedError(Exception):
    """A query that could not be answered; says where, never what was asked."""


class Searcher:
    """A replica that answers queries, batched."""

    def __init__(self, index: str, encoder: str, config: SearcherConfig, limits: ServeConfig, shares: SharesConfig) -> None:
        self.engine = SearchEngine.load(
            index,
            encoder,
            threads=max(1, int(config.num_cpus)),
            device="cuda:0" if config.num_gpus else "cpu",
            batch_size=config.max_batch_size,
            max_pixels=limits.max_pixels,
            shares=shares,
        )
        self._batcher = MicroBatcher(self.engine.answer, max_batch_size=config.max_batch_size)
        self._erasures = keep_erasures(index)

    async def search(self, query: Query) -> Answer:
        """Answer one query, together with those that arrived while the last batch was answered."""
        try:
            return await self._batcher.submit(query)
        except ResourceError:
            raise IncompleteError from None
        except Exception as error:  # noqa: BLE001 - Ray Serve writes its message into the replica's log, and it may quote the query
            raise QueryFailedError(error_location(error)) from None

    async def describe(self) -> dict[str, Any]:
        """What can be searched."""
        return self.engine.describe()


@serve.ingress()
class Front:
    """HTTP ingress: a replica that checks requests, serves the page and thumbnails, and forwards queries to searchers."""

    def __init__(self, searcher: DeploymentHandle, index: str, limits: ServeConfig, token_digest: bytes | None) -> None:
        self._searcher, self._limits, self._token_digest = _DeploymentBackend(searcher), limits, token_digest
        self._thumbnails = SearchedGallery(index)

    def __serve_build_asgi_app__(self) -> Any:
        """Ray Serve's hook: the application, made in the replica, where the searcher's handle is."""
        return make_api(self._searcher, self._thumbnails, self._limits, token_digest=self._token_digest)


class _DeploymentBackend:
    """A Searcher deployment's handle as serve.app.SearchBackend."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    async def search(self, query: Query) -> Answer:
        try:
            answer: Answer = await self._handle.search.remote(query)
        except BackPressureError as error:
            raise OverloadedError(str(error)) from None
        return answer

    async def describe(self) -> dict[str, Any]:
        facts: dict[str, Any] = await self._handle.describe.remote()
        return facts


def _searcher_deployment(searcher_class: type, config: SearcherConfig) -> serve.Deployment:
    size: dict[str, Any] = {"num_replicas": config.replicas}
    if config.max_replicas is not None:
        size = {
            "autoscaling_config": {
                "min_replicas": config.replicas,
                "max_replicas": config.max_replicas,
                "target_ongoing_requests": config.target_ongoing_requests,
            }
        }
    return serve.deployment(
        searcher_class,
        name="Searcher",
        max_ongoing_requests=config.max_ongoing_requests,
        max_queued_requests=config.max_queued_requests,
        ray_actor_options={"num_cpus": config.num_cpus, "num_gpus": config.num_gpus},
        **size,
    )


def _absolute(path: str) -> str:
    return path if is_store_address(path) else str(Path(path).expanduser().resolve())
