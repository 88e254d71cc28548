"""The engines of the kill harness: vLLM or scripted, with a line in a log for every question; one of each driver's may be broken.

Knows engines and the actors that hold them; not jobs or kills.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.caption_engines.scripted_gpu import GpuLike, ScriptedGpu
from reid_ray.caption.config import CaptionerConfig
from reid_ray.caption.engines.protocol import Conversation, Reply, StreamingEngine
from reid_ray.caption.engines.vllm_engine import Engine
from reid_ray.model.model_files import resolve_model

GPU = GpuLike(step_s=0.01, max_num_seqs=32)


@dataclass(frozen=True)
class Setting:
    """What the jobs of a state folder run with."""

    engine: str  # vllm or scripted
    actors: int
    broken: bool  # one actor's engine fails at every request
    endpoint: str | None = None  # of the S3 server on which everything lies

    @classmethod
    def of(cls, state: Path) -> Setting:
        """The one that is written there."""
        return cls(**json.loads((state / "setting.json").read_text()))


class LoggedEngine:
    """An engine that appends the number of its questions to a file before it answers. Unpickled where it is to run.

    Args:
        log: the file.
        setting: which engine.
        broken: files of this name and a suffix say which actor has the engine that fails; None: none has.
    """

    def __init__(self, log: str, setting: Setting, broken: str | None) -> None:
        self._log = log
        self._broken = broken is not None and first_of_its_driver(Path(broken))
        self._engine: StreamingEngine = ScriptedGpu(None, GPU)
        if setting.engine == "vllm":
            config = CaptionerConfig()
            self._engine = Engine(
                resolve_model(config.model), revision=None, config=config.engine, sampling=config.sampling, images=1, pool=config.pool
            )

    @property
    def capacity(self) -> int:
        """The engine's."""
        return self._engine.capacity

    def prepare(self, conversation: Conversation, key: str) -> Any:
        """The engine's."""
        return self._engine.prepare(conversation, key)

    def add(self, request: str, prepared: Any) -> Reply | None:
        """Hand the question on."""
        if not self._broken:
            with open(self._log, "a", encoding="ascii") as log:
                log.write("1\n")
        return self._engine.add(request, prepared)

    def step(self) -> list[tuple[str, Reply]]:
        """The engine's step, or its failure."""
        if self._broken:
            time.sleep(GPU.step_s)
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return self._engine.step()

    def abort(self, requests: Sequence[str]) -> None:
        """The engine's."""
        self._engine.abort(requests)


def first_of_its_driver(prefix: Path) -> bool:
    """Whether this actor is the one of its driver that asked first, now or before it was restarted."""
    import ray

    context = ray.get_runtime_context()
    actor, place = context.get_actor_id(), prefix.with_name(f"{prefix.name}.{context.get_job_id()}")
    with contextlib.suppress(FileExistsError), place.open("x") as file:
        file.write(str(actor))
    return place.read_text() == actor


class EngineToBe:
    """Pickles as a LoggedEngine that has yet to start."""

    def __init__(self, log: Path, setting: Setting, broken: Path | None) -> None:
        self._arguments = (str(log), setting, None if broken is None else str(broken))

    def __reduce__(self) -> tuple[Any, ...]:
        return LoggedEngine, self._arguments

    def chat(self, conversations: Sequence[Conversation], keys: Sequence[str]) -> list[Reply]:
        """Never asked: a copy is, elsewhere."""
        raise NotImplementedError
