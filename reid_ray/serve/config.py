"""Configuration of the serve job: a gallery and its encoder behind HTTP."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from reid_ray.config.base import Section
from reid_ray.config.common import RayConfig
from reid_ray.config.paths import PathOrAddress, PathOrName, WrittenPath
from reid_ray.retrieval.divided_gallery import SharesConfig
from reid_ray.serve.access.config import AccessConfig, AccessLogConfig, AuditConfig, TlsConfig
from reid_ray.serve.access.own_machine import is_loopback
from reid_ray.serve.adding.config import AddingConfig
from reid_ray.serve.operations.config import WritingConfig


class ServeConfig(Section):
    """The HTTP API: where it listens, authentication, request limits."""

    host: str = Field("127.0.0.1", description="address to bind; one beyond loopback needs access.tokens")
    port: int = Field(8000, ge=0, le=65535, description="TCP port; 0 takes a free one")
    ingress: Literal["direct", "proxy"] | None = Field(
        None,
        description="on Ray: direct: the replicas answer by themselves, all on the machine that starts the service, at one port that they "
        "share; proxy: Ray Serve's proxy hands requests on to replicas of all nodes; null: direct where Ray has one node, else proxy",
    )
    max_text_chars: int = Field(10_000, ge=1, description="longest text query, characters; the encoder truncates far earlier")
    max_upload_bytes: int = Field(16 << 20, ge=1024, description="largest image upload, bytes; refused before it is read whole")
    max_pixels: int = Field(50_000_000, ge=1, description="an image whose header claims more pixels is refused, never decoded")
    default_k: int = Field(20, ge=1, description="hits returned where the query does not say")
    max_k: int = Field(1000, ge=1, description="most hits a query may ask for")
    timeout_s: float = Field(30.0, gt=0, description="a query unanswered for so long gets 504, seconds")

    @model_validator(mode="after")
    def _hits_agree(self) -> Self:
        if self.default_k > self.max_k:
            raise ValueError(f"default_k {self.default_k} is above max_k {self.max_k}")
        return self


class SearcherConfig(Section):
    """What holds encoder and gallery and answers: the one process, or every replica on Ray Serve."""

    replicas: int = Field(1, ge=1, description="replicas at the start; on Ray alone more than one")
    max_replicas: int | None = Field(None, ge=1, description="on Ray: autoscale up to this many; null keeps the number fixed")
    target_ongoing_requests: float = Field(16.0, gt=0, description="autoscaling: requests a replica should have in hand")
    num_cpus: float = Field(1.0, gt=0, description="CPUs of each: its threads for encoding and search; on Ray logical CPUs, too")
    num_gpus: float = Field(0.0, ge=0, description="GPUs per replica")
    gallery_on_gpu: bool = Field(
        False,
        description="the GPU holds the gallery's vectors, too, as many bytes as they have on the disk, and compares a query with all of "
        "them, whatever the gallery's kind: exact, with the scores of the CPU to the last bit; the CPU searches what does not fit",
    )
    max_batch_size: int = Field(32, ge=1, description="most queries encoded and searched together; 1 switches batching off")
    max_queued_requests: int = Field(256, ge=1, description="searches that wait for a batch in each; beyond it 503 is answered at once")
    max_wait_s: float = Field(
        1.0,
        gt=0,
        description="a search that would wait longer for its answer, as the last ones went, is told so by 503 at once, seconds; one that "
        "goes into the next batch is always taken",
    )
    max_ongoing_requests: int = Field(
        1000,
        ge=1,
        description="on Ray, through its proxy: requests of any kind in hand per replica; above max_queued_requests, or 503 is never said",
    )

    @model_validator(mode="after")
    def _limits_agree(self) -> Self:
        if self.gallery_on_gpu and not self.num_gpus:
            raise ValueError("gallery_on_gpu is true, but num_gpus is 0; give each searcher a GPU")
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(f"max_replicas {self.max_replicas} is below replicas {self.replicas}")
        if self.max_queued_requests + self.max_batch_size >= self.max_ongoing_requests:
            raise ValueError(
                f"max_queued_requests {self.max_queued_requests} and max_batch_size {self.max_batch_size} together must be below "
                f"max_ongoing_requests {self.max_ongoing_requests}, or whoever is one too many waits instead of being told"
            )
        return self


class EncodersConfig(Section):
    """On Ray: replicas that encode what is asked, apart from those that search. Each searcher hands its batches to whichever is free."""

    replicas: int = Field(0, ge=0, description="at the start; 0: every searcher encodes by itself")
    max_replicas: int | None = Field(None, ge=1, description="autoscale up to this many; null keeps the number fixed")
    target_ongoing_batches: float = Field(2.0, gt=0, description="autoscaling: batches that an encoder should have in hand")
    max_ongoing_batches: int = Field(16, ge=1, description="batches in hand per encoder; further ones wait where they come from")
    num_cpus: float = Field(1.0, gt=0, description="CPUs of each: its threads, and on Ray logical CPUs")
    num_gpus: float = Field(0.0, ge=0, description="GPUs of each")

    @property
    def most(self) -> int:
        """How many there may be."""
        return self.max_replicas or self.replicas

    @model_validator(mode="after")
    def _numbers_agree(self) -> Self:
        if self.max_replicas is not None and self.max_replicas < max(self.replicas, 1):
            raise ValueError(f"max_replicas {self.max_replicas} is below replicas {self.replicas}")
        if self.max_replicas is not None and not self.replicas:
            raise ValueError(f"max_replicas is {self.max_replicas}, but replicas is 0: searchers encode by themselves; set replicas to 1")
        if self.target_ongoing_batches > self.max_ongoing_batches:
            raise ValueError(
                f"target_ongoing_batches {self.target_ongoing_batches} is above max_ongoing_batches {self.max_ongoing_batches}, so that "
                "no encoder would ever be added"
            )
        return self


class ServeJob(Section):
    """Answer searches over a gallery by HTTP, with a web page: in this process, or on Ray Serve."""

    runs_on: Literal["process", "ray"] = Field(
        "process", description="process: uvicorn in this process, without Ray; ray: replicas on Ray Serve, each the same application"
    )

    index: PathOrAddress = Field(
        description="a gallery in a folder or at an address, of the index job or of `reid-ray gallery`; changes are seen within a second"
    )
    encoder: PathOrName | None = Field(
        None,
        description="folder or hub name of the encoder, as the index job takes it; null: what the index job noted beside the gallery",
    )
    include_synthetic: bool = Field(
        False, description="also answer with pictures that an editor made; false refuses a gallery that holds any (column synthetic)"
    )
    state: WrittenPath | None = Field(
        None,
        description="folder of the service's state (audit log, keys), which all its processes see; null: NAME.service beside the gallery",
    )
    serve: ServeConfig = ServeConfig()
    access: AccessConfig = AccessConfig()
    audit: AuditConfig = AuditConfig()
    access_log: AccessLogConfig = AccessLogConfig()
    tls: TlsConfig = TlsConfig()
    writing: WritingConfig = WritingConfig()
    adding: AddingConfig = AddingConfig()
    searcher: SearcherConfig = SearcherConfig()
    encoders: EncodersConfig = EncodersConfig()
    shares: SharesConfig = SharesConfig()
    start_timeout_s: float = Field(600.0, gt=0, description="a service that is not up after so long is an error, seconds")
    ray: RayConfig = RayConfig()

    @model_validator(mode="after")
    def _beyond_loopback_needs_tokens(self) -> Self:
        if self.access.tokens is None and not is_loopback(self.serve.host):
            raise ValueError(
                f"serve.host {self.serve.host} can be reached from other machines, but access.tokens is not set; name a file that "
                "`reid-ray tokens create` makes, or bind 127.0.0.1"
            )
        if self.runs_on == "ray" and self.access.bodies_in_hand >= self.searcher.max_ongoing_requests:
            raise ValueError(
                f"access.bodies_in_hand {self.access.bodies_in_hand} must be below searcher.max_ongoing_requests "
                f"{self.searcher.max_ongoing_requests}, or slow bodies keep searches out"
            )
        return self

    @model_validator(mode="after")
    def _shares_have_no_gpu(self) -> Self:
        if self.searcher.gallery_on_gpu and self.shares.count > 1:
            raise ValueError(f"searcher.gallery_on_gpu is true, but shares.count is {self.shares.count}: shares search by CPU; drop one")
        return self

    @model_validator(mode="after")
    def _gpus_are_used(self) -> Self:
        if self.encoders.replicas and self.searcher.num_gpus and not self.searcher.gallery_on_gpu:
            raise ValueError(
                f"searcher.num_gpus is {self.searcher.num_gpus:g}, but the encoders encode, and gallery_on_gpu is false; set it to 0"
            )
        return self

    @model_validator(mode="after")
    def _what_needs_ray(self) -> Self:
        if self.runs_on == "process":
            for field, value, alone in (
                ("searcher.replicas", self.searcher.replicas, 1),
                ("searcher.max_replicas", self.searcher.max_replicas, None),
                ("encoders.replicas", self.encoders.replicas, 0),
                ("shares.count", self.shares.count, 1),
                ("serve.ingress", self.serve.ingress, None),
            ):
                if value != alone:
                    raise ValueError(f"{field} is {value}, which needs Ray; set runs_on to ray")
        return self
