"""Rewrite actor: captions in, they and their rewrites out. Knows captions, a rewriter and its scorer; the rest is the engine actor's."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.caption.actors.configured_engine import calls_that_prepare, has_one_core, start_engine
from reid_ray.caption.actors.engine_actor import EngineActor, PassPlace, RowTask
from reid_ray.caption.config import FaithfulnessConfig, RewriterConfig
from reid_ray.caption.engines.protocol import ChatEngine, StreamingEngine, streaming
from reid_ray.caption.filters.faithfulness import FaithfulnessScorer, SentenceEncoder
from reid_ray.caption.ledger.row_keys import RewriteRecipe
from reid_ray.caption.live_metrics import StageMetrics
from reid_ray.caption.rewrites import Rewriter
from reid_ray.model.model_files import resolve_model


class RewriteActor(EngineActor):
    """LEDGER rows of captions -> the same rows and their rewrites.

    Args:
        config: the language model.
        faithfulness: the filter.
        recipe: of both.
        revision: what identifies the language model's weights.
        place: of this pass.
        engine: used instead of a vLLM engine of `config`.
        scorer: used instead of the sentence encoder of `faithfulness`.
    """

    stage = "rewriter"

    def __init__(
        self,
        config: RewriterConfig,
        faithfulness: FaithfulnessConfig,
        *,
        recipe: RewriteRecipe,
        revision: str,
        place: PassPlace,
        engine: ChatEngine | StreamingEngine | None = None,
        scorer: FaithfulnessScorer | None = None,
    ) -> None:
        self._recipe, self._rewriter = recipe, Rewriter(config, faithfulness, recipe=recipe, revision=revision)

        def start() -> tuple[StreamingEngine, FaithfulnessScorer]:
            model = (
                streaming(engine, capacity=config.engine.max_num_seqs)
                if engine is not None
                else start_engine(config, images=0, field="rewriter")
            )
            if scorer is not None:
                return model, scorer
            encoder = resolve_model(faithfulness.model, field="faithfulness.model")
            return model, SentenceEncoder(encoder, revision=faithfulness.revision, device=faithfulness.device)

        together, most_bytes = config.engine.admit_together, config.engine.prepared_mb << 20
        super().__init__(
            place,
            StageMetrics(self.stage),
            start=start,
            requests=config.count,
            together=together,
            most_bytes=most_bytes,
            preparing=calls_that_prepare(config),
            on_gpu=config.pool.num_gpus > 0,
            turns=has_one_core(config),
        )

    def __call__(self, captions: pa.Table) -> pa.Table:
        """A batch of captions and their rewrites."""
        if self._broken is not None:
            self._hand_back()
            return captions
        tasks = [self._task(row) for row in captions.filter(pc.equal(captions["status"], "ok")).to_pylist()]
        return pa.concat_tables([captions, self._run([task for task in tasks if task.ids])])

    def _task(self, caption: dict[str, Any]) -> RowTask:
        wanted = bool(self._recipe.keys(caption["caption_id"], caption["key"]))
        return RowTask(
            ids=list(self._recipe.keys_by_id(caption["caption_id"], caption["key"])) if wanted else [],
            converse=lambda: self._rewriter.work(caption),
            give_up=lambda why: self._rewriter.given_up(caption, why),
            texts=[caption["text"]],
        )
