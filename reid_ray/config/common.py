"""Sections that several jobs share: where images come from, where tables go, which Ray, how large an actor pool."""

from __future__ import annotations

import os
from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from reid_ray.config.base import Section
from reid_ray.config.folder_columns import FOLDER_ONLY, FolderColumnsConfig
from reid_ray.config.paths import PathOrAddress, WrittenPath, WrittenPathOrAddress


class SyntheticConfig(Section):
    """Synthetic people (reid_ray.data.synthetic.people): deterministic in every field."""

    identities: int = Field(300, ge=1, description="number of identities (persons)")
    images_per_identity: int = Field(4, ge=1, description="crops per identity, spread over the cameras")
    cameras: int = Field(4, ge=1, le=1000, description="cameras that differ in light, blur, background, viewpoint and occlusion")
    height: int = Field(128, ge=32, le=2048, description="crop height in pixels")
    width: int = Field(64, ge=16, le=2048, description="crop width in pixels")
    seed: int = Field(0, ge=0, description="seed of the whole set; another seed gives other people")
    val_share: float = Field(0.1, ge=0, lt=1, description="share of identities in split val")
    test_share: float = Field(0.25, ge=0, lt=1, description="share of identities in split test")

    @model_validator(mode="after")
    def _leaves_a_train_split(self) -> Self:
        if self.val_share + self.test_share >= 1:
            raise ValueError("val_share + test_share must stay below 1, or no identity is left to train on")
        return self


class ImagesConfig(FolderColumnsConfig):
    """Where a job's images come from, and what is known of those of a folder."""

    gives_way: ClassVar = {"source=synthetic": ("path", *FOLDER_ONLY, "time_zone"), "source=parquet": (*FOLDER_ONLY, "time_zone")}

    source: Literal["synthetic", "folder", "parquet"] = Field("synthetic", description="kind of source")
    path: PathOrAddress | None = Field(
        None,
        description="folder of images, or Parquet file/folder in the IMAGES schema: a local path or a URI (s3://, gs://, ...); not for "
        "synthetic",
    )
    synthetic: SyntheticConfig = SyntheticConfig()
    split: str | None = Field(None, description="only rows of this split (train, val, test); null takes all")
    limit: int | None = Field(None, ge=1, description="at most this many images, in the source's order; null takes all")
    max_pixels: int = Field(50_000_000, ge=1, description="an image whose header claims more pixels is a failed row, never decoded")
    readers: int | None = Field(
        None,
        ge=1,
        description="Ray tasks that read or generate at the same time, 1 CPU each, 16 files each from an object store; null follows the "
        "captioner's pool, one for 5 engines (a task reads some 200 pictures a second or more, an engine answers for 40 at most), and is "
        "never below 2; more for a slow file system",
    )

    @model_validator(mode="after")
    def _path_goes_with_source(self) -> Self:
        if self.source == "synthetic" and self.path is not None:
            raise ValueError("path is given but source is synthetic; drop path or set source to folder or parquet")
        if self.source != "synthetic" and self.path is None:
            raise ValueError(f"source is {self.source}, so path is required")
        return self

    @model_validator(mode="after")
    def _labels_are_of_a_folder(self) -> Self:
        fields = type(self).model_fields  # a manifest states every key, so what is as by default is not given
        given = [name for name in (*FOLDER_ONLY, "time_zone") if getattr(self, name) != fields[name].default]
        if self.source != "folder" and given:
            raise ValueError(f"{given[0]} belongs to source folder, but source is {self.source}; drop it")
        return self


class StorableOutputConfig(Section):
    """Where a job writes: a folder, or objects below an address, that appear whole or not at all, with manifest.json among them."""

    path: WrittenPathOrAddress = Field(
        description="output folder, absolute for a job that is submitted to a cluster; or an address (s3://bucket/prefix, gs://, az://), "
        "with credentials in every node's environment"
    )
    if_exists: Literal["refuse", "replace", "reuse"] = Field(
        "refuse",
        description="refuse: error if the folder exists; replace: swap this job's own earlier result at commit; reuse: keep it if "
        "configuration and the contents of all inputs are the same, else as replace",
    )

    @field_validator("path")
    @classmethod
    def _is_a_place(cls, path: str) -> str:
        """A folder absolute, links resolved: the place is the same whatever happens to the working directory or a link meanwhile."""
        if "://" not in path:
            return os.path.realpath(path)
        address, mark, options = path.partition("?")
        scheme, _, place = address.partition("://")
        if scheme not in ("s3", "gs", "az"):
            raise ValueError(f"is the address {path}, but jobs write to folders, and some of them to s3://, gs:// or az://")
        if not place.strip("/").partition("/")[2]:
            raise ValueError(f"is the address {path}, which names a bucket alone; name a folder in it, as in {scheme}://BUCKET/FOLDER")
        return address.rstrip("/") + mark + options


class OutputConfig(StorableOutputConfig):
    """Where a job writes: one folder that appears whole or not at all, with manifest.json in it."""

    path: WrittenPath = Field(description="output folder; absolute for a job that is submitted to a cluster")

    @field_validator("path")
    @classmethod
    def _is_no_address(cls, path: str) -> str:
        if "://" in path:
            raise ValueError(
                f"is the address {path}, but this job writes to a folder, which it renames to appear whole; write to a local "
                "or mounted folder and copy it there"
            )
        return path


class RayConfig(Section):
    """Which Ray cluster a job runs on."""

    address: str | None = Field(
        None, description="cluster address; null uses RAY_ADDRESS or the submitting cluster, else starts a local Ray"
    )
    local_cpus: int = Field(
        8, ge=2, description="logical CPUs of a local Ray: tokens for scheduling, not cores; two engine pools and a reader need 4 or more"
    )
    object_store_mb: int = Field(512, ge=80, description="object store of a local Ray, MiB")


class OptionalRayConfig(RayConfig):
    """Of a job that needs no Ray for few rows."""

    execution: Literal["auto", "ray", "in_process"] = Field(
        "auto",
        description="ray: tasks and actors; in_process: the same functions in the job's own process, which starts no Ray and uses no other "
        "node; auto: in_process for at most 5000 images (or captions, where only these are embedded) on CPUs, if no cluster is named and "
        "no Ray runs",
    )


class PoolConfig(Section):
    """A pool of Ray Data actors and what each asks for."""

    replicas: int = Field(1, ge=1, description="actors at the start")
    max_replicas: int | None = Field(None, ge=1, description="autoscale up to this many; null keeps the pool fixed")
    num_cpus: float = Field(1.0, gt=0, description="logical CPUs per actor")
    num_gpus: float = Field(0.0, ge=0, description="GPUs per actor (fractions share one)")
    batch_size: int = Field(16, ge=1, description="rows per call")

    @model_validator(mode="after")
    def _max_not_below_min(self) -> Self:
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(f"max_replicas {self.max_replicas} is below replicas {self.replicas}")
        return self

    @property
    def most(self) -> int:
        """Actors that it may have at the same time."""
        return self.max_replicas or self.replicas


class EmbedPoolConfig(PoolConfig):
    """A pool of actors that hold an encoder."""

    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32",
        description="of the encoder's matrix products: bfloat16 or float16 are faster on GPUs and move a cosine by some thousandths, so "
        "queries and gallery are best embedded alike; vectors are float32 either way",
    )
