"""Which captions of a table are rewritten, why the others are not, and the keys of the rewrites that each should have.

Pure: rows in, codes and keys out. The ledger finds a rewrite by its original's text, not only by its id: a caption that was mended in its
table is rewritten anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.caption.existing.config import ExistingCaptions
from reid_ray.caption.ledger.content_keys import falls_in_share
from reid_ray.caption.ledger.row_keys import RewriteRecipe, key_of
from reid_ray.caption.ledger.write_ahead_log import as_keys

ASKED = "asked"


@dataclass(frozen=True)
class AskedCaptions:
    """What is asked of a table of captions. Small, and safe to send to tasks.

    config: which of its rows are meant.
    share: of those, the share that is rewritten.
    recipe: the rewrites.
    """

    config: ExistingCaptions
    share: float
    recipe: RewriteRecipe

    def outcomes(self, captions: pa.Table) -> pa.Array:
        """Per CAPTIONS row ASKED, or the code of why it is not rewritten (docs/reasons.md)."""
        splits = self.config.splits
        here = pc.is_in(captions["split"], pa.array([name for name in splits if name is not None], pa.string()))
        if None in splits:
            here = pc.or_(here, pc.is_null(captions["split"]))
        left_out: dict[str, Any] = {}
        left_out["earlier_rewrite"] = pc.equal(captions["kind"], "rewrite")
        left_out["other_kind"] = pc.invert(pc.is_in(captions["kind"], pa.array(self.config.kinds)))
        left_out["failed"] = pc.not_equal(captions["status"], "ok")
        left_out["no_text"] = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(pc.fill_null(captions["text"], ""))), 0)
        left_out["other_split"] = pc.invert(here)
        if self.share < 1:
            others = [not falls_in_share(name, self.share) for name in captions["caption_id"].to_pylist()]
            left_out["not_in_share"] = pa.array(others, pa.bool_())
        cases = pa.StructArray.from_arrays([_whole(column) for column in left_out.values()], names=list(left_out))
        return _whole(pc.case_when(cases, *left_out, ASKED))

    def of(self, captions: pa.Table) -> pa.Table:
        """The rows that are rewritten."""
        return captions.filter(pc.equal(self.outcomes(captions), ASKED))

    def keys(self, asked: pa.Table) -> np.ndarray:
        """Keys of the rewrites of N asked captions, [N, recipe.count]."""
        rows = zip(asked["caption_id"].to_pylist(), parent_keys(asked), strict=True)
        return as_keys([key for name, parent in rows for key in self.recipe.keys(name, parent)]).reshape(-1, self.recipe.count)


def parent_keys(captions: pa.Table) -> Sequence[bytes]:
    """Per caption, the key of what its rewrites depend on."""
    return [key_of("existing", *pair) for pair in zip(captions["caption_id"].to_pylist(), captions["text"].to_pylist(), strict=True)]


def _whole(column: Any) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
