"""Rewriter (LLM-DA): paraphrases of captions by a language model, with rejection sampling by faithfulness; originals pass through.

A rewrite is generated, scored, and generated again if it is unfaithful; after the last try the original stands alone.
Knows captions as rows; not images. `Rewriter` is what each Ray Data actor holds; tests call it directly, with a scripted engine and
scorer or with real ones. Original rows pass through untouched.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from reid_ray.caption.config import FaithfulnessConfig, RewriterConfig
from reid_ray.caption.engines.vllm_engine import ChatEngine, Engine, Reply
from reid_ray.caption.filters.agreement import compare_attributes, why_unfaithful
from reid_ray.caption.filters.cleaning import BadAnswerError, clean_answer
from reid_ray.caption.filters.faithfulness import FaithfulnessScorer, SentenceEncoder
from reid_ray.caption.ledger.content_keys import falls_in_share, prompt_fingerprint, rewrite_id
from reid_ray.caption.live_metrics import StageMetrics
from reid_ray.caption.prompts import REWRITE, fingerprint_text, rewrite_request
from reid_ray.caption.rows import staged_table
from reid_ray.model.model_files import resolve_model
from reid_ray.records import IDENTITY_COLUMNS

REWRITE_INSTRUCTION_ID = "llm-da"


@dataclass
class _Rewrite:
    """One rewrite in the making; keeps the best try that was a caption at all."""

    id: str
    parent: dict[str, Any]
    text: str | None = None
    score: float | None = None
    agreement: float | None = None
    reason: str | None = None
    accepted: bool = False
    tries: int = 0
    tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0


class Rewriter:
    """Adds rewrites to STAGED tables. Building it loads the language model and the sentence encoder.

    Args:
        config: model, engine, sampling and how many captions are rewritten.
        faithfulness: sentence encoder, threshold and number of tries.
        revision: what identifies the language model's weights, for the rows.
        engine: used instead of a vLLM engine of `config`.
        scorer: used instead of the sentence encoder of `faithfulness`.
    """

    def __init__(
        self,
        config: RewriterConfig,
        faithfulness: FaithfulnessConfig,
        *,
        revision: str,
        engine: ChatEngine | None = None,
        scorer: FaithfulnessScorer | None = None,
    ) -> None:
        clock = time.perf_counter()
        self._config, self._faithfulness, self._revision = config, faithfulness, revision
        self._engine = engine or Engine(
            resolve_model(config.model, field="rewriter.model"),
            revision=config.revision,
            config=config.engine,
            sampling=config.sampling,
            images=0,
            pool=config.pool,
            adapter=config.adapter,
            field="rewriter",
        )
        self._scorer = scorer or SentenceEncoder(
            resolve_model(faithfulness.model, field="faithfulness.model"), revision=faithfulness.revision
        )
        self._prompt = prompt_fingerprint(fingerprint_text(REWRITE, instruction_first=config.instruction_first), config.sampling)
        self._metrics = StageMetrics("rewriter")
        self._startup: float | None = time.perf_counter() - clock

    def __call__(self, captions: pa.Table) -> pa.Table:
        """A STAGED table -> the same rows, each followed by its rewrites."""
        clock = time.perf_counter()
        rows = captions.to_pylist()
        per_row = [self._wanted(row) for row in rows]
        rewrites = [rewrite for wanted in per_row for rewrite in wanted]
        for _ in range(self._faithfulness.max_tries):
            self._try([rewrite for rewrite in rewrites if not rewrite.accepted])
        seconds = time.perf_counter() - clock
        made = {rewrite.id: self._row(rewrite, seconds / len(rewrites)) for rewrite in rewrites}
        if rewrites:
            made[rewrites[0].id]["startup_seconds"], self._startup = self._startup, None
            self._metrics.count(staged_table(list(made.values())), seconds)
        return staged_table([out for row, wanted in zip(rows, per_row, strict=True) for out in (row, *(made[r.id] for r in wanted))])

    def given_up(self, captions: pa.Table, reason: str) -> pa.Table:
        """The wanted rewrites of a STAGED table as failed rows, without asking the engine."""
        rewrites = [rewrite for row in captions.to_pylist() for rewrite in self._wanted(row)]
        return staged_table([self._row(rewrite, 0.0) | {"reason": reason} for rewrite in rewrites])

    def _wanted(self, row: dict[str, Any]) -> list[_Rewrite]:
        if row["status"] != "ok" or not falls_in_share(row["caption_id"], self._config.share):
            return []
        model = {"model": self._config.model, "revision": self._revision, "prompt": self._prompt}
        return [_Rewrite(rewrite_id(parent_id=row["caption_id"], number=number, **model), row) for number in range(self._config.count)]

    def _try(self, rewrites: Sequence[_Rewrite]) -> None:
        """One generation for each, with a seed of its own; keeps it if it is faithful, or the best so far."""
        conversations = [[{"role": "user", "content": self._request(rewrite)}] for rewrite in rewrites]
        replies = self._engine.chat(conversations, [f"{rewrite.id} {rewrite.tries}" for rewrite in rewrites])
        candidates: list[tuple[_Rewrite, str]] = []
        for rewrite, reply in zip(rewrites, replies, strict=True):
            rewrite.tries += 1
            rewrite.tokens += reply.tokens
            rewrite.prompt_tokens += reply.prompt_tokens
            rewrite.cached_tokens += reply.cached_tokens
            try:
                candidates.append((rewrite, self._rewritten(reply, rewrite.parent["text"])))
            except BadAnswerError as error:
                rewrite.reason = rewrite.reason if rewrite.text is not None else str(error)
        scores = self._scorer.score([rewrite.parent["text"] for rewrite, _ in candidates], [text for _, text in candidates])
        for (rewrite, text), score in zip(candidates, scores.tolist(), strict=True):
            agreement = compare_attributes(rewrite.parent["text"], text)
            reason = why_unfaithful(score, agreement, self._faithfulness)
            if reason is None or rewrite.score is None or score > rewrite.score:
                rewrite.text, rewrite.score, rewrite.agreement = text, score, agreement.score
                rewrite.accepted, rewrite.reason = reason is None, reason

    def _request(self, rewrite: _Rewrite) -> str:
        return rewrite_request(rewrite.parent["text"], instruction_first=self._config.instruction_first)

    def _rewritten(self, reply: Reply, original: str) -> str:
        if reply.text is None:
            raise BadAnswerError("rejected", str(reply.error))
        text = clean_answer(reply.text, finished=reply.finished, limits=self._config.limits, prompt=REWRITE)
        if "".join(filter(str.isalnum, text.casefold())) == "".join(filter(str.isalnum, original.casefold())):
            raise BadAnswerError("copied", "the rewrite repeats the original word for word")
        return text

    def _row(self, rewrite: _Rewrite, seconds: float) -> dict[str, Any]:
        return {
            "caption_id": rewrite.id,
            "image_id": rewrite.parent["image_id"],
            "image_sha256": rewrite.parent["image_sha256"],
            "parent_id": rewrite.parent["caption_id"],
            "kind": "rewrite",
            "text": rewrite.text,
            "status": "ok" if rewrite.accepted else "failed" if rewrite.text is None else "unfaithful",
            "reason": rewrite.reason,
            "faithfulness": rewrite.score,
            "agreement": rewrite.agreement,
            "tries": rewrite.tries,
            "captioner": rewrite.parent["captioner"],
            "model": self._config.model,
            "revision": self._revision,
            "instruction_id": REWRITE_INSTRUCTION_ID,
            "prompt_fingerprint": self._prompt,
            "seed": self._config.sampling.seed,
            "tokens": rewrite.tokens,
            "prompt_tokens": rewrite.prompt_tokens,
            "cached_tokens": rewrite.cached_tokens,
            "seconds": seconds,
            **{name: rewrite.parent[name] for name in IDENTITY_COLUMNS},
        }
