"""Configuration of the job export: the project's tables -> a data set in a published layout."""

from __future__ import annotations

from typing import ClassVar, Literal, Self, get_args

from pydantic import Field, model_validator

from reid_ray.config.base import Section
from reid_ray.config.common import OutputConfig
from reid_ray.config.paths import PathOrAddress

ExportFormat = Literal[
    "cuhk_pedes",
    "icfg_pedes",
    "rstpreid",
    "market1501",
    "dukemtmc",
    "msmt17",
    "cuhk03",
    "cuhk03_images",
    "luperson",
    "luperson_mllm",
    "ufine6926",
    "ufine3c",
    "interactive_pedes",
    "webperson",
    "synth_pedes",
    "ham_pedes",
    "mals",
    "itcpr",
    "syncpr",
    "webdataset",
]


# Options that mean something to some formats alone.
_OWNERS: dict[str, frozenset[str]] = {
    "msmt17_version": frozenset({"msmt17"}),
    "boxes": frozenset({"cuhk03", "cuhk03_images"}),
    "samples_per_shard": frozenset({"webdataset"}),
}


class ExportJob(Section):
    """Job export."""

    gives_way: ClassVar = {
        f"format={name}": [option for option, formats in _OWNERS.items() if name not in formats] for name in get_args(ExportFormat)
    }

    tables: PathOrAddress = Field(description="folder with images/ and captions/, as the jobs ingest and synthesize write it")
    captions: PathOrAddress | None = Field(
        None, description="captions table that lies elsewhere, as the job caption writes it; null takes captions/"
    )
    format: ExportFormat = Field(
        description="published layout to write; cuhk03 is the new protocol in Market's folders, cuhk03_images its images under their first "
        "names beside the protocol's .mat (the release, cuhk-03.mat, holds more than the tables and is not written)"
    )
    msmt17_version: Literal["V1", "V2"] = Field(
        "V1", description="msmt17 only: folders train, test (V1) or mask_train_v2, mask_test_v2 (V2)"
    )
    boxes: Literal["detected", "labeled"] = Field("detected", description="cuhk03 and cuhk03_images only: which boxes the tables hold")
    kinds: tuple[Literal["human", "static", "dynamic", "rewrite"], ...] = Field(
        ("human", "static", "dynamic", "rewrite"), min_length=1, description="kinds of captions to write"
    )
    include_synthetic: bool = Field(
        False,
        description="also write pictures that an editor made into a layout that cannot say so (all but webdataset); false leaves them out, "
        "counted as synthetic",
    )
    samples_per_shard: int = Field(10_000, ge=1, description="webdataset only: samples per tar shard")
    processes: int | None = Field(None, ge=0, le=256, description="processes that read images kept by path; null: one per core")
    output: OutputConfig

    @model_validator(mode="after")
    def _options_belong_to_the_format(self) -> Self:
        for option, formats in _OWNERS.items():
            if option in self.model_fields_set and self.format not in formats:
                raise ValueError(f"{option} belongs to format {' or '.join(sorted(formats))}, but format is {self.format}; drop it")
        return self
