"""DeepSpeed ZeRO engine: forward, optimizer step, gathering of sharded weights and moments, restore. The only file that knows DeepSpeed.

Knows a module, an Adam optimizer and a loss tensor; not what they mean. Training state leaves and enters it weight by weight, whole, so
that what one number of workers and one stage wrote another can read. DeepSpeed's own checkpoints cannot: they are bound to the number of
workers, and reading only the weights of one under ZeRO-3 with another number silently gives wrong ones.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from reid_ray.train.config import DeepSpeedConfig

# The state that Adam keeps of a weight.
_MOMENTS = ("exp_avg", "exp_avg_sq")


class ZeroEngine:
    """A module whose training state is sharded over the process group that Ray Train has set up.

    Args:
        module: on CPU; the engine moves it.
        optimizer: over the module's parameters; its state is sharded from stage 1 on.
        config: stage and precision.
        clip_norm: global gradient norm; 0 is off.
        batch_size: samples per worker and step (DeepSpeed wants to know).
    """

    def __init__(
        self, module: nn.Module, optimizer: torch.optim.Optimizer, *, config: DeepSpeedConfig, clip_norm: float, batch_size: int
    ) -> None:
        # Both are read when DeepSpeed is imported: without a GPU it would warn on every process.
        os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
        import deepspeed

        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        if not torch.cuda.is_available():
            # An op for inference that DeepSpeed compiles on first use: a minute, a compiler, and a lock file that can hang the start.
            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        _import_muon_uncompiled()
        self._deepspeed, self.stage = deepspeed, config.zero_stage
        self._engine, self._optimizer, _, _ = deepspeed.initialize(
            model=module, optimizer=optimizer, config=deepspeed_config(config, clip_norm=clip_norm, batch_size=batch_size)
        )
        self.module: nn.Module = self._engine.module
        self.device = torch.device(self._engine.device)
        self.rank = dist.get_rank()
        self._start_moments()

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The module's features of a batch; tensors are moved to the engine's device."""
        return self._engine(**{name: value.to(self.device, non_blocking=True) for name, value in batch.items()})

    def step(self, loss: torch.Tensor, *, lr: float) -> float:
        """Backward pass, gradients averaged over workers, clipped, one optimizer step. Returns the gradient's norm before clipping.

        Where the norm is NaN or infinite DeepSpeed may skip the step silently, so the caller must check it.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = lr * group["factor"]
        self._engine.backward(loss)
        # Stage 0 has no norm of its own; its gradients are the same on every worker by now, and are gone after the step.
        whole = [weight.grad for _, weight in self._trained() if weight.grad is not None] if self.stage == 0 else []
        norm = nn.utils.get_total_norm(whole) if self.stage == 0 else None
        self._engine.step()
        if norm is None:
            norm = self._engine.get_global_grad_norm()
        return float(norm)

    def train(self, mode: bool) -> None:
        """Switch the module between training and evaluation."""
        self._engine.train(mode)

    def training_state(self) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
        """What a run needs to go on, a trained weight at a time: its name, and "weight", "exp_avg" and "exp_avg_sq".

        Each tensor is whole, float32 and on CPU. Every worker must exhaust the iterator; those other than rank 0 are given names alone.
        """
        for name, weight in self._trained():
            parts = {"weight": self._gathered(weight), **{key: self._gathered(weight, key) for key in _MOMENTS}}
            yield name, {key: value.detach().float().cpu().clone() for key, value in parts.items()} if self.rank == 0 else {}

    def restore(self, read: Callable[[str], dict[str, torch.Tensor]], *, steps: int) -> None:
        """Take over a training state, whatever number of workers and ZeRO stage it comes from; every worker must call it.

        Args:
            read: name of a trained weight -> what training_state gave for it.
            steps: optimizer steps done.
        """
        inner = self._inner_optimizer()
        for flat in self._flat():
            inner.state[flat]["step"].fill_(steps)
        for name, weight in self._trained():
            self._set(weight, read(name))

    def weights_finite(self) -> bool:
        """Whether the trained weights that lie with this worker, and the buffers that are saved, are all finite."""
        saved = self.module.state_dict().keys()
        buffers = [value for name, value in self.module.named_buffers() if name in saved and value.is_floating_point()]
        return all(bool(torch.isfinite(value).all()) for value in [*self._flat(), *buffers])

    def buffers(self) -> dict[str, torch.Tensor]:
        """The buffers that the module saves, such as running means; each worker has its own."""
        buffers = dict(self.module.named_buffers())
        return {name: buffers[name].detach().cpu().clone() for name in self.module.state_dict() if name in buffers}

    def load_buffers(self, buffers: dict[str, torch.Tensor]) -> None:
        """Put back what buffers() gave."""
        own = dict(self.module.named_buffers())
        for name, value in buffers.items():
            own[name].copy_(value)

    def _trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, weight) for name, weight in self.module.named_parameters() if weight.requires_grad)

    def _start_moments(self) -> None:
        """Make Adam's state, as its first step would, so that there is something to restore into.

        DeepSpeed links weights with their moments after the step of the first group, when those of the other groups do not exist yet.
        """
        inner = self._inner_optimizer()
        for flat in self._flat():
            moments = {key: torch.zeros_like(flat, dtype=torch.float32) for key in _MOMENTS}
            inner.state[flat] = {"step": torch.zeros((), device=flat.device), **moments}
        if self.stage in (1, 2):
            self._optimizer._lazy_init_hp_params_optimizer_state()

    def _inner_optimizer(self) -> torch.optim.Optimizer:
        return self._optimizer.optimizer if self.stage else self._optimizer

    def _flat(self) -> list[torch.Tensor]:
        """What the inner optimizer steps: weights at stage 0, else this worker's float32 partitions of them."""
        if self.stage == 0:
            return [weight for _, weight in self._trained()]
        return list(self._optimizer.fp32_partitioned_groups_flat if self.stage == 3 else self._optimizer.single_partition_of_fp32_groups)

    def _gathered(self, weight: nn.Parameter, key: str | None = None) -> torch.Tensor:
        """The float32 weight, or a moment of it, whole; all workers take part."""
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        if self.stage == 0:
            return weight if key is None else self._optimizer.state[weight][key]
        value = safe_get_full_fp32_param(weight) if key is None else safe_get_full_optimizer_state(weight, key)
        return value.reshape(weight.ds_shape if self.stage == 3 else weight.shape)

    def _set(self, weight: nn.Parameter, saved: dict[str, torch.Tensor]) -> None:
        """Put a weight, the float32 copy that the optimizer steps and its moments where this worker keeps them."""
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state
        from deepspeed.utils import safe_set_local_fp32_param as set_shard
        from deepspeed.utils import safe_set_local_optimizer_state as set_moment_shard

        with self._deepspeed.zero.GatheredParameters([weight], modifier_rank=0, enabled=self.stage == 3), torch.no_grad():
            weight.copy_(saved["weight"])
        if self.stage == 0:
            for key in _MOMENTS:
                self._optimizer.state[weight][key].copy_(saved[key])
        elif self.stage == 3:  # by shards: the functions for whole tensors fail where the workers do not divide a weight evenly
            set_shard(weight, self._shard(weight, saved["weight"]))
            for key in _MOMENTS:
                set_moment_shard(weight, self._shard(weight, saved[key]), key)
        else:
            safe_set_full_fp32_param(weight, saved["weight"])
            for key in _MOMENTS:
                safe_set_full_optimizer_state(weight, saved[key], key)

    def _shard(self, weight: nn.Parameter, value: torch.Tensor) -> torch.Tensor:
        """The part of this worker of a whole tensor under ZeRO-3: equal parts, the last ones padded."""
        size = weight.ds_tensor.numel()
        padded = nn.functional.pad(value.flatten(), (0, size * dist.get_world_size() - value.numel()))
        return padded[self.rank * size : (self.rank + 1) * size]

    def full_state(self, *, frozen: bool = True) -> dict[str, torch.Tensor]:
        """Weights in float32 on CPU, whatever the stage and precision; with those that do not train if `frozen`.

        Every worker must call it; rank 0 is given the weights, all others nothing. One weight at a time is whole on a device.
        """
        state = self.buffers() if frozen and self.rank == 0 else {}
        for name, weight in self.module.named_parameters():
            if weight.requires_grad:
                value = self._gathered(weight)
                if self.rank == 0:
                    state[name] = value.detach().float().cpu().clone()
            elif frozen:
                with self._deepspeed.zero.GatheredParameters([weight], enabled=self.stage == 3):
                    if self.rank == 0:
                        state[name] = weight.detach().float().cpu().clone()
        return state

    def barrier(self) -> None:
        """Wait for all workers."""
        dist.barrier()


