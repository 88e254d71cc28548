"""The Ray Data pipeline of an edit run: a pass that draws what is missing, then one that describes it, each repeated until nothing is.

Knows the stages and their actors; what is to be made is edit_plans', and rows go to the ledger. The passes take turns, so that an editor
and a language model need not fit together, and a language model can be changed without a picture being drawn again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.caption.actors.engine_actor import PassPlace
from reid_ray.caption.drain import drained
from reid_ray.caption.engines.protocol import ChatEngine, StreamingEngine
from reid_ray.caption.engines.vllm_engine import engine_environment
from reid_ray.caption.ledger.ledger_files import read_ledger_file
from reid_ray.caption.ledger.publish import ordered_rows
from reid_ray.caption.ledger.write_ahead_log import KEYS, Index, Ledger, as_keys, find, read_index
from reid_ray.caption.remote_board import RemoteBoard, RunBoards
from reid_ray.data.execution import actor_pool
from reid_ray.data.pieces import FilePiece, Piece, TablePiece
from reid_ray.data.sources import ImageListing, read_images
from reid_ray.edit.changes.edit_plans import PlannedRun, image_key, listed_at, used_references
from reid_ray.edit.config import EditJob
from reid_ray.edit.edit_actors import DescribeActor, EditActor, HeldObject, calls_that_feed
from reid_ray.edit.edit_captions import CaptionByModel
from reid_ray.edit.edit_metrics import EditTally
from reid_ray.edit.edit_rows import EDIT, EDIT_ROWS, PLAN
from reid_ray.edit.edit_work import EditSetting
from reid_ray.model.model_files import resolve_model
from reid_ray.progress import progress_bar
from reid_ray.storage.regular_files import printable

if TYPE_CHECKING:
    import ray
    import ray.data

_BUCKET_ROWS = 2_000  # pictures that publishing holds at once
_WITHOUT_PICTURE = [name for name in EDIT_ROWS.schema.names if name != "image"]


class EditRun:
    """A run of `config`, with its ledger; Ray must be running.

    Args:
        config: the job.
        listing: of config.images.
        planned: what is to be made.
        ledger: held by this run.
        setting: for the edit actors.
        captions: of the language model; None: none is asked.
        revision: of the language model.
        engine: used instead of a vLLM engine.
    """

    def __init__(
        self,
        config: EditJob,
        listing: ImageListing,
        planned: PlannedRun,
        ledger: Ledger,
        *,
        setting: EditSetting,
        captions: CaptionByModel | None,
        revision: str,
        engine: ChatEngine | StreamingEngine | None,
    ) -> None:
        self._config, self._listing, self._planned, self._ledger = config, listing, planned, ledger
        self._setting, self._captions, self._revision, self._engine = setting, captions, revision, engine
        self._keys = as_keys(planned.table["key"])
        self.tally = EditTally()  # of what this run made
        self.absent = np.zeros(len(self._keys), bool)  # plans whose image did not come

    def make(self) -> dict[str, Any]:
        """Make what the ledger lacks; returns what was taken over from earlier runs and what was made."""
        self._ledger.compact()
        before = self._index()
        with RunBoards("edit") as boards:
            made = self._until_done(self._keys, self._draw, boards)
            self.absent = _lacking(self._keys, self._index())
            if self._captions is not None:
                made += self._until_done(as_keys([key for key in self.caption_keys() if key is not None]), self._describe, boards)
        return {"rows_of_earlier_runs": int(len(before.ok) + len(before.failed)), "rows_made": made, "broken_actors": boards.reasons}

    def rows(self) -> Iterator[pa.Table]:
        """The result in the plan's order, each edit followed by its caption if a language model wrote one; call after make()."""
        there = np.flatnonzero(~self.absent)
        captions = self.caption_keys() if self._captions is not None else [None] * len(self._keys)
        wanted = [(2 * at + 1, captions[at]) for at in there.tolist() if captions[at] is not None]
        index = self._index()
        found = ~_lacking(as_keys([key for _, key in wanted]), index)
        keys = np.concatenate([self._keys[there], as_keys([key for _, key in wanted])[found]])
        orders = np.concatenate([2 * there, np.array([order for order, _ in wanted], np.int64)[found]])
        return ordered_rows(self._ledger, keys, orders, groups=len(self._keys), stride=2, bucket_rows=_BUCKET_ROWS)

    def _index(self) -> Index:
        return read_index(self._ledger, retry_failed=self._config.ledger.retry_failed)

    def caption_keys(self) -> list[bytes | None]:
        """For each plan the key of the caption that a language model is to write: none where no picture stands."""
        stands = find(self._keys, _standing(self._ledger)) >= 0
        return [key if ok else None for key, ok in zip(self._planned.table["caption_key"].to_pylist(), stands.tolist(), strict=True)]

    def _until_done(self, keys: np.ndarray, execute: Callable[[np.ndarray, RemoteBoard], int], boards: RunBoards) -> int:
        """Run passes until every key is there; what actors handed back is made in the next, what nobody could is left."""
        made = 0
        while True:
            index = self._index()
            lacking = _lacking(keys, index)
            if not lacking.any():
                return made
            made += execute(np.unique(keys[lacking]), boards.open(index))
            self._ledger.compact()
            if not boards.end_round():
                return made

    def _draw(self, keys: np.ndarray, board: RemoteBoard) -> int:
        import ray

        config, plans = self._config, self._planned.table
        plans = plans.filter(pa.array(find(self._keys, keys) >= 0)).sort_by("image_key")
        claim = PlannedImages(HeldObject(ray.put(plans)))
        images = read_images(config.images, listing=self._listing, through=claim, engines=config.editor.pool.most)
        pool = config.editor.pool
        rows = images.map_batches(
            EditActor,
            fn_constructor_args=(self._setting, config.editor),
            fn_constructor_kwargs={
                "place": PassPlace(self._ledger, board, config.ledger, "editor"),
                "references": HeldObject(ray.put(used_references(config.references, plans))),
            },
            **actor_pool(pool, restarts=-1, calls=calls_that_feed(pool.batch_size, config.editor.drawing.batch_size)),
        )
        return self._drained(rows, "edit", len(keys))

    def _describe(self, keys: np.ndarray, board: RemoteBoard) -> int:
        import ray

        assert self._captions is not None
        config = self._config.rewriter
        files = [{"file": file} for file in self._ledger.row_files()]
        edits = ray.data.from_items(files, override_num_blocks=len(files)).map_batches(
            edits_of_file, fn_args=(HeldObject(ray.put(self.to_describe(keys))),), batch_size=1, batch_format="pyarrow", num_cpus=1
        )
        model = resolve_model(config.model, field="rewriter.model")
        rows = edits.repartition(target_num_rows_per_block=config.pool.batch_size).map_batches(
            DescribeActor,
            fn_constructor_args=(config,),
            fn_constructor_kwargs={
                "recipe": self._captions,
                "revision": self._revision,
                "place": PassPlace(self._ledger, board, self._config.ledger, "rewriter"),
                "engine": self._engine,
            },
            runtime_env={"env_vars": engine_environment(model, config.engine, config.pool)},
            **actor_pool(config.pool, restarts=-1, calls=calls_that_feed(config.pool.batch_size, config.engine.max_num_seqs)),
        )
        return self._drained(rows, "describe", len(keys))

    def to_describe(self, keys: np.ndarray) -> pa.Table:
        """key, caption_id and caption_key of the plans whose caption lies under one of `keys` once it is made, by key."""
        table = self._planned.table.select(["key", "caption_id", "caption_key"])
        table = table.filter(pc.is_valid(table["caption_key"]))
        return table.filter(pa.array(find(as_keys(table["caption_key"]), keys) >= 0, pa.bool_())).sort_by("key").combine_chunks()

    def _drained(self, rows: ray.data.Dataset, name: str, count: int) -> int:
        with progress_bar(name, count, unit="edit") as bar:

            def see(table: pa.Table) -> None:
                bar.update(self.tally.add(table))
                bar.set_postfix_str(f"{self.tally.with_status(EDIT, 'ok')} stand")

            return drained(rows, self._ledger, see)


