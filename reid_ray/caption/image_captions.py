"""Captioner: images -> captions by a multimodal LLM (decode, prompt, generate, clean); every image ends in a caption or a reason.

Knows instructions and what a failed caption is; not where images come from or what becomes of captions. `Captioner` is what each
Ray Data actor holds; tests call it directly, with a scripted engine or a real one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from PIL import Image

from reid_ray.caption.config import CaptionerConfig
from reid_ray.caption.engines.vllm_engine import ChatEngine, Conversation, Engine
from reid_ray.caption.filters.cleaning import BadAnswerError, clean_answer
from reid_ray.caption.ledger.content_keys import caption_id, prompt_fingerprint
from reid_ray.caption.live_metrics import StageMetrics
from reid_ray.caption.prompts import Instruction, dynamic_instruction, fingerprint_text, static_instruction
from reid_ray.caption.rows import reason_code, staged_table
from reid_ray.data.images import BadImageError, decode_image
from reid_ray.data.pieces import UNREAD
from reid_ray.model.model_files import resolve_model
from reid_ray.records import IDENTITY_COLUMNS


@dataclass
class _Draft:
    """One caption in the making: an image's row without its bytes, what is asked, and what came of it."""

    image: dict[str, Any]
    instruction: Instruction
    picture: Image.Image | None
    text: str | None = None
    reason: str | None = None
    tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    tries: int = 0
    tried: list[Instruction] = field(default_factory=list)  # dynamic instructions that failed before this one

    @property
    def first(self) -> Instruction:
        """The instruction drawn first: it names the caption, whichever one gave the text."""
        return self.tried[0] if self.tried else self.instruction

    @property
    def ok(self) -> bool:
        return self.text is not None


@dataclass
class _ImageDrafts:
    drafts: list[_Draft] = field(default_factory=list)

    def outcome(self) -> str:
        """Ok if the image has a caption, else the code of its last failure."""
        return "ok" if any(draft.ok for draft in self.drafts) else reason_code(self.drafts[-1].reason)


