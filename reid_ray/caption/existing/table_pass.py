"""A rewrite run: which rewrites a table of captions should have, which of them the ledger lacks, a pass that makes those, and the result.

The table is read three times, each time in a stream: by Ray tasks for the keys of what is wanted, by Ray tasks again, but only where
something is missing, for the rewriter, and by the driver for the result. The driver holds 24 bytes for each wanted rewrite, no texts.
"""

from __future__ import annotations

import json
import pickle
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.caption.actors.engine_actor import PassPlace
from reid_ray.caption.actors.rewrite_actor import RewriteActor
from reid_ray.caption.drain import drained
from reid_ray.caption.engines.protocol import ChatEngine, StreamingEngine
from reid_ray.caption.existing.asked import ASKED, AskedCaptions, parent_keys
from reid_ray.caption.existing.config import RewriteJob
from reid_ray.caption.existing.interleave import interleaved
from reid_ray.caption.existing.row_ranges import RowRange, row_ranges
from reid_ray.caption.ledger.publish import ordered_rows
from reid_ray.caption.ledger.row_keys import RewriteRecipe
from reid_ray.caption.ledger.write_ahead_log import LEDGER, Index, Ledger, as_keys, find, ledger_table, read_index
from reid_ray.caption.live_metrics import pass_line
from reid_ray.caption.passes import rewritten
from reid_ray.caption.remote_board import RemoteBoard, RunBoards
from reid_ray.caption.rows import STAGED
from reid_ray.caption.streaming.pass_account import PassFacts
from reid_ray.caption.tally import Tally
from reid_ray.progress import progress_bar
from reid_ray.records import conform

if TYPE_CHECKING:
    import ray
    import ray.data


