"""What a table of images with labels is written from."""

from __future__ import annotations

from pydantic import Field

from reid_ray.config.base import Section
from reid_ray.config.common import OutputConfig
from reid_ray.config.paths import LocalPath, PathOrAddress


class LabelledTable(Section):
    """Images, with the identities that people decided on."""

    images: PathOrAddress = Field(description="IMAGES table; every column of it is kept")
    decisions: LocalPath = Field(description="file that the labelling page wrote")
    tracks: bool = Field(False, description="pictures of one track (column track) are one person unless they were taken out")
    output: OutputConfig
