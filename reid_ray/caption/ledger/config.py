"""Configuration of the ledger (write-ahead log): resuming, retries of failed rows, batch timeout. Shared by the jobs that caption."""

from __future__ import annotations

from pydantic import Field

from reid_ray.config.base import Section


class LedgerConfig(Section):
    """The ledger beside the output: rows of earlier runs, and of this one if its driver dies."""

    keep: bool = Field(
        True,
        description="keep the ledger (a hidden folder beside output.path, about as large as the output) after the run, so that the next "
        "one makes only what is missing; false deletes it once the output is there",
    )
    retry_failed: bool = Field(
        True, description="make failed captions and rewrites of earlier runs again; false takes an earlier failure for final"
    )
    batch_timeout_s: float = Field(
        1800,
        gt=0,
        description="seconds that one request may take in an engine before it is aborted and its row failed, and that one step of the "
        "engine, or the preparation of a request, may take before its actor is ended as hung. Must exceed the slowest honest answer, the "
        "engine's first one included",
    )
    group_rows: int = Field(256, ge=1, description="finished rows of an actor that are written together; a kill loses at most so many")
    group_seconds: float = Field(5.0, gt=0, description="seconds after which they are written though they are fewer")