class PlannedImages:
    """Inside the reading task: passes on the images that have a plan, once for each, with the column PLAN.

    Args:
        plans: a PLANS table, sorted by image_key, in Ray's object store.
    """

    def __init__(self, plans: HeldObject) -> None:
        self._plans = plans

    def __call__(self, piece: Piece) -> Iterator[pa.Table]:
        """SOURCED rows with PLAN; no file is opened for an image without one."""
        plans = self._plans.get()
        keys = as_keys(plans["image_key"])
        names = _names_in(piece)
        only = None if names is None else pa.array([name for name in names if listed_at(name, keys)], pa.string())
        if only is not None and not len(only):
            return
        for table in piece.tables(only):
            rows: list[int] = []
            chosen: list[int] = []
            for row, name in enumerate(table["image_id"].to_pylist()):
                found = listed_at(name, keys)
                rows += [row] * len(found)
                chosen += found
            if rows:
                column = plans.take(pa.array(chosen)).combine_chunks().to_struct_array()
                yield table.take(pa.array(rows)).append_column(PLAN, column.cast(PLAN.type))


def _names_in(piece: Piece) -> list[str] | None:
    """image_ids of a piece where they are known without its bytes."""
    if isinstance(piece, FilePiece):
        return [printable(name) for name in piece.names]
    if isinstance(piece, TablePiece):
        columns = ["image_id"] if piece.split is None else ["image_id", "split"]
        with piece.file.open() as parquet:
            table = parquet.read_row_group(piece.row_group, columns=columns)
        if piece.split is not None:
            table = table.filter(pc.equal(table["split"], piece.split))
        names: list[str] = table["image_id"].slice(0, piece.rows).to_pylist()
        return names
    return None


