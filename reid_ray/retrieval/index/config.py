"""Configuration of the index job: a gallery of images in, a searchable folder of vectors, ids and thumbnails out."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from reid_ray.config.base import Section
from reid_ray.config.common import ImagesConfig, OutputConfig, PoolConfig, RayConfig
from reid_ray.config.paths import PathOrName

# Which parameter means something to which kind of index; one set for a kind that would ignore it is refused.
_USED_BY: dict[str, frozenset[str]] = {
    "flat": frozenset(),
    "ivf_flat": frozenset({"lists", "probes", "train_vectors", "seed"}),
    "ivf_pq": frozenset({"lists", "probes", "train_vectors", "seed", "code_bytes"}),
    "hnsw": frozenset({"links", "build_depth", "search_depth"}),
}


class IndexConfig(Section):
    """How vectors are stored and searched (FAISS, inner product of unit vectors, so cosine)."""

    kind: Literal["flat", "ivf_flat", "ivf_pq", "hnsw"] = Field(
        "flat",
        description="flat: exact, 4 bytes x dim a vector, right up to about a million; ivf_flat: clustered; ivf_pq: clustered and "
        "compressed, for tens of millions; hnsw: graph, fast and memory-hungry",
    )
    lists: int | None = Field(None, ge=1, description="ivf: clusters; null takes 4 x sqrt(vectors), at most one per 39 training vectors")
    probes: int = Field(32, ge=1, description="ivf: clusters looked into per query (capped at lists); more is slower and finds more")
    train_vectors: int = Field(200_000, ge=1, description="ivf: at most this many vectors, drawn at random, train clusters and codes")
    code_bytes: int = Field(32, ge=1, description="ivf_pq: bytes per vector; must divide the dimension; needs 256 training vectors")
    links: int = Field(32, ge=2, description="hnsw: neighbours per node; memory grows by 8 bytes x links a vector")
    build_depth: int = Field(200, ge=1, description="hnsw: candidates kept while building (efConstruction)")
    search_depth: int = Field(128, ge=1, description="hnsw: candidates kept while searching (efSearch); at least k is used")
    seed: int = Field(0, ge=0, description="ivf: seed of the training sample and of k-means")

    @model_validator(mode="after")
    def _parameters_belong_to_the_kind(self) -> Self:
        for name, field in type(self).model_fields.items():
            if name != "kind" and name not in _USED_BY[self.kind] and getattr(self, name) != field.default:
                users = ", ".join(kind for kind, used in _USED_BY.items() if name in used)
                raise ValueError(f"{name} is set, but kind {self.kind} does not use it (only {users}); drop it or change kind")
        return self


class IndexJob(Section):
    """Embed a gallery of images and make it searchable."""

    images: ImagesConfig = ImagesConfig()
    encoder: PathOrName = Field(
        description="folder of an encoder (model/ of the train or tune job); of a tuned one FOLDER#visual or #latent, which is the default"
    )
    embed: PoolConfig = PoolConfig(batch_size=32)
    index: IndexConfig = IndexConfig()
    include_synthetic: bool = Field(
        False, description="also index pictures that an editor made (column synthetic); false leaves them out, counted as synthetic"
    )
    thumbnail_height: int = Field(256, ge=16, le=1024, description="height limit of the stored JPEG thumbnails, pixels; larger is shrunk")
    output: OutputConfig
    ray: RayConfig = RayConfig()
