"""DeepSpeed ZeRO behind four verbs: forward, step, save or load, gather. The only file that knows DeepSpeed.

Knows a module, an optimizer and a loss tensor; not what they mean.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from reid_ray.config.training import EngineConfig

_TAG = "state"


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
        self, module: nn.Module, optimizer: torch.optim.Optimizer, *, config: EngineConfig, clip_norm: float, batch_size: int
    ) -> None:
        # Both are read when DeepSpeed is imported: without a GPU it would warn on every process.
        os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
        import deepspeed

        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        if not torch.cuda.is_available():
            # An op for inference that DeepSpeed compiles on first use: a minute, a compiler, and a lock file that can hang the start.
            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        self._deepspeed, self.stage = deepspeed, config.zero_stage
        self._engine, self._optimizer, _, _ = deepspeed.initialize(
            model=module, optimizer=optimizer, config=deepspeed_config(config, clip_norm=clip_norm, batch_size=batch_size)
        )
        self.module: nn.Module = self._engine.module
        self.device = torch.device(self._engine.device)
        self.rank = dist.get_rank()

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The module's features of a batch; tensors are moved to the engine's device."""
        return self._engine(**{name: value.to(self.device, non_blocking=True) for name, value in batch.items()})

    def step(self, loss: torch.Tensor, *, lr: float) -> float:
        """Backward pass, gradients averaged over workers, clipped, one optimizer step. Returns the gradient's norm before clipping."""
        for group in self._optimizer.param_groups:
            group["lr"] = lr * group["factor"]
        self._engine.backward(loss)
        self._engine.step()
        norm = self._engine.get_global_grad_norm()
        return float(norm) if norm is not None else 0.0

    def train(self, mode: bool) -> None:
        """Switch the module between training and evaluation."""
        self._engine.train(mode)

    def save(self, folder: Path) -> None:
        """Write this worker's part of the training state; every worker must call it, each with a folder of its own."""
        self._engine.save_checkpoint(str(folder), tag=_TAG)

    def load(self, folder: Path) -> None:
        """Restore the state that the same number of workers wrote; `folder` holds the parts of all."""
        loaded, _ = self._engine.load_checkpoint(str(folder), tag=_TAG)
        if loaded is None:
            raise RuntimeError(f"{folder}: DeepSpeed found no state to restore")

    def full_state(self, *, frozen: bool = True) -> dict[str, torch.Tensor]:
        """Weights in float32 on CPU, whatever the stage and precision; with those that do not train if `frozen`.

        Every worker must call it; rank 0 is given the weights, all others nothing. One weight at a time is whole on a device.
        """
        from deepspeed.utils import safe_get_full_fp32_param

        weights = dict(self.module.named_parameters())
        state = {name: value.detach().cpu().clone() for name, value in self.module.state_dict().items() if name not in weights and frozen}
        sharded = self.stage == 3
        for name, weight in weights.items():
            if not weight.requires_grad and not frozen:
                continue
            master = safe_get_full_fp32_param(weight) if self.stage and weight.requires_grad else None
            if master is not None:
                value = master.detach().reshape(weight.ds_shape if sharded else weight.shape)
                if self.rank == 0:
                    state[name] = value.float().cpu().clone()
                continue
            with self._deepspeed.zero.GatheredParameters([weight], enabled=sharded):
                if self.rank == 0:
                    state[name] = weight.detach().float().cpu().clone()
        return state if self.rank == 0 else {}

    def barrier(self) -> None:
        """Wait for all workers."""
        dist.barrier()


def deepspeed_config(config: EngineConfig, *, clip_norm: float, batch_size: int) -> dict[str, Any]:
    """DeepSpeed's own configuration. Every default that bites is written out."""
    zero: dict[str, Any] = {"stage": config.zero_stage}
    if config.zero_stage == 3:
        zero["stage3_param_persistence_threshold"] = config.persistence_threshold
    return {
        "train_micro_batch_size_per_gpu": batch_size,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": clip_norm,  # DeepSpeed's default is 1.0, not off
        "zero_allow_untested_optimizer": True,
        "zero_optimization": zero,
        "bf16": {"enabled": config.precision == "bf16"},
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }


def buffers(config: EngineConfig) -> tuple[int, int]:
    """Elements of the buffer that gradients are reduced through, and of the weights that ZeRO-3 may have gathered at a time."""
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    zero = DeepSpeedZeroConfig(**deepspeed_config(config, clip_norm=0.0, batch_size=1)["zero_optimization"])
    return int(zero.reduce_bucket_size), int(max(zero.max_live_parameters, zero.max_reuse_distance))
