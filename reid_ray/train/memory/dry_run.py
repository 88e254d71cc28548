"""Peak activation memory by a dry run: the real module runs forward and backward on torch's meta device, and allocations are tracked.

Meta tensors have shapes and no values, so a model of billions of parameters takes seconds and no memory, and whatever a module, its
adapters or activation checkpointing keep for the backward pass is counted as torch itself keeps it. Knows modules and tensors; not
optimizers, sharding or devices: those are arithmetic, in reid_ray.train.memory.estimate.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only

_META = torch.device("meta")


@dataclass(frozen=True)
class StepMemory:
    """Bytes alive at the fullest moment of a forward and backward pass, beside the weights.

    activations: what is kept for the backward pass, and what the operation at work needs.
    logits: tensors over the vocabulary.
    gradients: of the weights, as far as they were kept.
    """

    activations: int
    logits: int
    gradients: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.activations + self.logits + self.gradients


def trace_step(
    module: nn.Module,
    step: Callable[[], torch.Tensor],
    *,
    vocabulary: int | None = None,
    keep_gradients: bool = True,
) -> StepMemory:
    """Run `step` once on meta tensors and find the moment at which most bytes are alive.

    Args:
        module: whose weights lie on the meta device; in the mode (training or not) in which `step` is to see it.
        step: makes a batch, runs the module and returns a loss. Float tensors made in it should be on the meta device; whole numbers
            (token ids, image sizes, masks) stay on CPU with their values, because models branch on them.
        vocabulary: tensors whose last dimension has this size are logits.
        keep_gradients: False frees the gradient of a weight as soon as it is there, as ZeRO from stage 2 on does.
    """
    tracker = _PeakTracker(vocabulary)
    handles = []
    for weight in module.parameters():
        tracker.ignore(weight)
        if weight.requires_grad:
            handles.append(weight.register_post_accumulate_grad_hook(tracker.gradient if keep_gradients else _free_gradient))
    for buffer in module.buffers():
        tracker.ignore(buffer)
    try:
        with _fused_attention(), tracker:
            step().backward()
    finally:
        for handle in handles:
            handle.remove()
        module.zero_grad(set_to_none=True)
    return StepMemory(**{name: tracker.at_peak[name] for name in ("activations", "logits", "gradients")})


def parameter_sizes(module: nn.Module) -> tuple[list[int], list[int]]:
    """Elements of each parameter that trains, and of each that does not; a parameter that has two names counts once."""
    weights = list(module.parameters())
    return [w.numel() for w in weights if w.requires_grad], [w.numel() for w in weights if not w.requires_grad]


def _free_gradient(weight: nn.Parameter) -> None:
    weight.grad = None


class _PeakTracker(TorchDispatchMode):
    """Allocation tracker: counts the bytes of live storages and keeps the peak; tensors on CPU and on the meta device may mix."""

    def __init__(self, vocabulary: int | None) -> None:
        super().__init__()
        self._vocabulary = vocabulary
        self._known: dict[int, tuple[str, int]] = {}
        self._live: Counter[str] = Counter()
        self._peak = 0
        self.at_peak: Counter[str] = Counter()

    def ignore(self, tensor: torch.Tensor) -> None:
        """Leave out a tensor that was there before."""
        self._hold(tensor, "weights", 0)

    def gradient(self, weight: nn.Parameter) -> None:
        """What accumulated is a gradient, whatever it counted as while it was computed."""
        assert weight.grad is not None
        key = weight.grad.untyped_storage()._cdata
        if key in self._known and self._known[key][0] != "gradients":
            kind, size = self._known[key]
            self._live[kind] -= size
            self._live["gradients"] += size
            self._known[key] = ("gradients", size)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_iter((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if any(tensor.device == _META for tensor in tensors):
            args, kwargs = tree_map_only(torch.Tensor, _to_meta, _without_masks(func, args, kwargs))
        elif tensors and kwargs.get("device") == _META and not tensors[0].is_floating_point():
            kwargs = {**kwargs, "device": torch.device("cpu")}
        result = func(*args, **kwargs)
        for leaf in tree_iter(result):
            if isinstance(leaf, torch.Tensor) and leaf.device == _META:
                logits = self._vocabulary is not None and leaf.ndim > 0 and leaf.shape[-1] == self._vocabulary
                self._hold(leaf, "logits" if logits else "activations", leaf.untyped_storage().nbytes())
        return result

    def _hold(self, tensor: torch.Tensor, kind: str, size: int) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        self._known[key] = (kind, size)
        weakref.finalize(storage, self._free, key)
        self._live[kind] += size
        total = self._live.total()
        if total > self._peak:
            self._peak, self.at_peak = total, self._live.copy()

    def _free(self, key: int) -> None:
        kind, size = self._known.pop(key)
        self._live[kind] -= size


def _to_meta(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.device == _META else torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=_META)


def _without_masks(func: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Rows chosen by a mask become rows chosen by number: how many there are is known on CPU only."""
    if func not in (torch.ops.aten.index.Tensor, torch.ops.aten.index_put.default, torch.ops.aten.index_put_.default):
        return args, kwargs
    chosen: list[torch.Tensor | None] = []
    for index in args[1]:
        if index is not None and index.dtype == torch.bool and index.device != _META:
            chosen += list(index.nonzero(as_tuple=True))
        else:
            chosen.append(index)
    return (args[0], chosen, *args[2:]), kwargs


@contextmanager
def _fused_attention() -> Iterator[None]:
    """On the meta device torch takes attention apart into matrices; devices that train have kernels that never hold them.

    A TorchFunctionMode would need no patching, but torch suspends it during backward, where checkpointed layers run again.
    """
    exact = functional.scaled_dot_product_attention

    def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if query.device != _META:
            return exact(query, key, value, *args, **kwargs)
        return _Attention.apply(query, key, value)  # type: ignore[no-untyped-call]

    functional.scaled_dot_product_attention = attention  # type: ignore[assignment]
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = exact


class _Attention(torch.autograd.Function):
    """Fused attention as to memory: keeps queries, keys, values, the result and one float32 log-sum-exp per query and head."""

    @staticmethod
    def forward(context: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        result = query.new_empty((*query.shape[:-1], value.shape[-1]))
        logsumexp = query.new_empty(query.shape[:-1], dtype=torch.float32)
        context.save_for_backward(query, key, value, result, logsumexp)
        return result

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, ...]:
        query, key, value, _, _ = context.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
