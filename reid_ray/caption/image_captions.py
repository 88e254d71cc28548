"""Captioner: one image -> its captions by a multimodal LLM (decode, prompt, generate, clean); every image ends in a caption or a reason.

Knows what is asked of an image and what a failed caption is; not who answers, where images come from or what becomes of captions. The
work on an image is a generator: it yields the requests that it has, is sent their replies, and returns its rows.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from reid_ray.caption.config import CaptionerConfig
from reid_ray.caption.engines.protocol import Conversation, Reply
from reid_ray.caption.fast_shrinking import decode_at_most
from reid_ray.caption.filters.cleaning import BadAnswerError, clean_answer
from reid_ray.caption.ledger.content_keys import prompt_fingerprint
from reid_ray.caption.ledger.row_keys import CaptionRequest, ImageAsk
from reid_ray.caption.prompts import Instruction, fingerprint_text, instruction_of
from reid_ray.caption.rows import reason_code
from reid_ray.caption.streaming.engine_loop import Request
from reid_ray.data.images import BadImageError, decode_image
from reid_ray.data.pieces import UNREAD
from reid_ray.records import IDENTITY_COLUMNS

Row = dict[str, Any]  # of the LEDGER schema
Conversing = Generator[list[Request], list[Reply], list[Row]]


@dataclass(frozen=True)
class _Source:
    """An image as it is stored: a twentieth of its pixels, which are decoded for each round of requests and not kept meanwhile."""

    data: bytes | None
    unread: str | None
    path: str | None


@dataclass
class _Draft:
    """One caption in the making: what is asked, and what came of it."""

    ask: CaptionRequest
    instruction: Instruction  # the one that was tried last
    readable: bool = True  # False: the engine is not asked
    text: str | None = None
    reason: str | None = None
    tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    tries: int = 0
    chain: int = field(default=0)  # place of `instruction` in the ask's

    @property
    def ok(self) -> bool:
        return self.text is not None

    @property
    def key(self) -> bytes:
        """The ledger's key: of the instruction that gave the text, or of all that gave none."""
        return self.ask.keys[self.chain if self.ok else -1]

    @property
    def rejected(self) -> bool:
        return str(self.reason).startswith("rejected")


class Captioner:
    """Turns images into works that ask an engine; holds no engine.

    Args:
        name: the captioner's name in the configuration, for the rows.
        config: model, limits and sampling.
        revision: what identifies the weights, for the rows.
        templates: id -> template of the dynamic instruction; None takes this project's own.
        max_pixels: an image whose header claims more is not decoded.
    """

    def __init__(
        self, name: str, config: CaptionerConfig, *, revision: str, max_pixels: int, templates: Mapping[str, str] | None = None
    ) -> None:
        self._name, self._config, self._revision, self._max_pixels = name, config, revision, max_pixels
        self._templates = templates
        self._prompts: dict[str, str] = {}  # instruction id -> prompt fingerprint

    def work(self, image: Row, ask: ImageAsk) -> Conversing:
        """The captions that an image lacks.

        Args:
            image: a SOURCED row.
            ask: what it lacks.
        """
        source = _Source(image.pop("image"), image.pop(UNREAD.name, None), image["path"])
        drafts = [self._draft(request) for request in ask.requests]
        yield from self._generate(drafts, source)
        for _ in range(self._config.template_tries - 1):
            yield from self._generate(self._with_another_template(drafts), source)
        if ask.stand_in is not None and any(not draft.ok and draft.readable for draft in drafts):
            drafts.append(self._draft(ask.stand_in))
            yield from self._generate(drafts[-1:], source)
        return self._rows(image, drafts)

    def given_up(self, image: Row, ask: ImageAsk, reason: str) -> list[Row]:
        """The captions that an image lacks as failed rows; its bytes are not touched."""
        drafts = [_Draft(request, self._first_instruction(request), readable=False, reason=reason) for request in ask.requests]
        return self._rows(image, drafts)

    def _decoded(self, source: _Source) -> Image.Image:
        """The picture as it is handed on: the model sees a few hundred pixels, full-size photographs that wait would only take memory."""
        longest = self._config.max_side
        if self._config.shrink == "fast":
            return decode_at_most(source.data, max_side=longest, max_pixels=self._max_pixels, unread=source.unread)
        picture = decode_image(source.data, max_pixels=self._max_pixels, unread=source.unread)
        picture.thumbnail((longest, longest))
        return picture

    def _draft(self, request: CaptionRequest) -> _Draft:
        return _Draft(request, self._first_instruction(request))

    def _first_instruction(self, request: CaptionRequest) -> Instruction:
        return instruction_of(request.instruction_ids[0], self._templates)

    def _requests(self, drafts: Sequence[_Draft], source: _Source) -> list[Request]:
        picture, first = self._decoded(source), self._config.instruction_first
        return [Request(_conversation(picture, draft.instruction, instruction_first=first), _stream(draft)) for draft in drafts]

    def _generate(self, drafts: Sequence[_Draft], source: _Source) -> Generator[list[Request], list[Reply], None]:
        asked = [draft for draft in drafts if draft.readable]
        if not asked:  # an image that is given up must not touch the engine at all
            return
        try:
            replies = yield self._requests(asked, source)
        except BadImageError as error:
            for draft in asked:
                draft.readable = False
                draft.reason = f"{error} ({source.path})" if source.data is None and source.path else str(error)
            return
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

    def _with_another_template(self, drafts: Sequence[_Draft]) -> list[_Draft]:
        """Dynamic captions that failed, to be asked for again; an image that the engine refuses is not."""
        failed = [draft for draft in drafts if not draft.ok and draft.readable and draft.ask.kind == "dynamic" and not draft.rejected]
        for draft in failed:
            draft.chain += 1
            draft.instruction = instruction_of(draft.ask.instruction_ids[draft.chain], self._templates)
        return failed

    def _rows(self, image: Row, drafts: Sequence[_Draft]) -> list[Row]:
        outcome = "ok" if any(draft.ok for draft in drafts) else reason_code(drafts[-1].reason)
        return [self._row(image, draft) | {"image_outcome": None if number else outcome} for number, draft in enumerate(drafts)]

    def _row(self, image: Row, draft: _Draft) -> Row:
        return {
            "key": draft.key,
            "caption_id": draft.ask.caption_id,
            "image_id": image["image_id"],
            "image_sha256": image["image_sha256"],
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
            **{name: image[name] for name in IDENTITY_COLUMNS},
        }

    def _prompt(self, instruction: Instruction) -> str:
        if instruction.id not in self._prompts:
            self._prompts[instruction.id] = prompt_fingerprint(
                fingerprint_text(instruction.text, instruction_first=self._config.instruction_first), self._config.sampling
            )
        return self._prompts[instruction.id]


def _stream(draft: _Draft) -> str:
    """The name of a request, from which its random stream derives: a stream of its own for every try."""
    return f"{draft.ask.caption_id} {draft.tries}" if draft.tries else draft.ask.caption_id


def _conversation(picture: Image.Image, instruction: Instruction, *, instruction_first: bool) -> Conversation:
    content = [{"type": "image_pil", "image_pil": picture}, {"type": "text", "text": instruction.text}]
    return [{"role": "user", "content": content[::-1] if instruction_first else content}]
