"""The result of an edit run as tables: rows of the ledger in, IMAGES, CAPTIONS and EDITS out.

A picture that stands has a row in each; an edit that does not has one of EDITS alone. The caption is the language model's if it stands,
else the rule's. It keeps the kind of the caption that was changed (human, static, dynamic), since it is that one in other words;
`synthetic` and instruction_id tell that nobody wrote it.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from reid_ray.caption.ledger.content_keys import digest
from reid_ray.caption.rows import reason_code
from reid_ray.edit.edit_metrics import EditTally
from reid_ray.edit.edit_rows import CAPTION, EDIT
from reid_ray.records import CAPTIONS, EDITS, IDENTITY_COLUMNS, IMAGES, table_of
from reid_ray.storage import TableWriter

BY_RULE, BY_MODEL = "edit/rule", "edit/model"  # instruction_id
_PICTURES_PER_PART = 5_000


class EditTables:
    """Writes images/, captions/ and edits/ below a folder.

    Args:
        folder: of the output.
        model: of the captions, as the configuration names it.
    """

    def __init__(self, folder: Path, model: str | None) -> None:
        self._model = model
        self._open = ExitStack()
        self._folder = folder
        self._by_rule: Counter[str] = Counter()  # why the rule's caption stands
        self._people: set[int] = set()
        self.tally = EditTally()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._images = stack.enter_context(TableWriter(self._folder / "images", IMAGES, rows_per_part=_PICTURES_PER_PART))
            self._captions = stack.enter_context(TableWriter(self._folder / "captions", CAPTIONS))
            self._edits = stack.enter_context(TableWriter(self._folder / "edits", EDITS))
            self._open = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._open.__exit__(kind, error, trace)

    def add(self, rows: pa.Table) -> None:
        """Write rows of the ledger; a caption's row comes in the table of its edit."""
        self.tally.add(rows)
        table = rows.to_pylist()
        captions = {row["edit_id"]: row for row in table if row["kind"] == CAPTION}
        edits = [row for row in table if row["kind"] == EDIT]
        standing = [row for row in edits if row["status"] == "ok"]
        self._people.update(row["person_id"] for row in standing)
        self._edits.append(table_of(EDITS, [{name: row[name] for name in EDITS.names} for row in edits]))
        self._images.append(table_of(IMAGES, [{name: row.get(name) for name in IMAGES.names} for row in standing]))
        self._captions.append(table_of(CAPTIONS, [self._caption(row, captions.get(row["edit_id"])) for row in standing]))

    @property
    def new_people(self) -> int:
        """Identities of the pictures that stand."""
        return len(self._people)

    def caption_facts(self) -> dict[str, Any]:
        """Who wrote the captions, and why a rule did where a language model was asked."""
        asked = self.tally.facts(CAPTION)
        by_rule = self._by_rule.total()
        return asked | {
            "by_model": self._captions.rows - by_rule,
            "by_rule": by_rule,
            "rule_because": dict(sorted(self._by_rule.items())),
        }

    def _caption(self, edit: dict[str, Any], by_model: dict[str, Any] | None) -> dict[str, Any]:
        shared = {name: edit[name] for name in ("image_id", "image_sha256", *IDENTITY_COLUMNS)}
        shared |= {"kind": edit["caption_kind"], "status": "ok"}
        if by_model is None or by_model["status"] != "ok":
            self._by_rule["not_asked" if by_model is None else reason_code(by_model["reason"])] += 1
            name = digest("edited caption", edit["edit_id"], edit["image_sha256"], edit["text"], BY_RULE)
            return shared | {"caption_id": name, "text": edit["text"], "instruction_id": BY_RULE}
        return shared | {
            "caption_id": by_model["row_id"],
            "text": by_model["text"],
            "agreement": by_model["agreement"],
            "tries": by_model["tries"],
            "model": self._model,
            "revision": by_model["revision"],
            "instruction_id": BY_MODEL,
            "prompt_fingerprint": by_model["fingerprint"],
            "seed": by_model["seed"],
        }
