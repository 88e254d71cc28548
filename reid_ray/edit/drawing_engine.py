"""An editor as a streaming engine: what waits is drawn together, batch by batch, so that an actor's isolation serves editors, too.

Knows the engines' protocol and edit requests; not what an edit is for. A request travels as a conversation with one part of type `edit`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reid_ray.caption.engines.protocol import Conversation, Reply
from reid_ray.caption.streaming.engine_loop import Request
from reid_ray.model.editor.edit_request import EditRequest, PictureEditor


@dataclass(frozen=True)
class Drawn(Reply):
    """A picture, uint8 [H, W, 3]."""

    picture: np.ndarray | None = None


def request_for(edit: EditRequest, key: str) -> Request:
    """An edit as a request to an engine; its prompt goes along as text, so that no error message quotes it."""
    return Request([{"role": "user", "content": [{"type": "edit", "edit": edit}, {"type": "text", "text": edit.prompt}]}], key)


class DrawingEngine:
    """A PictureEditor in steps of `capacity` edits; implements StreamingEngine.

    Args:
        editor: draws.
        capacity: edits of a batch.
    """

    def __init__(self, editor: PictureEditor, *, capacity: int) -> None:
        self._editor, self.capacity = editor, capacity
        self._waiting: dict[str, EditRequest] = {}

    def prepare(self, conversation: Conversation, key: str) -> EditRequest:
        """The edit in a conversation of request_for."""
        edit: EditRequest = conversation[0]["content"][0]["edit"]
        return edit

    def add(self, request: str, prepared: EditRequest) -> None:
        """Queue it."""
        self._waiting[request] = prepared

    def step(self) -> list[tuple[str, Reply]]:
        """Draw the first of those that wait, `capacity` at most."""
        names = list(self._waiting)[: self.capacity]
        pictures = self._editor.edit([self._waiting.pop(name) for name in names])
        return [(name, Drawn(None, picture=picture)) for name, picture in zip(names, pictures, strict=True)]

    def abort(self, requests: Sequence[str]) -> None:
        """Forget them."""
        for name in requests:
            self._waiting.pop(name, None)
