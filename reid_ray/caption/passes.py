"""The Ray Data pipeline of a caption run: one pass per captioner over what is missing, repeated until nothing is.

Knows the stages' order and their actors; what is missing is found by missing.py, and rows go to the ledger.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from reid_ray import errors
from reid_ray.caption.config import CaptionerConfig, CaptionJob, FaithfulnessConfig, RewriterConfig
from reid_ray.caption.engines.vllm_engine import ChatEngine, engine_environment
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
from reid_ray.caption.stages import CaptionStage, RewriteStage
from reid_ray.caption.tally import Tally
from reid_ray.data.execution import actor_pool
from reid_ray.data.sources import ImageListing, read_images
from reid_ray.errors import ConfigError, DataError, ReidRayError
from reid_ray.model.model_files import resolve_model
from reid_ray.progress import progress_bar

if TYPE_CHECKING:
    import numpy as np
    import ray.data

_MAX_ROUNDS = 3  # a source that changes while it is read may need a second look
_COMPACT_EVERY = 512  # blocks
_TOLD = re.compile(r"^reid_ray\.errors\.(\w+): (.+)$", re.MULTILINE)  # the last line of a traceback
_COMPACT_AFTER_S = 300.0  # an actor that lost its answer looks for its block by name


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
        engine: ChatEngine | None,
    ) -> None:
        self._config, self.listing, self._ledger = config, listing, ledger
        self._models, self._templates, self._engine = models, templates, engine
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
        for number in range(_MAX_ROUNDS + 1):
            left = 0
            if number:
                self.listing = renewed(self.listing, self._ledger)
            for name in self.names:
                view, index = look_up_listing(self.listing, self._ledger), self._index()
                plan = plan_pass(view, self._recipes[name], self._rewrites, index)
                if plan.done:
                    continue
                if number == _MAX_ROUNDS:
                    raise DataError(f"{self.listing.origin}: changes while it is being read; run the command again when it has settled")
                left += 1
                made += self._execute(name, plan, index, record=bool(view.unknown))
            if not left:
                break
        self._ledger.compact()
        return {"rows_of_earlier_runs": int(len(before.ok) + len(before.failed)), "rows_made": made}

    def rows(self, name: str) -> Iterator[pa.Table]:
        """The result of one captioner's pass as STAGED tables, in the images' order; call after make()."""
        view = look_up_listing(self.listing, self._ledger)
        plan = plan_pass(view, self._recipes[name], self._rewrites, self._index())
        stride = orders_per_image(self._rewrites)
        return published_rows(self._ledger, view, plan, stride=stride, captioner=name)

    def _index(self) -> Index:
        return read_index(self._ledger, retry_failed=self._config.ledger.retry_failed)

    def _execute(self, name: str, plan: PassPlan, index: Index, *, record: bool) -> int:
        """Run one pass over what it lacks; returns the rows made."""
        captions = self._captions(name, plan, index, record=record)
        if self._rewrites is not None:
            captions = self._rewritten(captions, plan.pending)
        tally = Tally()
        assert captions is not None  # a plan that is not done has one or the other
        with progress_bar(f"caption {name}", self.listing.count, initial=self.listing.count - plan.images) as bar:

            def see(table: pa.Table) -> None:
                bar.update(tally.add(table))
                bar.set_postfix_str(f"{tally.images - tally.outcomes['ok']} failed, {tally.kinds['rewrite ok']} rewrites")

            made = drained(captions, self._ledger, see)
        self.throughput[name] = tally.throughput()
        return made

    def _captions(self, name: str, plan: PassPlan, index: Index, *, record: bool) -> ray.data.Dataset | None:
        if not plan.unread:
            return None
        import ray

        config = self._config.captioners[name]
        recipe = self._recipes[name]
        claim = MissingFilter(self._ledger, recipe, ray.put(index), record=record)
        images = read_images(self._config.images, listing=some_pieces(self.listing, plan.unread), through=claim, engines=config.pool.most)
        arguments = {
            "name": name,
            "revision": self._models["captioners"][name]["revision"],
            "max_pixels": self._config.images.max_pixels,
            "templates": self._templates.get(name),
            **({} if self._engine is None else {"engine": self._engine}),
        }
        return images.map_batches(
            CaptionStage,
            fn_constructor_args=(arguments, config),
            fn_constructor_kwargs={"recipe": recipe, "ledger": self._ledger, "timeout_s": self._config.ledger.batch_timeout_s},
            runtime_env=_environment(config, f"captioners.{name}.model"),
            **actor_pool(config.pool, restarts=-1),
        )

    def _rewritten(self, captions: ray.data.Dataset | None, pending: np.ndarray) -> ray.data.Dataset:
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
            ledger=self._ledger,
            revision=self._models["rewriter"]["revision"],
            timeout_s=config.ledger.batch_timeout_s,
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
    ledger: Ledger,
    revision: str,
    timeout_s: float,
    engine: ChatEngine | None,
) -> ray.data.Dataset:
    """LEDGER rows of captions -> the same rows and their rewrites, by a pool of actors, committed to the ledger.

    Args:
        captions: what is rewritten; a batch of them holds config.pool.batch_size.
        config: the language model.
        faithfulness: the filter, which draws a rewrite again on the spot.
        recipe: of both.
        ledger: of this run.
        revision: what identifies the language model's weights.
        timeout_s: what one batch may take.
        engine: used instead of a vLLM engine of `config`.
    """
    arguments = {
        "config": config,
        "faithfulness": faithfulness,
        "revision": revision,
        **({} if engine is None else {"engine": engine}),
    }
    return captions.map_batches(
        RewriteStage,
        fn_constructor_args=(arguments,),
        fn_constructor_kwargs={"recipe": recipe, "ledger": ledger, "timeout_s": timeout_s},
        runtime_env=_environment(config, "rewriter.model"),
        **actor_pool(config.pool, restarts=-1),
    )


def drained(rows: ray.data.Dataset, ledger: Ledger, see: Callable[[pa.Table], None]) -> int:
    """Run a pipeline of LEDGER rows to its end, showing each table to `see`; returns the rows that this run made.

    The ledger is compacted on the way.
    """
    files, made, since = frozenset(ledger.row_files()), 0, 0
    for table in _unwrapped_errors(rows.iter_batches(batch_size=None, batch_format="pyarrow")):
        see(table)
        made += pc.sum(pc.equal(table["run"], ledger.run)).as_py() or 0
        since += 1
        if since >= _COMPACT_EVERY:
            ledger.compact(keep=files, older_than_s=_COMPACT_AFTER_S)
            since = 0
    return made


def _unwrapped_errors(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same tables; an actor's error for the user is raised as itself, without Ray's wrappings."""
    try:
        yield from tables
    except Exception as error:
        inner: BaseException | None = error
        said = None
        while inner is not None:
            said = inner if isinstance(inner, ReidRayError) else said  # the innermost: Ray's wrappings pass for what they wrap
            inner = getattr(inner, "cause", None) or inner.__cause__
        if said is None:
            _raise_told(str(error))
            raise
        raise type(said)(str(said).partition("\n")[0]) from None  # one sentence; Ray Data appends advice of its own


def _raise_told(message: str) -> None:
    """Raise the error for the user that a message quotes, if any: of an actor that dies in its __init__, Ray keeps the words alone."""
    for kind, sentence in reversed(_TOLD.findall(message)):
        found = getattr(errors, kind, None)
        if isinstance(found, type) and issubclass(found, ReidRayError):
            raise found(sentence) from None


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
