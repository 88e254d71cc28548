"""What of a score's pictures, identities and texts weights have seen: by content hash, perceptual hash, name and words.

Both sides are rows of SEEN. What was seen streams, so that a table of millions costs memory for what is shown alone. Knows rows; not
models, scores or what to say of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.data.perceptual_hash import BITS
from reid_ray.retrieval.index.near_hashes import NearHashes

ROLES = ("train", "val")
Origin = tuple[str, str | None]
# Numbered anew in every set: other numbers are other people, equal ones need not be the same.
_RENUMBERED = frozenset({"synthetic"})


@dataclass
class SeenFacts:
    """What streamed by.

    origins: role -> (data set, the one it took the image from, None if it does not say) of the images that had it.
    unknown: names of the weights whose training is not recorded; None: those asked about themselves.
    without_hash: images that have no perceptual hash.
    without_texts: the same names, of those that recorded images and no text.
    """

    origins: dict[str, set[Origin]] = field(default_factory=lambda: {role: set() for role in ROLES})
    unknown: set[str | None] = field(default_factory=set)
    without_hash: int = 0
    without_texts: set[str | None] = field(default_factory=set)


def look_up(seen: Iterable[pa.Table], sides: Mapping[str, pa.Table]) -> tuple[dict[str, dict[str, Any]], SeenFacts]:
    """What of each side was seen, and in which role.

    Args:
        seen: pieces of SEEN.
        sides: name -> rows of SEEN, whose role does not matter.

    Returns:
        Per side {"images", "identities", "texts": how many it has, None where contents are not at hand, "nameless": identities of tables
        that name no data set, "unshown": images whose content is not at hand while others' are, "renumbered": identities of which equal
        numbers were seen that may be others, "train": {"images": those of a seen content, "near": others that are near duplicates of one,
        "identities", "texts"}, "val": {...}}; and the facts of `seen`.
    """
    facts = SeenFacts()
    told = {name: _Side(rows) for name, rows in sides.items()}
    with_images: set[str | None] = set()
    with_texts: set[str | None] = set()
    for piece in seen:
        facts.unknown.update(piece.filter(pc.equal(piece["role"], "unknown"))["weights"].to_pylist())
        for role in ROLES:
            texts, images = _split(piece.filter(pc.equal(piece["role"], role)))
            with_texts.update(texts["weights"].unique().to_pylist())
            with_images.update(images["weights"].unique().to_pylist())
            facts.origins[role] |= origins_of(images)
            facts.without_hash += images["near"].null_count
            for side in told.values():
                side.compare(role, texts, images)
    facts.without_texts = with_images - with_texts
    return {name: side.facts() for name, side in told.items()}, facts


def origins_of(rows: pa.Table) -> set[Origin]:
    """From where images come, as in SeenFacts; those whose table names no data set left out."""
    named = rows.select(["dataset", "source"]).filter(pc.is_valid(rows["dataset"]))
    return {(row["dataset"], row["source"]) for row in named.group_by(["dataset", "source"]).aggregate([]).to_pylist()}


def hashes_of(near: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """The perceptual hashes of a column `near` that tell pictures apart, uint8 [M, 16], and their rows, int64 [M]."""
    row_M = np.flatnonzero(pc.is_valid(near).to_numpy())
    hash_MB = np.frombuffer(b"".join(near.drop_null().to_pylist()), np.uint8).reshape(-1, BITS // 8)
    telling_M = hash_MB.any(axis=1)
    return hash_MB[telling_M], row_M[telling_M]


def _people(rows: pa.Table) -> set[tuple[str, int]]:
    """(dataset, person_id) of identities that their tables name."""
    known = rows.select(["dataset", "person_id"]).filter(pc.and_(pc.is_valid(rows["dataset"]), pc.is_valid(rows["person_id"])))
    found = known.group_by(["dataset", "person_id"]).aggregate([]).to_pylist()
    return {(row["dataset"], row["person_id"]) for row in found if row["person_id"] >= 0}


class _Side:
    """The rows of a side, and which of them were met so far in each role."""

    def __init__(self, rows: pa.Table) -> None:
        texts, images = _split(rows)
        self._content, self._texts = _Values(images["content"]), _Values(texts["content"])
        self._people, self._datasets = _people(images), images["dataset"].drop_null().unique()
        hash_MB, self._hash_row_M = hashes_of(images["near"])
        self._near, self._images = NearHashes(hash_MB), images.num_rows
        nameless = images.filter(pc.is_null(images["dataset"]))["person_id"]
        self._nameless = pc.count_distinct(nameless).as_py()
        self._near_N = {role: np.zeros(images.num_rows, bool) for role in ROLES}
        self._met: dict[str, set[tuple[str, int]]] = {role: set() for role in ROLES}

    def compare(self, role: str, texts: pa.Table, images: pa.Table) -> None:
        """Mark what a piece has."""
        self._texts.mark(role, texts["content"])
        self._content.mark(role, images["content"])
        hash_MB, _ = hashes_of(images["near"])
        self._near_N[role][self._hash_row_M[self._near.pairs(hash_MB)[1]]] = True
        here = images.filter(pc.is_in(images["dataset"], value_set=self._datasets))  # of millions, few are worth a set of Python's
        self._met[role] |= self._people & _people(here)

    def facts(self) -> dict[str, Any]:
        """Counts."""
        pictures, texts = self._content.known_N.any(), len(self._texts.known_N) > 0
        found: dict[str, Any] = {
            "images": self._images if pictures else None,
            "identities": len(self._people) + self._nameless,
            "texts": int(self._texts.count) if texts else None,
            "nameless": self._nameless,
            "unshown": int((~self._content.known_N).sum()) if pictures else None,
            "renumbered": len({who for met in self._met.values() for who in met if who[0] in _RENUMBERED}),
        }
        for role in ROLES:
            same_N = self._content.met(role)
            found[role] = {
                "images": int(same_N.sum()) if pictures else None,
                "near": int((self._near_N[role] & ~same_N).sum()) if pictures else None,
                "identities": len([who for who in self._met[role] if who[0] not in _RENUMBERED]),
                "texts": int(self._texts.distinct_met(role)) if texts else None,
            }
        return found


class _Values:
    """A column of numbers, and which of them were met in each role."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self.known_N = pc.is_valid(column).to_numpy()
        self._value_U, self._place_K = np.unique(column.drop_null().to_numpy(), return_inverse=True)
        self._met_U = {role: np.zeros(len(self._value_U), bool) for role in ROLES}
        self.count = len(self._value_U)

    def mark(self, role: str, others: pa.ChunkedArray) -> None:
        if not self.count:
            return
        other_M = others.drop_null().to_numpy()
        place_M = np.minimum(np.searchsorted(self._value_U, other_M), self.count - 1)
        self._met_U[role][place_M[self._value_U[place_M] == other_M]] = True

    def met(self, role: str) -> np.ndarray:
        """Which rows, bool [N]."""
        met_N = np.zeros(len(self.known_N), bool)
        met_N[self.known_N] = self._met_U[role][self._place_K]
        return met_N

    def distinct_met(self, role: str) -> int:
        return int(self._met_U[role].sum())


def _split(rows: pa.Table) -> tuple[pa.Table, pa.Table]:
    """(texts, images); an older table has images alone and does not say so. Of role unknown neither counts."""
    texts_N = pc.fill_null(pc.equal(rows["kind"], "text"), False)
    return rows.filter(texts_N), rows.filter(pc.invert(texts_N))
