"""The Ray Data pipeline of a caption run: one pass per captioner over what is missing, repeated until nothing is.

Knows the stages' order and their actors; what is missing is found by missing.py, and rows go to the ledger.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from reid_ray.caption.actors.caption_actor import CaptionActor
from reid_ray.caption.actors.configured_engine import calls_at_once
from reid_ray.caption.actors.engine_actor import PassPlace
from reid_ray.caption.actors.rewrite_actor import RewriteActor
from reid_ray.caption.config import CaptionerConfig, CaptionJob, FaithfulnessConfig, RewriterConfig
from reid_ray.caption.drain import drained
from reid_ray.caption.engines.protocol import ChatEngine, StreamingEngine
from reid_ray.caption.engines.vllm_engine import engine_environment
from reid_ray.caption.ledger.missing import (
    MissingFilter,
    PassPlan,
    look_up_listing,
    orders_per_image,
    plan_pass,
    renewed,
    rows_with,
    some_pieces,
)
from reid_ray.caption.ledger.publish import published_rows
from reid_ray.caption.ledger.row_keys import CaptionRecipe, RewriteRecipe
from reid_ray.caption.ledger.write_ahead_log import Index, Ledger, read_index
from reid_ray.caption.live_metrics import pass_line
from reid_ray.caption.remote_board import RemoteBoard, RunBoards
from reid_ray.caption.streaming.pass_account import PassFacts
from reid_ray.caption.tally import Tally
from reid_ray.data.execution import actor_pool
from reid_ray.data.labels.own_rows import OwnByPlace
from reid_ray.data.sources import ImageListing, read_images
from reid_ray.errors import ConfigError, DataError
from reid_ray.model.model_files import resolve_model
from reid_ray.progress import progress_bar

if TYPE_CHECKING:
    import numpy as np
    import ray.data

_MAX_ROUNDS = 3  # a source that changes while it is read may need a second look


class CaptionRun:
    """A run of `config` over a listing, with its ledger.

    Args:
        config: the job.
        listing: of config.images.
        ledger: held by this run.
        models: revisions, as the job's manifest names them.
        templates: captioner -> its own templates, where it has any.
        engine: used by every captioner, and by the rewriter, instead of a vLLM engine.
    """

    def __init__(
        self,
        config: CaptionJob,
        listing: ImageListing,
        ledger: Ledger,
        *,
        models: Mapping[str, Any],
        templates: Mapping[str, Mapping[str, str]],
        engine: ChatEngine | StreamingEngine | None,
    ) -> None:
        self._config, self.listing, self._ledger = config, listing, ledger
        self._models, self._templates, self._engine = models, templates, engine
        self._boards: dict[str, RemoteBoard] = {}  # stage -> account of the pass that runs
        self._run_boards = RunBoards("caption")
        self.spent: dict[str, dict[str, PassFacts]] = {name: {} for name in config.captioners}  # captioner -> stage -> of all its passes
        self.made: Counter[str] = Counter()  # captioner -> images that this run captioned
        self.throughput: dict[str, dict[str, Any]] = {}  # captioner -> what its last pass did a second; see Tally.throughput
        self._rewrites = (
            RewriteRecipe(
                config.rewriter,
                config.faithfulness,
                revision=models["rewriter"]["revision"],
                scorer_revision=models["faithfulness"]["revision"],
            )
            if config.rewriter.share
            else None
        )
        self._recipes = {
            name: CaptionRecipe(
                captioner,
                revision=models["captioners"][name]["revision"],
                templates=templates.get(name),
                max_pixels=config.images.max_pixels,
            )
            for name, captioner in config.captioners.items()
        }
        _refuse_duplicates(config, self._recipes)

    @property
    def names(self) -> list[str]:
        """The captioners, in the order of their passes."""
        return list(self._recipes)

    def make(self) -> dict[str, Any]:
        """Make what is missing, pass by pass; returns what was taken over from earlier runs and what was made.

        Raises:
            DataError: the images keep changing.
        """
        self._ledger.compact()
        before, made = self._index(), 0
        changes = 0  # rounds that became due though no actor handed rows back: the source changed
        with self._run_boards:
            while True:
                left, handed_back = 0, False
                for name in self.names:
                    view, index = look_up_listing(self.listing, self._ledger), self._index()
                    plan = plan_pass(view, self._recipes[name], self._rewrites, index)
                    if plan.done:
                        continue
                    if changes == _MAX_ROUNDS:
                        raise DataError(f"{self.listing.origin}: changes while it is being read; run the command again when it has settled")
                    left += 1
                    made += self._execute(name, plan, index, record=bool(view.unknown))
                    handed_back |= self._run_boards.end_round()
                if not left:
                    break
                changes += not handed_back
                self.listing = renewed(self.listing, self._ledger)
        self._ledger.compact()
        earlier = int(len(before.ok) + len(before.failed))
        return {"rows_of_earlier_runs": earlier, "rows_made": made, "broken_actors": self._run_boards.reasons}

    def rows(self, name: str, own: OwnByPlace | None = None) -> Iterator[pa.Table]:
        """The result of one captioner's pass as STAGED tables, in the images' order, with their own columns if given; call after make()."""
        view = look_up_listing(self.listing, self._ledger)
        plan = plan_pass(view, self._recipes[name], self._rewrites, self._index())
        stride = orders_per_image(self._rewrites)
        return published_rows(self._ledger, view, plan, stride=stride, captioner=name, own=own)

    def _index(self) -> Index:
        return read_index(self._ledger, retry_failed=self._config.ledger.retry_failed)

    def _execute(self, name: str, plan: PassPlan, index: Index, *, record: bool) -> int:
        """Run one pass over what it lacks; returns the rows made."""
        self._boards.clear()
        captions = self._captions(name, plan, index, record=record)
        if self._rewrites is not None:
            captions = self._rewritten(name, captions, plan.pending, index)
        tally = Tally()
        assert captions is not None  # a plan that is not done has one or the other
        with (
            progress_bar(f"caption {name}", self.listing.count, initial=self.listing.count - plan.images) as bar,
            pass_line(bar, self._boards) as line,
        ):

            def see(table: pa.Table) -> None:
                images = tally.add(table)
                line.count(images, f"{tally.images - tally.outcomes['ok']} failed, {tally.kinds['rewrite ok']} rewrites")

            made = drained(captions, self._ledger, see)
        for stage, board in self._boards.items():
            self.spent[name][stage] = self.spent[name].get(stage, PassFacts()) + board.facts()
        self.made[name] += tally.images
        self.throughput[name] = tally.throughput()
        return made

    def _captions(self, name: str, plan: PassPlan, index: Index, *, record: bool) -> ray.data.Dataset | None:
        if not plan.unread:
            return None
        import ray

        config = self._config.captioners[name]
        recipe = self._recipes[name]
        place = self._place(CaptionActor.stage, name, index, parts=len(plan.unread))
        claim = MissingFilter(self._ledger, recipe, ray.put(index), record=record, through=place.board.read)
        images = read_images(self._config.images, listing=some_pieces(self.listing, plan.unread), through=claim, engines=config.pool.most)
        arguments = {
            "name": name,
            "revision": self._models["captioners"][name]["revision"],
            "max_pixels": self._config.images.max_pixels,
            "templates": self._templates.get(name),
        }
        return images.map_batches(
            CaptionActor,
            fn_constructor_args=(arguments, config),
            fn_constructor_kwargs={"place": place, "engine": self._engine},
            runtime_env=_environment(config, f"captioners.{name}.model"),
            **actor_pool(config.pool, restarts=-1, calls=calls_at_once(config)),
        )

    def _place(self, stage: str, name: str, index: Index, *, parts: int | None = None) -> PassPlace:
        self._boards[stage] = self._run_boards.open(index, parts=parts)
        return PassPlace(self._ledger, self._boards[stage], self._config.ledger, name)

    def _rewritten(self, name: str, captions: ray.data.Dataset | None, pending: np.ndarray, index: Index) -> ray.data.Dataset:
        """Rewriting and keeping the faithful are one stage: an unfaithful rewrite is drawn again on the spot."""
        if len(pending):
            earlier = self._earlier(pending)
            captions = earlier if captions is None else captions.union(earlier)
        assert captions is not None
        assert self._rewrites is not None
        config = self._config
        return rewritten(
            captions,
            config.rewriter,
            config.faithfulness,
            recipe=self._rewrites,
            place=self._place(RewriteActor.stage, name, index),
            revision=self._models["rewriter"]["revision"],
            engine=self._engine,
        )

    def _earlier(self, keys: np.ndarray) -> ray.data.Dataset:
        """LEDGER rows of captions that are there already."""
        import ray

        files = [{"file": str(file)} for file in self._ledger.row_files()]
        rows = ray.data.from_items(files, override_num_blocks=len(files)).map_batches(
            _rows_of_file, fn_args=(ray.put(keys),), batch_size=1, batch_format="pyarrow", num_cpus=1
        )
        return rows.repartition(target_num_rows_per_block=self._config.rewriter.pool.batch_size)


def rewritten(
    captions: ray.data.Dataset,
    config: RewriterConfig,
    faithfulness: FaithfulnessConfig,
    *,
    recipe: RewriteRecipe,
    place: PassPlace,
    revision: str,
    engine: ChatEngine | StreamingEngine | None,
) -> ray.data.Dataset:
    """LEDGER rows of captions -> the same rows and their rewrites, by a pool of actors, committed to the ledger.

    Args:
        captions: what is rewritten; a batch of them holds config.pool.batch_size.
        config: the language model.
        faithfulness: the filter, which draws a rewrite again on the spot.
        recipe: of both.
        place: of this pass.
        revision: what identifies the language model's weights.
        engine: used instead of a vLLM engine of `config`.
    """
    return captions.map_batches(
        RewriteActor,
        fn_constructor_args=(config, faithfulness),
        fn_constructor_kwargs={"recipe": recipe, "revision": revision, "place": place, "engine": engine},
        runtime_env=_environment(config, "rewriter.model"),
        **actor_pool(config.pool, restarts=-1, calls=calls_at_once(config)),
    )


def _refuse_duplicates(config: CaptionJob, recipes: Mapping[str, CaptionRecipe]) -> None:
    first: dict[tuple[str, str], str] = {}
    for name, recipe in recipes.items():
        for kind in config.captioners[name].instructions:
            other = first.setdefault((recipe.stage, kind), name)
            if other != name:
                raise ConfigError(
                    f"captioners.{name}: asks for the same {kind} captions as captioners.{other}; drop one, or give it another model, "
                    "sampling or seed"
                )


def _rows_of_file(batch: pa.Table, keys: ray.ObjectRef) -> pa.Table:
    import ray

    return pa.concat_tables([rows_with(file, ray.get(keys)) for file in batch["file"].to_pylist()])


def _environment(section: CaptionerConfig | RewriterConfig, field: str) -> dict[str, Any]:
    return {"env_vars": engine_environment(resolve_model(section.model, field=field), section.engine, section.pool)}
