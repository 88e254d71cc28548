"""Replicas that encode what is asked of a service, apart from those that search: a GPU each, where a search needs memory alone.

Knows Ray Serve and the encoder's interface; not galleries or who asks.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from ray import serve

from reid_ray.errors import ResourceError
from reid_ray.model.pretrained import load_encoder
from reid_ray.retrieval.encoder_identity import knows_drawn_people_only
from reid_ray.serve.config import EncodersConfig
from reid_ray.serve.on_ray.open_ports import keep_replica_on_loopback
from reid_ray.serve.on_ray.replica_settings import LOOKED_AFTER_S, SWITCH_S, number_of_replicas
from reid_ray.serve.operations.micro_batches import MicroBatcher

_TRIES = 3
"""One replica that dies takes a batch with it, which another encodes; so may the next, before Ray Serve knows that it is gone."""
_MOST_BYTES = 64 << 20
"""Of a message to an encoder, or back, where Ray Serve takes 4 MiB; a question's picture has 4 megapixels."""
MESSAGES: dict[str, Any] = {"env_vars": {"RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(_MOST_BYTES)}}
"""The runtime environment of whoever takes such messages: Ray Serve reads their size when it is imported."""


class _About(NamedTuple):
    """What an encoder says of itself, as EncoderElsewhere has it."""

    dim: int
    context: int
    reads_texts: bool
    fingerprint: str
    drawn_people_only: bool


class EncoderReplica:
    """One encoder; small batches that arrive together, from whichever searcher, are encoded together.

    Args:
        path: folder or hub name of the encoder.
        config: of all.
        batch_size: texts or pictures that the model takes at once.
    """

    def __init__(self, path: str, config: EncodersConfig, batch_size: int) -> None:
        import torch

        sys.setswitchinterval(SWITCH_S)
        keep_replica_on_loopback()
        torch.set_num_threads(max(1, int(config.num_cpus)))
        self._encoder = load_encoder(path, device="cuda:0" if config.num_gpus else "cpu", batch_size=batch_size)
        self._drawn_people_only = knows_drawn_people_only(path)
        self._turn = threading.Lock()  # texts and pictures share the device
        self._texts = MicroBatcher(self._encoded_texts, max_batch_size=batch_size, size=len)
        self._pictures = MicroBatcher(self._encoded_pictures, max_batch_size=batch_size, size=len)
        self._encoded_pictures([[Image.new("RGB", (16, 32))]])  # the first pass of a model takes far longer than others

    async def about(self) -> _About:
        """What the encoder is."""
        made = self._encoder
        return _About(made.dim, made.context, made.reads_texts, made.fingerprint, self._drawn_people_only)

    async def encode_and_measure(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """As Encoder."""
        return await self._texts.submit(texts)

    async def encode_images(self, pictures: list[Image.Image]) -> np.ndarray:
        """As Encoder."""
        return await self._pictures.submit(pictures)

    def _encoded_texts(self, batches: list[list[str]]) -> list[tuple[np.ndarray, np.ndarray]]:
        with self._turn:
            vector_ND, tokens_N = self._encoder.encode_and_measure([text for batch in batches for text in batch])
        ends = np.cumsum([len(batch) for batch in batches])[:-1]
        return list(zip(np.split(vector_ND, ends), np.split(tokens_N, ends), strict=True))

    def _encoded_pictures(self, batches: list[list[Image.Image]]) -> list[np.ndarray]:
        with self._turn:
            vector_ND = self._encoder.encode_images([picture for batch in batches for picture in batch])
        return list(np.split(vector_ND, np.cumsum([len(batch) for batch in batches])[:-1]))


class RemoteEncoder:
    """The encoders of a service as one; implements EncoderElsewhere. Not to be asked on an event loop, for it waits.

    Args:
        encoders: handle of their deployment.
        timeout_s: that one is given for a batch.
        start_timeout_s: that the first one is given to load its weights.

    Raises:
        ResourceError: none answers.
    """

    def __init__(self, encoders: Any, *, timeout_s: float, start_timeout_s: float) -> None:
        # By gRPC, not as tasks of an actor: when a searcher dies with one in hand, the encoder stands still for two seconds for all.
        self._encoders, self._timeout_s = encoders.options(_by_reference=False), timeout_s
        about = _About(*self._asked("about", timeout_s=start_timeout_s))
        self.dim, self.context, self.reads_texts = about.dim, about.context, about.reads_texts
        self.fingerprint, self.drawn_people_only = about.fingerprint, about.drawn_people_only

    def encode_images(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        """As Encoder; raises ResourceError where no replica answers."""
        return np.concatenate([self._asked("encode_images", part) for part in _parts(pictures)])

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """As Encoder; raises ResourceError where no replica answers."""
        return self.encode_and_measure(texts)[0]

    def encode_and_measure(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """As Encoder; raises ResourceError where no replica answers."""
        found: tuple[np.ndarray, np.ndarray] = self._asked("encode_and_measure", list(texts))
        return found

    def _asked(self, what: str, *words: Any, timeout_s: float | None = None) -> Any:
        from ray.exceptions import RayActorError, RayTaskError
        from ray.serve.exceptions import RayServeException

        for _ in range(_TRIES):
            try:
                return getattr(self._encoders, what).remote(*words).result(timeout_s=timeout_s or self._timeout_s)
            except RayActorError:
                continue
            except TimeoutError:
                raise ResourceError("the encoders do not answer in time") from None
            except RayServeException:
                raise ResourceError("no encoder is there") from None
            except RayTaskError as error:
                raise error.cause from None
        raise ResourceError("the encoders that were asked died")


def _parts(pictures: Sequence[Image.Image]) -> list[list[Image.Image]]:
    """Pictures in order, as many together as one message takes; at least one part."""
    parts: list[list[Image.Image]] = [[]]
    size = 0
    for picture in pictures:
        own = picture.width * picture.height * len(picture.getbands())
        if parts[-1] and size + own > _MOST_BYTES // 2:
            parts.append([])
            size = 0
        parts[-1].append(picture)
        size += own
    return parts


def encoders_application(path: str, config: EncodersConfig, *, batch_size: int) -> Any:
    """The encoders of a service, to be bound to what asks them by a handle."""
    deployment = serve.deployment(
        EncoderReplica,
        name="Encoder",
        max_ongoing_requests=config.max_ongoing_batches,
        health_check_period_s=LOOKED_AFTER_S,
        ray_actor_options={"num_cpus": config.num_cpus, "num_gpus": config.num_gpus, "runtime_env": MESSAGES},
        **number_of_replicas(config.replicas, config.max_replicas, in_hand=config.target_ongoing_batches),
    )
    return deployment.bind(path, config, batch_size)
