"""GradCache (Gao et al., RepL4NLP 2021): contrastive batches larger than memory, by encoding chunk after chunk and recomputing activations.

The paper encodes a batch in chunks without a graph, differentiates the loss with respect to the features,
and encodes each chunk again to carry that gradient into the weights. Here torch.utils.checkpoint does the bookkeeping: one
checkpoint per chunk, one backward pass. Against three explicit phases this keeps the training loop as it is, and each weight's gradient is
complete once and then reduced over workers once, so DeepSpeed's ZeRO 1 to 3 and DDP see nothing unusual. Random numbers
(dropout) and autocast are replayed by the checkpoint. The price is a second forward pass.

Call it inside the module that the engine wraps, not around the engine: an engine's forward pass may not run within its backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch.utils.checkpoint import checkpoint

from reid_ray.model.recompute import DETERMINISM_CHECK

Tensors = Mapping[str, torch.Tensor]


def in_chunks(encode: Callable[[Tensors], dict[str, torch.Tensor]], batch: Tensors, *, size: int | None) -> dict[str, torch.Tensor]:
    """encode(batch), computed `size` samples at a time, keeping only the results until the backward pass comes for a chunk.

    Args:
        encode: turns tensors of N rows into tensors of N rows; each row must depend on its own row alone (no batch norm). What it
            computes after its last differentiable operation runs once only, not again in the backward pass.
        batch: tensors of the same number of rows.
        size: samples per chunk; None encodes at once and keeps all activations.

    Returns:
        The tensors of encode, all rows.
    """
    rows = {len(value) for value in batch.values()}
    if len(rows) != 1:
        raise ValueError(f"tensors of one batch have {sorted(rows)} rows")
    (count,) = rows
    if size is None or not torch.is_grad_enabled():
        return encode(batch)
    parts = []
    for start in range(0, count, size):
        chunk = {name: value[start : start + size] for name, value in batch.items()}
        parts.append(checkpoint(encode, chunk, use_reentrant=False, determinism_check=DETERMINISM_CHECK))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