def listed_keys(listing: ImageListing) -> np.ndarray | None:
    """image_key of every image of a listing, sorted, each once, 16 bytes an image; None where names are not known without drawing them."""
    parts = [np.empty(0, KEYS)]
    for piece in listing.pieces:
        names = _names_in(piece)
        if names is None:
            return None
        parts.append(as_keys([image_key(name) for name in names]))
    return np.unique(np.concatenate(parts))


def _lacking(keys: np.ndarray, index: Index) -> np.ndarray:
    return (find(keys, index.ok) < 0) & (find(keys, index.failed) < 0)


def _standing(ledger: Ledger) -> np.ndarray:
    """Keys of the edits whose picture stands, sorted."""
    found = [np.empty(0, KEYS)]
    for file in ledger.row_files():
        table = read_ledger_file(file, columns=["key", "kind", "status"])
        found.append(as_keys(table.filter(pc.and_(pc.equal(table["kind"], EDIT), pc.equal(table["status"], "ok")))["key"]))
    return np.unique(np.concatenate(found))


def edits_of_file(batch: pa.Table, wanted: HeldObject) -> pa.Table:
    """The edits of some ledger files that are to be described, without pictures, with the caption that each is to get.

    Which that is, the plan says (EditRun.to_describe): a language model may have been named after the picture was drawn.
    """
    plans = wanted.get()
    keys = as_keys(plans["key"])
    tables = []
    for file in batch["file"].to_pylist():
        table = read_ledger_file(file, columns=_WITHOUT_PICTURE)
        table = table.filter(pc.and_(pc.equal(table["kind"], EDIT), pc.equal(table["status"], "ok")))
        at = find(as_keys(table["key"]), keys)
        table, chosen = table.filter(pa.array(at >= 0, pa.bool_())), pa.array(at[at >= 0])
        for name, source in (("described_id", "caption_id"), ("described_key", "caption_key")):
            table = table.set_column(table.schema.get_field_index(name), name, plans[source].take(chosen))
        tables.append(table)
    return pa.concat_tables(tables)
