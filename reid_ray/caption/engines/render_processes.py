"""Render processes: processes beside an engine's that render its conversations, so that the engine's interpreter has its steps to launch.

A picture's tokens and pixels are some thousand small operations in Python; threads that make them keep the interpreter from the one that
drives the engine. Each process has vLLM's renderer, no engine and no GPU, and is asked one conversation at a time. It ends when the
process that started it closes its pipe, or is gone, however it went.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import pickle
import queue
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from reid_ray.caption.engines.protocol import Conversation, texts_of
from reid_ray.caption.engines.rendering import NotRenderedError, Rendering, front_of, rejections
from reid_ray.errors import reason_of
from reid_ray.redaction import without_texts

_GONE_S = 5.0  # for a process whose pipe is closed to have ended


class RenderProcessError(Exception):
    """A process that renders could not begin, failed or is gone.

    reason: which, in words that quote nothing of what it was asked.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class _Failed:
    reason: str  # quotes nothing of what was asked


class _RenderProcess:
    """One of them, asked by one thread at a time."""

    def __init__(self, number: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), name=f"render-{number}", daemon=True)
        self._process.start()
        theirs.close()

    def send(self, value: Any) -> None:
        try:
            send(self.connection, value)
        except OSError:
            raise self._gone() from None

    def receive(self) -> Any:
        try:
            received = receive(self.connection)
        except (EOFError, OSError):
            raise self._gone() from None
        if isinstance(received, _Failed):
            raise RenderProcessError(received.reason)
        return received

    def _gone(self) -> RenderProcessError:
        self._process.join(_GONE_S)
        return RenderProcessError(f"it ended with exit code {self._process.exitcode}")


class RenderProcesses:
    """Processes that render; `render` may be called from any thread, as many at once as there are processes.

    Args:
        count: of the processes, which begin to load vLLM now.
    """

    def __init__(self, count: int) -> None:
        self._all = [_RenderProcess(number) for number in range(count)]
        self._idle: queue.SimpleQueue[_RenderProcess] = queue.SimpleQueue()
        self._end = weakref.finalize(self, _close, [process.connection for process in self._all])

    def begin(self, config: Any, chat_template: str | None) -> None:
        """Have them render for an engine.

        Args:
            config: the engine's VllmConfig.
            chat_template: used instead of the tokenizer's own.

        Raises:
            RenderProcessError: one of them cannot.
        """
        for process in self._all:
            process.send((config, chat_template))
        for process in self._all:
            process.receive()
            self._idle.put(process)

    def render(self, conversation: Conversation) -> Any:
        """VLLM's EngineInput.

        Raises:
            NotRenderedError: vLLM does not take the conversation.
            RenderProcessError: the process failed or died over it, and is not asked again.
        """
        process = self._idle.get()
        process.send(conversation)
        rendered, refused = process.receive()
        self._idle.put(process)
        if refused is not None:
            raise NotRenderedError(refused)
        return rendered

    def close(self) -> None:
        """End the processes."""
        self._end()


def _close(connections: Sequence[Connection]) -> None:
    for connection in connections:
        connection.close()


def _serve(connection: Connection) -> None:
    """In a process of its own: render until the pipe is closed, or until vLLM raises what is no refusal."""
    import torch

    torch.set_num_threads(1)  # tiny operations; threads of other processes need the cores
    asked: tuple[str, ...] = ()
    try:
        config, chat_template = receive(connection)
        rendering = Rendering(front_of(config), chat_template, rejections())
        send(connection, None)
        while True:
            conversation = receive(connection)
            asked = tuple(texts_of(conversation))
            send(connection, _answer(rendering, conversation))
    except (EOFError, BrokenPipeError, ConnectionResetError):  # nobody asks any more
        return
    except Exception as error:  # noqa: BLE001 - told by whoever asks: a traceback here would quote texts
        with contextlib.suppress(OSError):
            send(connection, _Failed(without_texts(reason_of(error), asked)))


def _answer(rendering: Rendering, conversation: Conversation) -> tuple[Any, str | None]:
    try:
        return rendering.render(conversation), None
    except NotRenderedError as error:
        return None, error.reason


# --- tensors travel as their memory is, beside the pickle that says what they are


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        import torch

        if isinstance(value, torch.Tensor):
            flat = value.detach().cpu().contiguous().flatten()
            return _tensor, (pickle.PickleBuffer(flat.view(torch.uint8).numpy()), str(value.dtype).removeprefix("torch."), value.shape)
        return NotImplemented


def _tensor(memory: Any, dtype: str, shape: Sequence[int]) -> Any:
    import torch

    if not len(memory):
        return torch.empty(shape, dtype=getattr(torch, dtype))
    return torch.frombuffer(memory, dtype=getattr(torch, dtype)).reshape(shape)


def send(connection: Connection, value: Any) -> None:
    """Send a value whose tensors are on the CPU."""
    buffers: list[pickle.PickleBuffer] = []
    stream = io.BytesIO()
    _Pickler(stream, protocol=5, buffer_callback=buffers.append).dump(value)
    views = [buffer.raw() for buffer in buffers]
    connection.send_bytes(pickle.dumps((stream.getvalue(), [view.nbytes for view in views])))
    for view in views:
        if view.nbytes:
            connection.send_bytes(view)


def receive(connection: Connection) -> Any:
    """What `send` sent.

    Raises:
        EOFError: the other side is gone.
    """
    pickled, sizes = pickle.loads(connection.recv_bytes())
    buffers = [bytearray(size) for size in sizes]
    for buffer in buffers:
        if buffer:
            connection.recv_bytes_into(buffer)
    return pickle.loads(pickled, buffers=buffers)
