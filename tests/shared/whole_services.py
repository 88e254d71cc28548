"""A service that searches and changes, in this process: as many replicas over one gallery as wanted, each with its application."""

import asyncio
import contextlib

import httpx
from opened_doors import own_machine
from plain_encoder import DIM, PlainEncoder

from reid_ray.gallery.config import GalleryConfig
from reid_ray.gallery.gallery_writer import create_gallery
from reid_ray.retrieval.search import SearchEngine
from reid_ray.retrieval.searched_folder import SearchedGallery
from reid_ray.serve.adding.config import AddingConfig
from reid_ray.serve.adding.write_operations import WriteOperations
from reid_ray.serve.api.application import make_api
from reid_ray.serve.api.upkeep.change_answers import ChangeDoer, job_recorder
from reid_ray.serve.api.upkeep.job_routes import job_routes, job_rules
from reid_ray.serve.api.upkeep.write_routes import WRITE_RULES, write_routes
from reid_ray.serve.config import SearcherConfig, ServeConfig
from reid_ray.serve.operations.config import WritingConfig
from reid_ray.serve.operations.search_operations import SearchOperations


class Replica:
    """One process of the service."""

    def __init__(self, gallery, encoder=None, audit=None, limits=None, **adding):
        self.engine = SearchEngine(encoder or PlainEncoder(), SearchedGallery(gallery))
        self.operations = SearchOperations(lambda: self.engine, limits or ServeConfig(), SearcherConfig())
        self.operations.load()
        state = gallery.with_name("gallery.service")
        self.writing = WriteOperations(
            str(gallery), state, WritingConfig(idle_s=0.02, turn_s=0.2), AddingConfig(**{"batch_size": 3, **adding})
        )
        doer = ChangeDoer(self.writing.answers)
        further = [(write_routes(self.writing, doer), WRITE_RULES), (job_routes(self.writing, doer), job_rules(self.writing.board.config))]
        self._own_log = audit is None
        self.access = own_machine(state, audit=self._own_log, log=audit)
        self.api = make_api(self.operations, access=self.access, further=further)
        self.writing.start(self.engine.encoder, changed=self.engine.gallery.look, job_finished=job_recorder(audit))

    def client(self):
        transport = httpx.ASGITransport(app=self.api, client=("127.0.0.1", 5))
        return httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=60)

    def close(self):
        self.writing.close()
        self.operations.close()
        if self._own_log:
            self.access.close()


@contextlib.contextmanager
def service(folder, *, replicas=1, gallery=None, **options):
    """Replicas over a new gallery in a folder."""
    place = folder / "gallery"
    if not place.exists():
        create_gallery(place, dim=DIM, encoder="plain", config=GalleryConfig(**(gallery or {})))
    made = []
    try:
        for _ in range(replicas):
            made.append(Replica(place, **options))
        yield made
    finally:
        for each in made:
            each.close()


def asked(replica, *requests):
    """The replies of requests, (method, path) or (method, path, options), one after the other."""

    async def run():
        async with replica.client() as client:
            return [await client.request(each[0], each[1], **(each[2] if len(each) > 2 else {})) for each in requests]

    replies = asyncio.run(run())
    return replies[0] if len(replies) == 1 else replies
