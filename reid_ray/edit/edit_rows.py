"""Rows of an edit run: of its plan, and of its ledger, with their keys.

Knows schemas and digests. A ledger holds two kinds of rows: `edit`, a picture with what was changed on it, and `caption`, a language
model's words for it. A row's key changes with whatever it depends on: source, masks and references by their contents, the caption's text,
editor and verifier by their revisions, sampling, and the number of the rules below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from reid_ray.caption.ledger.content_keys import digest
from reid_ray.caption.ledger.row_keys import KEY_BYTES, key_of
from reid_ray.caption.ledger.write_ahead_log import RowForm
from reid_ray.records import EDITS, IDENTITY_COLUMNS, IMAGES

# Raise it when the same plan gives other pictures or captions than before: substitution, prompts, what passes for an edit.
RULES_VERSION = 1
EDIT, CAPTION = "edit", "caption"  # kinds of rows

_CHANGE = pa.struct(
    [
        ("slot", pa.string()),
        ("noun_start", pa.int32()),  # in the caption
        ("noun_end", pa.int32()),
        ("mask", pa.binary()),
        ("mask_sha256", pa.string()),
        ("old", pa.string()),  # JSON {attribute: value}
        ("new", pa.string()),
        ("references", pa.list_(pa.string())),  # one for each try
    ]
)
# A row for each edit that is to be made.
PLANS = pa.schema(
    [
        pa.field("key", pa.binary(KEY_BYTES), nullable=False),
        pa.field("edit_id", pa.string(), nullable=False),
        pa.field("image_key", pa.binary(KEY_BYTES), nullable=False),  # of image_id, to find an image's edits
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("image_sha256", pa.string()),
        pa.field("who", pa.string(), nullable=False),
        pa.field("caption_kind", pa.string(), nullable=False),  # of the caption that is changed
        pa.field("original", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),  # the caption by rule
        pa.field("changes", pa.list_(_CHANGE), nullable=False),
        pa.field("caption_id", pa.string()),  # of the language model's caption; null: it is not asked
        pa.field("caption_key", pa.binary(KEY_BYTES)),
        *[IMAGES.field(name) for name in IDENTITY_COLUMNS],
    ]
)
PLAN = pa.field("plan", pa.struct([(field.name, field.type) for field in PLANS]))  # beside an image's row

_ROW = pa.schema(
    [
        pa.field("row_id", pa.string(), nullable=False),  # edit_id or caption_id
        pa.field("kind", pa.string(), nullable=False),
        *EDITS,
        pa.field("image", pa.binary()),  # PNG
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("caption_kind", pa.string()),
        pa.field("original", pa.string()),
        pa.field("text", pa.string()),  # of an edit the caption by rule, of a caption the language model's
        pa.field("agreement", pa.float32()),  # of the language model's with the rule's
        pa.field("described_id", pa.string()),  # of an edit on its way to the language model: its caption's id and key
        pa.field("described_key", pa.binary(KEY_BYTES)),
        pa.field("tokens", pa.int32()),
        pa.field("prompt_tokens", pa.int32()),
        pa.field("cached_tokens", pa.int32()),
        pa.field("seconds", pa.float64()),  # this row's share of its engine's time
        pa.field("startup_seconds", pa.float64()),  # on the first row an actor makes
        pa.field("key", pa.binary(KEY_BYTES), nullable=False),
        pa.field("run", pa.string(), nullable=False),
        pa.field("made", pa.float64(), nullable=False),
    ]
)
EDIT_ROWS = RowForm(_ROW, "row_id")


@dataclass(frozen=True)
class EditRecipe:
    """What decides a picture beside its plan, by digests.

    editor, verifier: revisions. sampling: fingerprint of how the editor draws. checks: digest of what the verifier asks for.
    """

    editor: str
    sampling: str
    verifier: str
    checks: str

    def edit_id(self, image: Sequence[Any], changes: Sequence[Any], *, number: int, seed: int) -> str:
        """Id of an edit.

        Args:
            image: id, content digest and caption of the source.
            changes: slot, mask's digest, noun, new look and references of each slot.
            number: of the edit among those of its image.
            seed: of the plan.
        """
        return digest("edit", list(image), list(changes), number, seed, self.editor, self.sampling)

    def key(self, edit_id: str) -> bytes:
        """The ledger's key of an edit: its id, the rules, and the verifier that lets a try stand."""
        return key_of(edit_id, RULES_VERSION, self.verifier, self.checks)
