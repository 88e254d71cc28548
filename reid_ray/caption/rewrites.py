"""Rewriter (LLM-DA): paraphrases of a caption by a language model, with rejection sampling by faithfulness.

A rewrite is generated, scored, and generated again if it is unfaithful; after the last try the original stands alone. Knows captions as
rows; not images, nor who answers and scores: the work on a caption is a generator that yields requests, is sent replies, and returns rows.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

from reid_ray.caption.config import FaithfulnessConfig, RewriterConfig
from reid_ray.caption.engines.protocol import Reply
from reid_ray.caption.filters.agreement import compare_attributes, why_unfaithful
from reid_ray.caption.filters.cleaning import BadAnswerError, clean_answer
from reid_ray.caption.ledger.content_keys import prompt_fingerprint
from reid_ray.caption.ledger.row_keys import RewriteRecipe
from reid_ray.caption.prompts import REWRITE, fingerprint_text, rewrite_request
from reid_ray.caption.streaming.engine_loop import Request
from reid_ray.caption.streaming.scoring_loop import PairToScore
from reid_ray.records import IDENTITY_COLUMNS

Row = dict[str, Any]  # of the LEDGER schema
Rewriting = Generator[list[Request] | list[PairToScore], list[Any], list[Row]]
REWRITE_INSTRUCTION_ID = "llm-da"


@dataclass
class _Rewrite:
    """One rewrite in the making; keeps the best try that was a caption at all."""

    id: str
    key: bytes
    parent: Row
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
    """Turns captions into works that ask a language model and a sentence encoder; holds neither.

    Args:
        config: model, limits and sampling.
        faithfulness: thresholds and number of tries.
        recipe: which rewrites a caption is to have.
        revision: what identifies the language model's weights, for the rows.
    """

    def __init__(self, config: RewriterConfig, faithfulness: FaithfulnessConfig, *, recipe: RewriteRecipe, revision: str) -> None:
        self._config, self._faithfulness, self._recipe, self._revision = config, faithfulness, recipe, revision
        self._prompt = prompt_fingerprint(fingerprint_text(REWRITE, instruction_first=config.instruction_first), config.sampling)

    def work(self, caption: Row) -> Rewriting:
        """The rewrites of a caption (a LEDGER row), each drawn again until it is faithful or the tries are spent."""
        rewrites = self._wanted(caption)
        for _ in range(self._faithfulness.max_tries):
            yield from self._try([rewrite for rewrite in rewrites if not rewrite.accepted])
        return [self._row(rewrite) for rewrite in rewrites]

    def given_up(self, caption: Row, reason: str) -> list[Row]:
        """The rewrites of a caption as failed rows, without asking anybody."""
        return [self._row(rewrite) | {"reason": reason} for rewrite in self._wanted(caption)]

    def _wanted(self, caption: Row) -> list[_Rewrite]:
        keys = self._recipe.keys_by_id(caption["caption_id"], caption["key"])
        return [_Rewrite(name, key, caption) for name, key in keys.items()]

    def _try(self, rewrites: Sequence[_Rewrite]) -> Generator[list[Request] | list[PairToScore], list[Any], None]:
        """One generation for each, with a seed of its own; keeps it if it is faithful, or the best so far."""
        if not rewrites:
            return
        asked = [Request([{"role": "user", "content": self._request(rewrite)}], f"{rewrite.id} {rewrite.tries}") for rewrite in rewrites]
        replies: list[Reply] = yield asked
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
        if not candidates:
            return
        scores: list[float] = yield [PairToScore(rewrite.parent["text"], text) for rewrite, text in candidates]
        for (rewrite, text), score in zip(candidates, scores, strict=True):
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

    def _row(self, rewrite: _Rewrite) -> Row:
        return {
            "key": rewrite.key,
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
            **{name: rewrite.parent[name] for name in IDENTITY_COLUMNS},
        }