def _import_muon_uncompiled() -> None:
    """Import DeepSpeed's Muon as plain functions.

    Each engine asks whether its optimizer is Muon, which none of ours is, and the import would hand Muon's functions to torch.compile: a
    second of CPU, in every worker, for a compiler that nothing calls.
    """
    from deepspeed.runtime import compiler

    compiled = compiler.compile
    compiler.compile = lambda: lambda function: function
    try:
        importlib.import_module("deepspeed.runtime.zero.muon.muon_optimizer")
    finally:
        compiler.compile = compiled


def deepspeed_config(config: DeepSpeedConfig, *, clip_norm: float, batch_size: int) -> dict[str, Any]:
    """DeepSpeed's own configuration. Every default that would change results or memory is written out."""
    zero: dict[str, Any] = {"stage": config.zero_stage, "reduce_bucket_size": config.reduce_bucket}
    to_cpu = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    if config.zero_stage == 3:
        zero["stage3_param_persistence_threshold"] = config.persistence_threshold
    if config.offload_optimizer:
        zero["offload_optimizer"] = to_cpu
    if config.offload_parameters:
        zero["offload_param"] = to_cpu
    return {
        "train_micro_batch_size_per_gpu": batch_size,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": clip_norm,  # DeepSpeed's default is 1.0, not off
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # torch's fused Adam is as fast on a CPU and needs no compiler
        "zero_optimization": zero,
        "bf16": {"enabled": config.precision == "bf16"},
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }


def buffers(config: DeepSpeedConfig) -> tuple[int, int]:
    """Elements of the buffer that gradients are reduced through, and of the weights that ZeRO-3 may have gathered at a time."""
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    zero = DeepSpeedZeroConfig(**deepspeed_config(config, clip_norm=0.0, batch_size=1)["zero_optimization"])
    return int(zero.reduce_bucket_size), int(max(zero.max_live_parameters, zero.max_reuse_distance))
