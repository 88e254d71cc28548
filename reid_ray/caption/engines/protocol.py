"""Engine protocols: what captioning and rewriting ask of a language model's engine, request by request or conversation list by list.

Knows conversations and replies; no engine. A streaming engine is driven by one thread (streaming/engine_loop.py), which adds requests
while others run; `converse` drives it to the end of a list, for jobs that have one short list to ask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

Conversation = list[dict[str, Any]]  # chat messages in OpenAI's form; a picture is {"type": "image_pil", "image_pil": PIL image}


@dataclass(frozen=True)
class Reply:
    """The result of one request: a text, or an error in one line."""

    text: str | None
    error: str | None = None
    finished: bool = True  # False: cut at max_tokens
    tokens: int = 0  # generated
    prompt_tokens: int = 0  # image tokens included
    cached_tokens: int = 0  # of the prompt, found in the prefix cache


class EngineLoad(NamedTuple):
    """Requests that an engine decodes, requests that wait, and the share of its key-value cache in use; None where it does not tell."""

    running: int
    waiting: int
    cache_use: float | None


@runtime_checkable
class TellsLoad(Protocol):
    """Interface (protocol) of an engine that may tell its load, to any thread."""

    def load(self) -> EngineLoad | None:
        """Its load just now; None if it cannot be told."""
        ...


@runtime_checkable
class TakesMemory(Protocol):
    """What `prepare` may return, so that not too much is prepared ahead: it says what it takes."""

    nbytes: int


class StreamingEngine(Protocol):
    """Interface (protocol) of an engine with continuous batching. `prepare` may be called from any thread, the others from one alone."""

    @property
    def capacity(self) -> int:
        """Requests that it decodes together."""
        ...

    def prepare(self, conversation: Conversation, key: str) -> Any:
        """The CPU's part of a request: chat template, tokens, pixels. A Reply with the error where the conversation is refused.

        Args:
            conversation: what is asked.
            key: names the request and seeds its random stream.
        """
        ...

    def add(self, request: str, prepared: Any) -> Reply | None:
        """Queue what `prepare` returned under a name; a Reply with the error where it is refused now."""
        ...

    def step(self) -> list[tuple[str, Reply]]:
        """One step of all that runs; the requests that it finished."""
        ...

    def abort(self, requests: Sequence[str]) -> None:
        """Forget requests, whether they run or wait."""
        ...


class ChatEngine(Protocol):
    """Interface (protocol) of an engine that answers a list of conversations at once."""

    def chat(self, conversations: Sequence[Conversation], keys: Sequence[str]) -> list[Reply]:
        """One reply per conversation, in order; `keys` name the requests and seed their random streams."""
        ...


def converse(engine: StreamingEngine, conversations: Sequence[Conversation], keys: Sequence[str]) -> list[Reply]:
    """Ask a streaming engine that runs nothing else a list of conversations; one reply each, in order."""
    replies: dict[str, Reply] = {}
    for number, (conversation, key) in enumerate(zip(conversations, keys, strict=True)):
        prepared = engine.prepare(conversation, key)
        refused = prepared if isinstance(prepared, Reply) else engine.add(str(number), prepared)
        if refused is not None:
            replies[str(number)] = refused
    while len(replies) < len(conversations):
        replies.update(engine.step())
    return [replies[str(number)] for number in range(len(conversations))]


class ChatInSteps:
    """A ChatEngine as a streaming one: each step asks it all that waits, so that nothing new joins what runs.

    Args:
        engine: asked with lists.
        capacity: conversations of a list, at most.
    """

    def __init__(self, engine: ChatEngine, *, capacity: int) -> None:
        self._engine, self.capacity = engine, capacity
        self._waiting: dict[str, tuple[Conversation, str]] = {}

    def prepare(self, conversation: Conversation, key: str) -> tuple[Conversation, str]:
        """Nothing to prepare."""
        return conversation, key

    def add(self, request: str, prepared: tuple[Conversation, str]) -> None:
        """Queue it."""
        self._waiting[request] = prepared

    def step(self) -> list[tuple[str, Reply]]:
        """Ask the first of those that wait, `capacity` at most."""
        asked = list(self._waiting)[: self.capacity]
        conversations, keys = zip(*(self._waiting[name] for name in asked), strict=True)
        replies = self._engine.chat(conversations, keys)
        for name in asked:
            del self._waiting[name]
        return list(zip(asked, replies, strict=True))

    def abort(self, requests: Sequence[str]) -> None:
        """Forget them."""
        for name in requests:
            self._waiting.pop(name, None)


def streaming(engine: ChatEngine | StreamingEngine, *, capacity: int) -> StreamingEngine:
    """The engine itself if it streams, or it in steps of `capacity` conversations."""
    return ChatInSteps(engine, capacity=capacity) if not hasattr(engine, "step") else engine  # type: ignore[arg-type, return-value]


def texts_of(conversation: Conversation) -> Iterator[str]:
    """What a conversation says."""
    for message in conversation:
        content = message["content"]
        yield from [content] if isinstance(content, str) else [part["text"] for part in content if part["type"] == "text"]