class TablePass:
    """A run of `config`, with its ledger; Ray must be running.

    Args:
        config: the job.
        ledger: held by this run.
        models: name and revision of rewriter and sentence encoder, as the job's manifest has them.
        engine: used instead of a vLLM engine.
    """

    def __init__(self, config: RewriteJob, ledger: Ledger, *, models: dict[str, Any], engine: ChatEngine | StreamingEngine | None) -> None:
        self._config, self._ledger, self._engine = config, ledger, engine
        self._revision = models["rewriter"]["revision"]
        self._recipe = RewriteRecipe(
            config.rewriter, config.faithfulness, revision=self._revision, scorer_revision=models["faithfulness"]["revision"]
        )
        self._asked = AskedCaptions(config.captions, config.rewriter.share, self._recipe)
        self._ranges = row_ranges(config.captions.path)
        self.outcomes: Counter[str] = Counter()  # of the table's rows: ASKED, or why not
        self.spent = PassFacts()  # of the rewriter's actors in all rounds
        self._keys, self._orders = self._wanted()

    @property
    def count(self) -> int:
        """Rows of the table."""
        return sum(each.rows for each in self._ranges)

    def make(self) -> dict[str, Any]:
        """Make what the ledger lacks; returns what was taken over from earlier runs and what was made."""
        self._ledger.compact()
        before, made = self._index(), 0
        index = before
        with RunBoards("rewrite") as boards:
            while (lacking := (find(self._keys, index.ok) < 0) & (find(self._keys, index.failed) < 0)).any():
                rows = np.unique(self._orders[lacking] // self._recipe.count)
                made += self._execute(np.unique(self._keys[lacking]), rows, boards.open(index))
                self._ledger.compact()
                if not boards.end_round():
                    break
                index = self._index()
        return {"rows_of_earlier_runs": int(len(before.ok) + len(before.failed)), "rows_made": made, "broken_actors": boards.reasons}

    def _index(self) -> Index:
        return read_index(self._ledger, retry_failed=self._config.ledger.retry_failed)

    def rows(self) -> Iterator[pa.Table]:
        """The result as STAGED tables in the table's order, each original followed by its rewrites; call after make().

        Raises:
            DataError: the table has changed since the run began.
        """
        count = self._recipe.count
        rewrites = ordered_rows(self._ledger, self._keys, self._orders, groups=self.count, stride=count)
        return interleaved(self._originals(), rewrites, count=count)

    def _originals(self) -> Iterator[tuple[np.ndarray, pa.Table]]:
        for part in self._ranges:
            for first, table in part.batches():
                keep = pc.not_equal(table["kind"], "rewrite")
                yield first + np.flatnonzero(keep.to_numpy()), table.filter(keep)

    def _wanted(self) -> tuple[np.ndarray, np.ndarray]:
        """Key and order number of each rewrite that there should be; counts what becomes of every row."""
        found = self._read(self._ranges, _wanted_of_range)
        keys, rows = [as_keys([])], [np.empty(0, np.int64)]
        with progress_bar("rewrite: look", self.count, unit="row") as bar:
            for table in found.iter_batches(batch_size=None, batch_format="pyarrow"):
                for row in table.to_pylist():
                    seen = Counter(json.loads(row["outcomes"]))
                    bar.update(seen.total())
                    self.outcomes += seen
                    keys.append(np.frombuffer(row["keys"], keys[0].dtype))
                    rows.append(np.frombuffer(row["rows"], np.int64))
        count = self._recipe.count
        row_N = np.concatenate(rows)
        return np.concatenate(keys), (row_N[:, None] * count + np.arange(count)).reshape(-1)

    def _execute(self, pending: np.ndarray, row_N: np.ndarray, board: RemoteBoard) -> int:
        """Rewrite the captions of rows `row_N` (ascending), which lack rewrites of the keys `pending` (sorted)."""
        import ray

        firsts = np.array([each.first for each in self._ranges])
        touched = [self._ranges[at] for at in np.unique(np.searchsorted(firsts, row_N, side="right") - 1)]
        config, tally = self._config, Tally()
        captions = self._read(touched, _lacking_of_range, ray.put(pending))
        made_rows = rewritten(
            captions.repartition(target_num_rows_per_block=config.rewriter.pool.batch_size),
            config.rewriter,
            config.faithfulness,
            recipe=self._recipe,
            place=PassPlace(self._ledger, board, config.ledger, "rewrite"),
            revision=self._revision,
            engine=self._engine,
        )
        with progress_bar("rewrite", len(row_N), unit="caption") as bar, pass_line(bar, {RewriteActor.stage: board}) as line:

            def see(table: pa.Table) -> None:
                rewrites = pc.equal(table["kind"], "rewrite")
                tally.add(table.filter(rewrites))
                counts = f"{tally.kinds['rewrite ok']} kept, {tally.kinds['rewrite unfaithful']} unfaithful"
                line.count(table.num_rows - (pc.sum(rewrites).as_py() or 0), counts)

            made = drained(made_rows, self._ledger, see)
        self.spent += board.facts()
        return made

    def _read(self, ranges: Sequence[RowRange], through: Any, *arguments: Any) -> ray.data.Dataset:
        import ray.data

        pieces = [{"piece": pickle.dumps(each)} for each in ranges]
        return ray.data.from_items(pieces, override_num_blocks=max(1, len(pieces))).map_batches(
            _through,
            fn_args=(through, self._asked, *arguments),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=1,
            compute=ray.data.TaskPoolStrategy(self._config.captions.readers),
        )


def _through(batch: pa.Table, through: Any, *arguments: Any) -> Iterator[pa.Table]:
    for pickled in batch["piece"].to_pylist():
        yield from through(pickle.loads(pickled), *arguments)


def _wanted_of_range(part: RowRange, asked: AskedCaptions) -> Iterator[pa.Table]:
    """What the driver must know of a range: keys and row numbers of the asked captions, as bytes, and its rows by outcome."""
    for first, table in part.batches():
        outcome = asked.outcomes(table)
        here = pc.equal(outcome, ASKED)
        keys, rows = asked.keys(table.filter(here)), first + np.flatnonzero(here.to_numpy(zero_copy_only=False))
        seen = {each["values"]: each["counts"] for each in outcome.value_counts().to_pylist()}
        yield pa.table({"keys": [keys.tobytes()], "rows": [rows.tobytes()], "outcomes": [json.dumps(seen)]})


def _lacking_of_range(part: RowRange, asked: AskedCaptions, pending: ray.ObjectRef) -> Iterator[pa.Table]:
    """The captions of a range that lack a rewrite, as LEDGER rows of no run: they only pass through."""
    import ray

    keys = ray.get(pending)
    yield LEDGER.empty_table()
    for _, table in part.batches():
        rows = asked.of(table)
        lacks = (find(asked.keys(rows).reshape(-1), keys) >= 0).reshape(-1, asked.recipe.count).any(axis=1)
        rows = rows.filter(pa.array(lacks))
        yield ledger_table(conform(rows, STAGED, origin=str(part.file)), parent_keys(rows), "")
