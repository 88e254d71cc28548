"""Render processes: processes beside an engine's that render its conversations, so that the engine's interpreter has its steps to launch.

A picture's tokens and pixels are some thousand small operations in Python; threads that make them keep the interpreter from the one that
drives the engine. Each process has vLLM's renderer, no engine and no GPU, and is asked one conversation at a time. It ends when the
process that started it closes its pipe, or is gone, however it went.
"""

from __future__ import annotations

import io
import multiprocessing
import pickle
import queue
import weakref
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from reid_ray.caption.engines.protocol import Conversation
from reid_ray.caption.engines.rendering import NotRenderedError, Rendering, front_of, rejections


class RenderProcesses:
    """Processes that render; `render` may be called from any thread, as many at once as there are processes.

    Args:
        count: of the processes, which begin to load vLLM now.
    """

    def __init__(self, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._all: list[Connection] = []
        self._idle: queue.SimpleQueue[Connection] = queue.SimpleQueue()
        for number in range(count):
            ours, theirs = context.Pipe()
            context.Process(target=_serve, args=(theirs,), name=f"render-{number}", daemon=True).start()
            theirs.close()
            self._all.append(ours)
        self._end = weakref.finalize(self, _close, self._all)

    def begin(self, config: Any, chat_template: str | None) -> None:
        """Have them render for an engine.

        Args:
            config: the engine's VllmConfig.
            chat_template: used instead of the tokenizer's own.
        """
        for connection in self._all:
            send(connection, (config, chat_template))
        for connection in self._all:
            receive(connection)
            self._idle.put(connection)

    def render(self, conversation: Conversation) -> Any:
        """VLLM's EngineInput.

        Raises:
            NotRenderedError: vLLM does not take the conversation.
            EOFError: the process died over it.
        """
        connection = self._idle.get()
        send(connection, conversation)
        rendered, refused = receive(connection)  # a process that is lost is not asked again
        self._idle.put(connection)
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
    """In a process of its own: render until the pipe is closed."""
    import torch

    torch.set_num_threads(1)  # tiny operations; threads of other processes need the cores
    try:
        config, chat_template = receive(connection)
        rendering = Rendering(front_of(config), chat_template, rejections())
        send(connection, None)
        while True:
            conversation = receive(connection)
            try:
                send(connection, (rendering.render(conversation), None))
            except NotRenderedError as error:
                send(connection, (None, error.reason))
    except (EOFError, OSError):  # nobody asks any more
        return


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
