"""Configuration of the demo: the configurations of all jobs, in their order, with the folders that chain them."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from reid_ray.config.base import Section
from reid_ray.caption.config import CaptionJob
from reid_ray.config.common import RayConfig
from reid_ray.retrieval.evaluate.config import EvaluateJob
from reid_ray.retrieval.index.config import IndexJob
from reid_ray.config.paths import WrittenPath
from reid_ray.serve.config import ServeJob
from reid_ray.data.synthetic.config import SynthesizeJob
from reid_ray.train.dual.config import TrainJob


class DemoJob(Section):
    """The end-to-end pipeline in one command: synthesize, caption, train, evaluate, index, serve, one query over HTTP."""

    folder: WrittenPath = Field("demo", description="folder of report.json and sheet.png; the stages name their own folders")
    query: str | None = Field(None, description="the sample query; null takes a human caption of the test split")
    keep_serving: bool = Field(False, description="leave the service up until Ctrl-C instead of stopping it after the sample query")
    sheet_queries: int = Field(6, ge=1, le=50, description="queries on the picture")
    sheet_hits: int = Field(8, ge=1, le=20, description="ranked hits per query on the picture")
    synthesize: SynthesizeJob = Field(description="synthetic people: the training set, and the test set with its truth")
    caption: CaptionJob = Field(description="captions of the training images")
    train: TrainJob = Field(description="dual encoder on those captions")
    evaluate: EvaluateJob = Field(description="score on the test identities")
    index: IndexJob = Field(description="the gallery to search")
    serve: ServeJob = Field(description="the service")
    ray: RayConfig = Field(RayConfig(), description="one Ray for all stages")

    @model_validator(mode="after")
    def _images_are_indexed(self) -> Self:
        if self.index.images is None:
            raise ValueError("index.images is missing: the demo embeds the images that it indexes; drop index.embeddings")
        return self
