"""What vLLM makes of a conversation before its engine sees it: chat template, tokens, and the picture's pixels as the model takes them.

In the engine's own process, or in others (render_processes.py), which have no engine. Knows conversations; not how answers are drawn.
"""

from __future__ import annotations

from typing import Any

from reid_ray.caption.engines.protocol import Conversation, texts_of
from reid_ray.errors import reason_of
from reid_ray.model.plain_text import plain_text
from reid_ray.redaction import without_texts


class NotRenderedError(Exception):
    """vLLM refuses a conversation.

    reason: why, in words that quote none of its texts.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Rendering:
    """Renders conversations, one at a time: a fast tokenizer is not to be used by two threads at once.

    Args:
        front: vLLM's LLM, or what `front_of` makes.
        chat_template: used instead of the tokenizer's own.
        rejections: what vLLM raises where it does not take a conversation.
    """

    def __init__(self, front: Any, chat_template: str | None, rejections: tuple[type[Exception], ...]) -> None:
        self._front, self._chat_template, self._rejections = front, chat_template, rejections

    def render(self, conversation: Conversation) -> Any:
        """VLLM's EngineInput.

        Raises:
            NotRenderedError: vLLM does not take the conversation.
        """
        try:
            return self._front._preprocess_chat_one(self._plain(conversation), chat_template=self._chat_template)
        except self._rejections as error:
            raise NotRenderedError(without_texts(reason_of(error), texts_of(conversation))) from None

    def _plain(self, conversation: Conversation) -> Conversation:
        """The conversation, none of whose texts holds a mark of the model's chat."""
        tokenizer = self._front.renderer.get_tokenizer()

        def plain(content: Any) -> Any:
            if isinstance(content, str):
                return plain_text(tokenizer, content)
            return [{**part, "text": plain_text(tokenizer, part["text"])} if part["type"] == "text" else part for part in content]

        return [{**message, "content": plain(message["content"])} for message in conversation]


def rejections() -> tuple[type[Exception], ...]:
    """What vLLM raises where it does not take a request."""
    from vllm.exceptions import VLLMClientError

    return ValueError, VLLMClientError


def front_of(config: Any) -> Any:
    """The part of vLLM's LLM that renders, without an engine.

    Args:
        config: VllmConfig of the engine that will take what is rendered.
    """
    from vllm.entrypoints.common.offline import OfflineInferenceMixin
    from vllm.renderers import renderer_from_config

    front = OfflineInferenceMixin()
    front.renderer, front.model_config, front.chat_template = renderer_from_config(config), config.model_config, None
    return front
