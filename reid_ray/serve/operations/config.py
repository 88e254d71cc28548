"""Configuration of how a service changes its gallery."""

from __future__ import annotations

from pydantic import Field

from reid_ray.config.base import Section


class WritingConfig(Section):
    """When the service has the gallery open for writing; other replicas and the command line write in between."""

    idle_s: float | None = Field(
        None,
        ge=0,
        description="the gallery is given back when nothing was written for so long, seconds; null: 2 in a folder, 120 at an address, "
        "where opening it for writing fetches it",
    )
    turn_s: float | None = Field(
        None,
        gt=0,
        description="where there is always something to write, it is given back for a moment after so long, seconds; null: 5 in a folder, "
        "120 at an address",
    )
    wait_s: float = Field(
        15.0, gt=0, description="a change that could not begin by then, since another process writes, is answered by 503, seconds"
    )
    most_waiting: int = Field(100, ge=1, description="changes that wait; one more is answered by 503 at once")
