"""Configuration of the search job: the configurations of index and serve, of one gallery."""

from __future__ import annotations

import os
from typing import Self

from pydantic import Field, model_validator

from reid_ray.config.base import Section
from reid_ray.retrieval.index.config import IndexJob
from reid_ray.serve.config import ServeJob


class SearchJob(Section):
    """Search a folder of crops: embed, index and serve them in one process."""

    index: IndexJob = Field(description="the crops, the encoder, and where the gallery goes")
    serve: ServeJob = Field(description="the service; its index is the gallery that index writes")
    keep_serving: bool = Field(True, description="answer until Ctrl-C; false stops the service as soon as it answers")

    @model_validator(mode="after")
    def _one_gallery(self) -> Self:
        if os.path.realpath(self.serve.index) != self.index.output.path:
            raise ValueError(
                f"serve.index is {self.serve.index}, but index.output.path is {self.index.output.path}; name one gallery (--out FOLDER sets both)"
            )
        return self