class Captioner:
    """Captions IMAGES tables. Building it loads the model.

    Args:
        name: the captioner's name in the configuration, for the rows.
        config: model, instructions, engine and sampling.
        revision: what identifies the weights, for the rows.
        templates: id -> template of the dynamic instruction; None takes this project's own.
        max_pixels: an image whose header claims more is not decoded.
        engine: used instead of a vLLM engine of `config`.
    """

    def __init__(
        self,
        name: str,
        config: CaptionerConfig,
        *,
        revision: str,
        max_pixels: int,
        templates: Mapping[str, str] | None = None,
        engine: ChatEngine | None = None,
    ) -> None:
        clock = time.perf_counter()
        self._name, self._config, self._revision, self._max_pixels = name, config, revision, max_pixels
        self._templates = templates
        self._engine = engine or Engine(
            resolve_model(config.model, field=f"captioners.{name}.model"),
            revision=config.revision,
            config=config.engine,
            sampling=config.sampling,
            images=1,
            pool=config.pool,
            adapter=config.adapter,
            field=f"captioners.{name}",
        )
        self._metrics = StageMetrics("captioner")
        self._startup: float | None = time.perf_counter() - clock

    @property
    def engine(self) -> ChatEngine:
        """The engine, for a second captioner in the same process."""
        return self._engine

    def __call__(self, images: pa.Table) -> pa.Table:
        """An IMAGES table -> a STAGED table with one row or more per image, in order."""
        clock = time.perf_counter()
        per_image = [self._drafts(row) for row in images.to_pylist()]
        self._generate([draft for image in per_image for draft in image.drafts])
        self._retry_failed_dynamic([draft for image in per_image for draft in image.drafts])
        self._replace_failed_dynamic(per_image)
        seconds = time.perf_counter() - clock
        table = self._table(per_image, seconds)
        self._metrics.count(table, seconds)
        return table

    def _drafts(self, row: dict[str, Any]) -> _ImageDrafts:
        data = row.pop("image")
        try:
            picture = decode_image(data, max_pixels=self._max_pixels, unread=row.pop(UNREAD.name, None))
        except BadImageError as error:
            reason = f"{error} ({row['path']})" if data is None and row["path"] else str(error)
            return _ImageDrafts([_Draft(row, instruction, None, reason=reason) for instruction in self._instructions(row)])
        # The model sees a few hundred pixels at most; a batch of full-size photographs would only take memory.
        picture.thumbnail((self._config.max_side, self._config.max_side))
        return _ImageDrafts([_Draft(row, instruction, picture) for instruction in self._instructions(row)])

    def _instructions(self, row: dict[str, Any]) -> list[Instruction]:
        key = self._key(row)
        return [
            static_instruction() if kind == "static" else dynamic_instruction(key, templates=self._templates)
            for kind in self._config.instructions
        ]

    def _key(self, row: dict[str, Any]) -> str:
        return f"{self._config.sampling.seed} {row['image_sha256'] or row['image_id']}"

    def _generate(self, drafts: Sequence[_Draft]) -> None:
        asked = [draft for draft in drafts if draft.picture is not None]
        if not asked:  # an image that is given up must not touch the engine at all
            return
        first = self._config.instruction_first
        if first:
            # Prompts that begin alike stand together. With pictures first they do already: an image's drafts are neighbours.
            asked.sort(key=lambda draft: draft.instruction.id)
        replies = self._engine.chat(
            [_conversation(draft, instruction_first=first) for draft in asked], [self._stream(draft) for draft in asked]
        )
        for draft, reply in zip(asked, replies, strict=True):
            draft.tries += 1
            draft.tokens += reply.tokens
            draft.prompt_tokens += reply.prompt_tokens
            draft.cached_tokens += reply.cached_tokens
            if reply.text is None:
                draft.reason = f"rejected: {reply.error}"
                continue
            draft.reason = None
            try:
                draft.text = clean_answer(reply.text, finished=reply.finished, limits=self._config.limits, prompt=draft.instruction.text)
            except BadAnswerError as error:
                draft.reason = str(error)

    def _retry_failed_dynamic(self, drafts: Sequence[_Draft]) -> None:
        """A dynamic caption that failed is asked for again with another template; an image that the engine refuses is not."""
        for _ in range(self._config.template_tries - 1):
            failed = [
                draft
                for draft in drafts
                if not draft.ok and draft.picture is not None and draft.instruction.kind == "dynamic" and not _rejected(draft)
            ]
            for draft in failed:
                draft.tried.append(draft.instruction)
                draft.instruction = dynamic_instruction(
                    self._key(draft.image), templates=self._templates, tried=[instruction.id for instruction in draft.tried]
                )
            self._generate(failed)

    def _replace_failed_dynamic(self, per_image: Sequence[_ImageDrafts]) -> None:
        """A dynamic caption that failed is replaced by a static one of the same image, unless that is asked for anyway."""
        if "static" in self._config.instructions:
            return
        retries = []
        for image in per_image:
            failed = [draft for draft in image.drafts if not draft.ok and draft.picture is not None]
            for draft in failed[:1]:
                retries.append(_Draft(draft.image, static_instruction(), draft.picture))
                image.drafts.append(retries[-1])
        self._generate(retries)

    def _table(self, per_image: Sequence[_ImageDrafts], seconds: float) -> pa.Table:
        rows = []
        for image in per_image:
            for number, draft in enumerate(image.drafts):
                rows.append(self._row(draft) | {"image_outcome": None if number else image.outcome()})
        for row in rows:
            row["seconds"] = seconds / len(rows)
        if rows:
            rows[0]["startup_seconds"], self._startup = self._startup, None
        return staged_table(rows)

    def _row(self, draft: _Draft) -> dict[str, Any]:
        return {
            "caption_id": self._id(draft),
            "image_id": draft.image["image_id"],
            "image_sha256": draft.image["image_sha256"],
            "kind": draft.instruction.kind,
            "text": draft.text,
            "status": "ok" if draft.ok else "failed",
            "reason": draft.reason,
            "tries": draft.tries,
            "captioner": self._name,
            "model": self._config.model,
            "revision": self._revision,
            "instruction_id": draft.instruction.id,
            "prompt_fingerprint": self._prompt(draft.instruction),
            "seed": self._config.sampling.seed,
            "tokens": draft.tokens,
            "prompt_tokens": draft.prompt_tokens,
            "cached_tokens": draft.cached_tokens,
            **{name: draft.image[name] for name in IDENTITY_COLUMNS},
        }

    def _id(self, draft: _Draft) -> str:
        return caption_id(
            image_id=draft.image["image_id"],
            image_sha256=draft.image["image_sha256"],
            instruction_id=draft.first.id,
            model=self._config.model,
            revision=self._revision,
            prompt=self._prompt(draft.first),
        )

    def _stream(self, draft: _Draft) -> str:
        """The name of a request, from which its random stream derives: a stream of its own for every try."""
        return f"{self._id(draft)} {draft.tries}" if draft.tries else self._id(draft)

    def _prompt(self, instruction: Instruction) -> str:
        return prompt_fingerprint(
            fingerprint_text(instruction.text, instruction_first=self._config.instruction_first), self._config.sampling
        )


def _rejected(draft: _Draft) -> bool:
    return str(draft.reason).startswith("rejected")


def _conversation(draft: _Draft, *, instruction_first: bool) -> Conversation:
    content = [{"type": "image_pil", "image_pil": draft.picture}, {"type": "text", "text": draft.instruction.text}]
    return [{"role": "user", "content": content[::-1] if instruction_first else content}]
