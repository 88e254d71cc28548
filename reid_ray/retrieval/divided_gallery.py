"""Configuration of a gallery's shares: how many readers hold it together, and what becomes of a question while one is lost."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from reid_ray.config.base import Section


class SharesConfig(Section):
    """Readers that hold a gallery together, each in a Ray actor of its own."""

    count: int = Field(1, ge=1, description="how many; 1: every searcher holds all of it, else each searcher has this many of its own")
    lost: Literal["refuse", "say"] = Field(
        "refuse", description="while one is lost: refuse queries with 503, or answer from the others and name it in missing_shares"
    )
    num_cpus: float = Field(1.0, gt=0, description="logical CPUs of each")
    timeout_s: float = Field(30.0, gt=0, description="one that does not answer for so long is lost, seconds")
