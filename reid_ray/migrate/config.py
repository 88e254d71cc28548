"""Configuration of the migrate job (format migration of older versions' outputs)."""

from __future__ import annotations

from pydantic import Field

from reid_ray.config.base import Section
from reid_ray.config.paths import WrittenPath


class MigrateJob(Section):
    """Bring what an older version wrote to today's formats, in place; the folder is the old one or the new one whole at any time.

    What is of today's formats stays as it is, so that the job may be run again; what a newer version wrote is refused.
    """

    path: WrittenPath = Field(
        description="output folder of a job (a caption ledger beside it is brought along), a model folder, a checkpoint, or the hidden "
        "folder of a training run"
    )
