"""Configuration of a gallery: how vectors are stored and searched, when they become a segment, how long erased items may last."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from reid_ray.config.base import Section

# Which parameter means something to which kind; one set for a kind that would ignore it is refused.
_CLUSTERED = frozenset({"lists", "probes", "train_vectors", "seed", "rescored", "accelerate_rows"})
_USED_BY: dict[str, frozenset[str]] = {
    "flat": frozenset(),
    "ivf": _CLUSTERED,
    "ivf_rabitq": _CLUSTERED,
    "hnsw": frozenset({"links", "build_depth", "search_depth", "accelerate_rows"}),
}


class NearestConfig(Section):
    """How a gallery is searched: exactly, or by FAISS's candidates, whose stored vectors are then compared exactly."""

    gives_way: ClassVar = {f"kind={kind}": frozenset().union(*_USED_BY.values()) - used for kind, used in _USED_BY.items()}

    kind: Literal["flat", "ivf", "hnsw", "ivf_rabitq"] = Field(
        "flat",
        description="flat: everything is compared, exact, right up to about a million; 8-bit codes that a few questions read take a "
        "byte a component on disk; ivf: clusters of 8-bit codes, a quarter more on disk and in memory; ivf_rabitq: clusters of 1-bit "
        "codes, a thirtieth more, for tens of millions; hnsw: a graph over 8-bit codes, slow to build; of people who look alike it finds "
        "fewer than ivf in the same time. Scores are those of the stored vectors in every kind",
    )
    accelerate_rows: int = Field(
        100_000,
        ge=1,
        description="but flat: segments of fewer items have no index and are searched exactly; above segment_rows it is compact, beside "
        "readers and writers, that makes the index",
    )
    lists: int | None = Field(None, ge=1, description="ivf: clusters a segment; null takes 4 x sqrt(items), at most one per 39 items")
    probes: int = Field(32, ge=1, description="ivf: clusters that an unfiltered query looks into; more is slower and finds more")
    rescored: int = Field(200, ge=1, description="ivf: candidates of a segment that are compared exactly; at least k are")
    train_vectors: int = Field(200_000, ge=1, description="ivf: at most this many vectors, drawn at random, train the clusters")
    links: int = Field(32, ge=2, description="hnsw: neighbours per node; memory grows by 8 bytes x links a vector")
    build_depth: int = Field(200, ge=1, description="hnsw: candidates kept while building (efConstruction)")
    search_depth: int = Field(128, ge=1, description="hnsw: candidates kept while searching without a filter (efSearch); at least k are")
    seed: int = Field(0, ge=0, description="ivf: seed of the training sample and of k-means")

    @model_validator(mode="after")
    def _parameters_belong_to_the_kind(self) -> Self:
        for name, field in type(self).model_fields.items():
            if name != "kind" and name not in _USED_BY[self.kind] and getattr(self, name) != field.default:
                users = ", ".join(kind for kind, used in _USED_BY.items() if name in used)
                raise ValueError(f"{name} is set, but kind {self.kind} does not use it (only {users}); drop it or change kind")
        return self


class GalleryConfig(Section):
    """What is fixed when a gallery is made."""

    dtype: Literal["float32", "float16"] = Field(
        "float32", description="of stored vectors; float16 halves memory and moves a cosine by at most 0.001"
    )
    nearest: NearestConfig = NearestConfig()
    segment_rows: int = Field(65_536, ge=1, description="items held in memory and the log before they become an immutable segment")
    merge_rows: int = Field(
        1_048_576, ge=1, description="neighbouring segments are merged while they have at most this many items together"
    )
    erase_within_hours: float = Field(
        24.0,
        ge=0,
        description="deadline by which erased items are gone from every file, if a writer or a service has the gallery; 0: at once",
    )
    retention_days: float | None = Field(
        None,
        gt=0,
        description="items older than this are erased, looked for every hour by whoever writes; null keeps them until they are erased",
    )
