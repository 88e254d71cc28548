"""Ray Data actors of an edit run: plans of pictures in, ledger rows out, durable before they are returned.

Thin: isolation, group commit and the account of deaths are those of the caption job's actors; the work is edit_work's and edit_captions'.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from reid_ray.caption.actors.configured_engine import start_engine
from reid_ray.caption.actors.engine_actor import EngineActor, PassPlace, RowTask
from reid_ray.caption.engines.protocol import ChatEngine, StreamingEngine, streaming
from reid_ray.data.images import BadImageError, load_pixels, open_checked
from reid_ray.edit.config import EditorConfig, EditRewriterConfig
from reid_ray.edit.drawing_engine import DrawingEngine
from reid_ray.edit.edit_captions import CaptionByModel, EditDescriber
from reid_ray.edit.edit_metrics import EditMetrics
from reid_ray.edit.edit_rows import EDIT_ROWS
from reid_ray.edit.edit_work import EditSetting, EditWork

if TYPE_CHECKING:
    import ray

_MOST_CALLS = 32
_KEPT_CROPS = 4096  # decoded references of an actor


class EditActor(EngineActor):
    """SOURCED rows with the column PLAN -> the ledger's rows of their edits, without the pictures, which are in the ledger.

    Args:
        setting: editor, verifier and numbers.
        config: the editor's section.
        place: of this pass.
        references: the table of used_references, in Ray's object store.
    """

    stage = "editor"

    def __init__(self, setting: EditSetting, config: EditorConfig, *, place: PassPlace, references: HeldObject) -> None:
        def start() -> tuple[StreamingEngine, None]:
            crops = _Crops(references)
            editor, verifier = setting.open_editor(), setting.open_verifier()
            self._work = EditWork(setting, verifier, crops)
            return DrawingEngine(editor, capacity=config.drawing.batch_size), None

        super().__init__(place, EditMetrics(self.stage), start=start, requests=1, on_gpu=config.pool.num_gpus > 0)

    def __call__(self, pictures: pa.Table) -> pa.Table:
        """The edits of a batch of pictures."""
        if self._broken is not None:
            self._hand_back()
            return EDIT_ROWS.schema.empty_table()
        made = self._run([self._task(row) for row in pictures.to_pylist()])
        at = made.schema.get_field_index("image")
        return made.set_column(at, made.schema.field(at), pa.nulls(made.num_rows, pa.binary()))

    def _task(self, source: dict[str, Any]) -> RowTask:
        plan = source["plan"]
        texts = [plan["original"], plan["text"]]
        return RowTask([plan["edit_id"]], lambda: self._work.work(source), lambda why: self._work.given_up(plan, why), texts)


class DescribeActor(EngineActor):
    """Ledger rows of edits -> the ledger's rows of their captions.

    Args:
        config: the language model.
        recipe: of the captions.
        revision: what identifies the language model's weights.
        place: of this pass.
        engine: used instead of a vLLM engine of `config`.
    """

    stage = "rewriter"

    def __init__(
        self,
        config: EditRewriterConfig,
        *,
        recipe: CaptionByModel,
        revision: str,
        place: PassPlace,
        engine: ChatEngine | StreamingEngine | None = None,
    ) -> None:
        self._describer = EditDescriber(config, recipe=recipe, revision=revision)

        def start() -> tuple[StreamingEngine, None]:
            if engine is not None:
                return streaming(engine, capacity=config.engine.max_num_seqs), None
            return start_engine(config, images=0, field="rewriter"), None

        together, on_gpu = config.engine.admit_together, config.pool.num_gpus > 0
        super().__init__(place, EditMetrics(self.stage), start=start, requests=1, together=together, on_gpu=on_gpu)

    def __call__(self, edits: pa.Table) -> pa.Table:
        """The captions of a batch of edits."""
        if self._broken is not None:
            self._hand_back()
            return EDIT_ROWS.schema.empty_table()
        return self._run([self._task(row) for row in edits.to_pylist()])

    def _task(self, edit: dict[str, Any]) -> RowTask:
        texts = [edit["original"], edit["text"]]
        work, given_up = self._describer.work, self._describer.given_up
        return RowTask([edit["described_id"]], lambda: work(edit), lambda why: given_up(edit, why), texts)


class HeldObject:
    """A reference to an object that travels inside another one without being fetched on the way."""

    def __init__(self, reference: ray.ObjectRef) -> None:
        self._reference = reference

    def get(self) -> Any:
        """The object."""
        import ray

        return ray.get(self._reference)


class _Crops:
    """The reference crops of a run by id, decoded as they are asked for, uint8 [h, w, 4]."""

    def __init__(self, references: HeldObject) -> None:
        table: pa.Table = references.get()
        self._images = table["image"]
        self._rows = {name: row for row, name in enumerate(table["reference_id"].to_pylist())}
        self._decoded = lru_cache(_KEPT_CROPS)(self._decode)

    def __call__(self, reference_id: str) -> np.ndarray:
        if reference_id not in self._rows:
            raise BadImageError("missing", f"the bank no longer holds {reference_id}")
        return self._decoded(reference_id)

    def _decode(self, reference_id: str) -> np.ndarray:
        picture = open_checked(self._images[self._rows[reference_id]].as_py())
        load_pixels(picture)
        return np.asarray(picture.convert("RGBA"))


def calls_that_feed(batch_size: int, capacity: int) -> int:
    """Calls of an actor that keep its engine fed: thrice its batch, in calls of `batch_size` rows; threads, so not too many."""
    return min(_MOST_CALLS, 1 + -(-3 * capacity // batch_size))
