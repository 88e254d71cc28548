"""The changing half of a service process as the serve job configures it, and the routes that it adds.

Knows the job's sections; not requests.
"""

from __future__ import annotations

from reid_ray.retrieval.search import SearchEngine
from reid_ray.serve.access.audit.audit_log import AuditLog
from reid_ray.serve.adding.write_operations import WriteOperations
from reid_ray.serve.api.application import RuledRoutes
from reid_ray.serve.api.upkeep.change_answers import ChangeDoer, job_recorder
from reid_ray.serve.api.upkeep.job_routes import job_routes, job_rules
from reid_ray.serve.api.upkeep.write_routes import WRITE_RULES, write_routes
from reid_ray.serve.config import ServeJob
from reid_ray.serve.service_state import state_folder


def open_writing(config: ServeJob) -> WriteOperations:
    """What a process of the service opens; nothing is written before somebody asks for a change.

    Raises:
        ConfigError: there is no place for the service's state.
        DataError: no gallery is there.
    """
    state = state_folder(config.index, config.state)
    return WriteOperations(config.index, state, config.writing, config.adding, include_synthetic=config.include_synthetic)


def writing_routes(writing: WriteOperations) -> list[RuledRoutes]:
    """The routes that change the gallery, with their rules."""
    doer = ChangeDoer(writing.answers)
    return [(write_routes(writing, doer), WRITE_RULES), (job_routes(writing, doer), job_rules(writing.board.config))]


def start_writing(writing: WriteOperations, engine: SearchEngine, audit: AuditLog | None) -> None:
    """Work on add jobs and keep the deadlines of erasures, from now on; searches of this process see each change at once."""
    writing.start(engine.encoder, changed=engine.gallery.look, job_finished=job_recorder(audit))
