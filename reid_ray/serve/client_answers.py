"""What the service answers, as the client gives it: dictionaries with known keys. The service's own schemas are in api/."""

from __future__ import annotations

from typing import Any, TypedDict


class HitFound(TypedDict):
    """An item that was found."""

    rank: int
    score: float
    generation: int
    item_id: str
    item: dict[str, Any]
    thumbnail: str


class SearchFound(TypedDict):
    """Hits, best first, and the cursor of the next page, if there is one."""

    hits: list[HitFound]
    k: int
    cursor: str | None
    generation: int
    gallery: int
    truncated: bool
    missing_shares: list[int]
    batch: int
    latency_ms: dict[str, float]


class ItemFound(TypedDict):
    """An item."""

    item_id: str
    generation: int
    item: dict[str, Any]
    thumbnail: str


class ItemsFound(TypedDict):
    """A page of items, and the cursor of the next one, if there is one."""

    items: list[ItemFound]
    cursor: str | None
    generation: int
    gallery: int
    missing_shares: list[int]


class FacetsFound(TypedDict):
    """How many items have each value of some columns: {column: {values, others}}."""

    columns: dict[str, dict[str, Any]]
    generation: int
    missing_shares: list[int]


class JobCounts(TypedDict):
    """How far a job is."""

    total: int | None
    done: int
    added: int
    refused: int
    uncaptioned: int


class JobState(TypedDict):
    """A job; `state` is waiting, running, done, failed or cancelled."""

    job_id: str
    kind: str
    state: str
    by: str
    asked: str
    counts: JobCounts
    refused: list[dict[str, str]]
    captioned: bool
    seconds: float | None
    generation: int | None
    detail: str | None


class GalleryState(TypedDict):
    """Where the gallery stands after a change."""

    generation: int
    position: int
    items: int


class Deletion(GalleryState):
    """How many items were there."""

    deleted: int


class ErasureReport(TypedDict):
    """What became of an erasure."""

    request: str
    items: int
    done: bool
    asked: str
    deadline: str
    receipt: dict[str, Any] | None
