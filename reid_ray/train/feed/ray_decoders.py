"""Decoding on a Ray Data actor pool: picture ids go out, decoded and augmented pixels come back in order.

The actors may run on any node, also on those without a GPU; each opens the pictures where its node has them. Ids flow to them in small
blocks, pixels come back through the object store; nothing is shuffled or kept. Knows Ray Data and a Decoder; not texts, tensors or plans.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa

from reid_ray.config.common import PoolConfig
from reid_ray.runtime import Need, object_store_bytes, pool_need
from reid_ray.train.config import WorkersConfig
from reid_ray.train.feed.config import BatchesConfig
from reid_ray.train.feed.decoding import Decoder, PictureRequest

# Blocks of ids in one Ray dataset: each costs some KB in the worker, and actors live as long as their dataset.
_SEGMENT = 2048


def decoded_in_order(
    requests: Iterator[PictureRequest], open_decoder: Callable[[], Decoder], pool: PoolConfig, *, world: int
) -> Iterator[list[np.ndarray]]:
    """The pictures of each step, read-only uint8 [H, W, 3].

    Args:
        requests: which pictures; drawn up to 2,048 blocks before they are decoded.
        open_decoder: called by each actor, on its node.
        pool: this worker's own actors; batch_size ids make a block, which one call decodes.
        world: how many workers do the same and share the object store.
    """
    for steps in _segments(requests, size=pool.batch_size, blocks=_SEGMENT):
        decoded = _decode([block for step in steps for block in step], open_decoder, pool, world)
        for step in steps:
            yield [picture for block in step for picture in _pictures(next(decoded), block)]
        decoded.close()


def decoder_needs(batches: BatchesConfig, workers: WorkersConfig) -> list[Need]:
    """What the decoding actors of all workers ask of the cluster."""
    if batches.decoders is None:
        return []
    need = pool_need("batches.decoders", batches.decoders)
    return [replace(need, count=need.count * workers.count)]


class _DecodeActor:
    def __init__(self, open_decoder: Callable[[], Decoder]) -> None:
        self._decoder = open_decoder()

    def __call__(self, ids: pa.Table) -> pa.Table:
        pictures = self._decoder(PictureRequest(ids["step"][0].as_py(), ids["row"].to_numpy(), ids["place"].to_numpy()))
        pixels = pa.array([picture.tobytes() for picture in pictures], pa.large_binary())
        return ids.append_column("height", [[len(picture) for picture in pictures]]).append_column("pixels", pixels)


def _decode(blocks: list[pa.Table], open_decoder: Callable[[], Decoder], pool: PoolConfig, world: int) -> Generator[pa.Table, None, None]:
    import ray.data
    from ray.data import ExecutionResources

    from reid_ray.data.execution import actor_pool, ray_data_execution

    # The guard against standing still is off: a long validation, in which nothing is taken, would look like it. The feed has its own.
    with ray_data_execution(no_progress_timeout_s=-1):
        options = {**actor_pool(pool), "batch_size": None}  # a block is a batch
        # from_blocks, not from_arrow, which runs a task per block to ask for its schema.
        dataset = ray.data.from_blocks(blocks).map_batches(_DecodeActor, fn_constructor_kwargs={"open_decoder": open_decoder}, **options)
        # Unless told otherwise, every worker's dataset takes the whole object store for its own.
        if (store := object_store_bytes()) is not None:
            limits = ExecutionResources.for_limits(object_store_memory=0.5 * store / world)
            dataset.context.execution_options.resource_limits = limits
        yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)


def _segments(requests: Iterator[PictureRequest], *, size: int, blocks: int) -> Iterator[list[list[pa.Table]]]:
    """Steps, each a list of blocks of at most `size` ids, in segments of whole steps and about `blocks` blocks."""
    segment: list[list[pa.Table]] = []
    for each in requests:
        ids = pa.table({"row": each.row_A, "step": np.full(len(each.row_A), each.step), "place": each.place_A})
        segment.append([ids.slice(start, size) for start in range(0, len(ids), size)])
        if sum(map(len, segment)) >= blocks:
            yield segment
            segment = []
    if segment:
        yield segment


def _pictures(block: pa.Table, ids: pa.Table) -> list[np.ndarray]:
    """The pictures of a block, which must be those of `ids`; their pixels stay in Ray's memory."""
    if not block.select(ids.column_names).equals(ids):
        raise RuntimeError(
            f"Ray Data gave step {block['step'][0]} place {block['place'][0]} for step {ids['step'][0]} place {ids['place'][0]}"
        )
    return [
        np.frombuffer(pixels.as_buffer(), np.uint8).reshape(height.as_py(), -1, 3)
        for pixels, height in zip(block["pixels"], block["height"], strict=True)
    ]
