"""Configuration of the transfer job: finished evaluations as one cross-dataset table."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from reid_ray.config.base import Section
from reid_ray.config.common import OutputConfig
from reid_ray.config.paths import LocalPath


class TransferCell(Section):
    """One evaluation of a transfer table."""

    train: str = Field(description="what the model was trained on, as the table shall name it")
    test: str = Field(description="what it was tested on")
    run: LocalPath = Field(description="output folder of the evaluate job")


class TransferJob(Section):
    """Cross-dataset table: trained on A, tested on B, with the overlaps that are known between data sets named below it."""

    cells: list[TransferCell] = Field(min_length=1, description="evaluations, one per pair of training and test set")
    output: OutputConfig

    @model_validator(mode="after")
    def _each_pair_once(self) -> Self:
        pairs = [(cell.train, cell.test) for cell in self.cells]
        repeated = sorted({pair for pair in pairs if pairs.count(pair) > 1})
        if repeated:
            raise ValueError(f"cells name {repeated} more than once; keep one run per pair")
        return self
