"""Samples of captions of any number, in one pass and bounded memory: for each captioner some drawn by digest, and all of chosen pictures.

Knows CAPTIONS rows; not what captions say.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pandas.util import hash_array

COLUMNS = ("caption_id", "image_id", "kind", "text", "status", "captioner")


class CaptionSamples:
    """Sees tables of captions one after the other; rewrites, failures and empty texts are passed over.

    The drawn ones are those with the least digests of their ids, so the same captions are drawn in whatever order they come.

    Args:
        most: captions drawn of each captioner and kind.
        image_ids: pictures whose captions are all kept.
    """

    def __init__(self, most: int, image_ids: Collection[str]) -> None:
        self._most, self._image_ids = most, pa.array(sorted(image_ids), pa.string())
        self._drawn: dict[str, list[pa.Table]] = {}
        self._pictured: dict[str, list[pa.Table]] = {}
        self.seen: dict[str, int] = {}

    def add(self, table: pa.Table) -> None:
        """See a piece of a table that has COLUMNS."""
        table = table.select(COLUMNS)
        keep = pc.and_(pc.equal(table["status"], "ok"), pc.not_equal(table["kind"], "rewrite"))
        table = table.filter(pc.and_(keep, pc.greater(pc.fill_null(pc.utf8_length(table["text"]), 0), 0)))
        makers = pc.if_else(
            pc.is_valid(table["captioner"]), pc.binary_join_element_wise(table["captioner"], table["kind"], " "), table["kind"]
        )
        for maker in pc.unique(makers).to_pylist():
            own = table.filter(pc.equal(makers, maker))
            self.seen[maker] = self.seen.get(maker, 0) + own.num_rows
            self._draw(maker, own)
            if len(self._image_ids):
                self._pictured.setdefault(maker, []).append(own.filter(pc.is_in(own["image_id"], self._image_ids)))

    @property
    def makers(self) -> list[str]:
        """Who made captions: the captioner's name and the kind, or the kind alone of given ones."""
        return sorted(self.seen)

    def drawn(self, maker: str) -> pa.Table:
        """The drawn captions, at most `most`, in the order of their digests."""
        return self._least(self._drawn[maker]).drop_columns(["digest"])

    def pictured(self, maker: str) -> pa.Table:
        """Captions of the chosen pictures."""
        return pa.concat_tables(self._pictured[maker]) if maker in self._pictured else self.drawn(maker).slice(0, 0)

    def _draw(self, maker: str, table: pa.Table) -> None:
        digest_B = hash_array(table["caption_id"].to_numpy(zero_copy_only=False).astype(object), categorize=False)
        held = self._drawn.setdefault(maker, [])
        held.append(table.append_column("digest", pa.array(digest_B)))
        if sum(part.num_rows for part in held) > 2 * self._most:
            held[:] = [self._least(held)]

    def _least(self, parts: list[pa.Table]) -> pa.Table:
        table = pa.concat_tables(parts).combine_chunks()
        return table.take(pa.array(np.argsort(table["digest"].to_numpy(), kind="stable")[: self._most]))
