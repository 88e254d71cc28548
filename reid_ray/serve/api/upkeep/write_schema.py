"""Schemas of what changes the gallery: deletes, erasures, snapshots, add jobs. Strict types, no unknown fields, as in schema.py."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, JsonValue, model_validator

from reid_ray.serve.adding.job_folder import JobStatus
from reid_ray.serve.api.schema import StrictModel
from reid_ray.serve.operations.gallery_changes import Which

MOST_IDS = 100_000
_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$"
Name = Annotated[str, Field(pattern=_NAME, description="up to 100 letters (a to z), digits, - and _", examples=["letter-7"])]


class WhichIn(StrictModel):
    """The items that a change is about."""

    item_ids: list[Annotated[str, Field(min_length=1, max_length=4096)]] | None = Field(
        None, min_length=1, max_length=MOST_IDS, description="their ids; or give where"
    )
    where: dict[str, JsonValue] | None = Field(None, min_length=1, description="all that pass this filter", examples=[{"person_id": 42}])
    expect: int | None = Field(None, ge=0, description="how many that must be; another number is refused (409), and nothing is changed")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.item_ids is None) == (self.where is None):
            raise ValueError("give exactly one of item_ids and where")
        return self

    def which(self) -> Which:
        """As changes take it."""
        return Which(None if self.item_ids is None else tuple(self.item_ids), self.where, self.expect)


class EraseIn(WhichIn):
    """Items that must be gone from every file."""

    request: Name
    now: bool = Field(False, description="carry it out before answering; else by the gallery's deadline")


class SnapshotIn(StrictModel):
    """A snapshot to make."""

    name: Name


class DeletedOut(BaseModel):
    """What was deleted."""

    deleted: int = Field(description="items that were there")
    generation: int
    position: int = Field(description="writes in the log of this generation")
    items: int = Field(description="items that are left")


class StandOut(BaseModel):
    """Where the gallery stands after a change."""

    generation: int
    position: int = Field(description="writes in the log of this generation")
    items: int


class ErasureOut(BaseModel):
    """What became of an erasure."""

    request: str
    items: int = Field(description="ids that it was asked for")
    done: bool = Field(description="whether they are gone from every file")
    asked: str
    deadline: str
    receipt: dict[str, Any] | None = Field(description="once it is done: when, and keyed digests of the ids")


class ErasuresOut(BaseModel):
    """All erasures: those to be carried out first, then the latest."""

    erasures: list[ErasureOut]


class SegmentOut(BaseModel):
    """A segment of a generation."""

    name: str
    rows: int
    items: int = Field(description="rows that live")
    bytes: int


class LogOut(BaseModel):
    """What was written since."""

    writes: int
    items: int


class SnapshotOut(BaseModel):
    """A generation that is kept under a name."""

    name: str
    generation: int
    rows: int


class GenerationsOut(BaseModel):
    """The generation that counts, and those that are kept."""

    generation: int
    segments: list[SegmentOut]
    log: LogOut
    snapshots: list[SnapshotOut]


class JobCountsOut(BaseModel):
    """How far a job is."""

    total: int | None = Field(description="pictures or rows that were given")
    done: int = Field(description="of those, worked through")
    added: int = Field(description="items that were added or replaced")
    refused: int = Field(description="those that are no items")
    uncaptioned: int = Field(description="items without a caption, where captions were asked for")


class RefusedOut(BaseModel):
    """What is no item."""

    file: str
    reason: str = Field(description="a code of docs/reasons.md, a colon, the detail")


class JobOut(BaseModel):
    """A job of the service."""

    job_id: str
    kind: Literal["pictures", "table", "compact"]
    state: Literal["waiting", "running", "done", "failed", "cancelled"]
    by: str = Field(description="who asked for it")
    asked: str = Field(description="when it was asked for, ISO 8601, UTC")
    counts: JobCountsOut
    refused: list[RefusedOut] = Field(description="the first thousand of those that are no items; in a list of jobs, the first ten")
    captioned: bool
    seconds: float | None = Field(description="since it was begun, or that it took; null while it waits")
    generation: int | None = Field(description="of the gallery after the last batch")
    detail: str | None = Field(description="why it failed")


class JobsOut(BaseModel):
    """Jobs, the latest first; `before` asks for the next ones, null where there are none."""

    jobs: list[JobOut]
    before: str | None


def job_out(status: JobStatus, *, now: float, refused: int | None = None) -> JobOut:
    """A job's status as it is answered, with at most so many of what it refused."""
    return JobOut(
        job_id=status.job_id,
        kind=status.kind,
        state=status.state,
        by=status.by,
        asked=datetime.fromtimestamp(status.created, UTC).isoformat(timespec="milliseconds"),
        counts=JobCountsOut(
            total=status.total, done=status.done, added=status.added, refused=status.refused_count, uncaptioned=status.uncaptioned
        ),
        refused=[RefusedOut(file=each["file"], reason=each["reason"]) for each in status.refused[:refused]],
        captioned=status.captioned,
        seconds=None if status.started is None else round((status.ended or now) - status.started, 3),
        generation=status.generation,
        detail=status.detail,
    )
