"""GPU memory estimate of a training step under ZeRO, offload and checkpointing, and the cheapest setting that fits. Nothing is run.

Weights, gradients and optimizer state follow from their numbers and the ZeRO stage; what forward and backward pass hold beside them is
measured without memory by dry_run.py and given here as numbers. Knows what DeepSpeed 0.19 allocates; not models or torch.
DeepSpeed's own estimators know neither frozen weights nor activations; where everything trains in bf16 both agree (a test).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Literal

Stage = Literal[0, 1, 2, 3]
_MASTER, _MOMENTS = 4, 8  # bytes of an Adam weight: its float32 copy, and two float32 moments


@dataclass(frozen=True)
class ParameterCounts:
    """Number of parameters (elements) of a module.

    trained, frozen: those that train, and those that do not.
    whole: those of either kind in parameters so small that ZeRO-3 keeps them whole on every device.
    """

    trained: int
    frozen: int
    whole: int = 0


@dataclass(frozen=True)
class PeakBytes:
    """Peak bytes of a forward and backward pass, beside the weights; see reid_ray.train.memory.dry_run.StepMemory."""

    activations: int
    logits: int = 0
    gradients: int = 0


@dataclass(frozen=True)
class TrainingSetting:
    """How training is sharded over devices, and what is offloaded or recomputed.

    zero_stage: 0 to 3.
    devices: that share the training state.
    batch: samples per device and step.
    checkpointing: whether layers are computed again in the backward pass.
    offload_optimizer, offload_parameters: whether these lie in the host's memory.
    weight_bytes: of a weight on the device: 2 in bf16, 4 in fp32.
    bucket: elements of the buffer through which gradients are reduced.
    live: with stage 3, most elements of weights that are gathered at a time.
    """

    zero_stage: Stage
    devices: int
    batch: int
    checkpointing: bool = False
    offload_optimizer: bool = False
    offload_parameters: bool = False
    weight_bytes: Literal[2, 4] = 4
    bucket: int = 50_000_000
    live: int = 1_000_000_000

    @property
    def frees_gradients(self) -> bool:
        """Whether a weight's gradient is gone from the device as soon as it is in the buffer."""
        return self.zero_stage >= 2


@dataclass(frozen=True)
class DeviceMemory:
    """Peak bytes on one device, by what they are, and bytes on the host for each device.

    moment: backward, or step (of the optimizer, when activations are gone).
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    communication: int
    host: int
    moment: Literal["backward", "step"]

    @property
    def device(self) -> int:
        """All that lies on the device."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits + self.communication

    def row(self) -> dict[str, float | str]:
        """GiB by name, for a table."""
        parts = {name: round(value / 2**30, 3) for name, value in asdict(self).items() if name != "moment"}
        return {"total": round(self.device / 2**30, 3), **parts, "moment": self.moment}


def predict(weights: ParameterCounts, held: PeakBytes, setting: TrainingSetting) -> DeviceMemory:
    """Memory of one training step.

    Args:
        weights: of everything the engine holds, heads too.
        held: of a step with setting.batch samples and setting.checkpointing; its gradients count only if setting keeps them.
        setting: stage, devices, offload, precision.
    """
    size, own = setting.weight_bytes, -(-weights.trained // setting.devices)
    everything = weights.trained + weights.frozen
    sharded = -(-(everything - weights.whole) // setting.devices) if setting.zero_stage == 3 else 0
    on_device = (sharded + weights.whole) * size if setting.zero_stage == 3 else everything * size
    gathered = min(everything - weights.whole, setting.live) * size if setting.zero_stage == 3 and setting.devices > 1 else 0
    host = 0
    if setting.offload_parameters:
        on_device, host = weights.whole * size, sharded * size
    state = own * (_MASTER + _MOMENTS) if setting.zero_stage else weights.trained * _MOMENTS
    partition = own * size if setting.zero_stage >= 2 else 0
    # What the optimizer reads: float32 gradients of its own part, made of what was reduced.
    read = own * 4 if setting.zero_stage else 0
    if setting.offload_optimizer:
        host += state + own * 4
        state = read = partition = 0
    bucket = setting.bucket * size if setting.zero_stage else 0
    kept = 0 if setting.frees_gradients else weights.trained * size
    backward = DeviceMemory(
        weights=on_device,
        gradients=partition if setting.frees_gradients else held.gradients,
        optimizer=state,
        activations=held.activations,
        logits=held.logits,
        communication=bucket + gathered,
        host=host,
        moment="backward",
    )
    # Stage 0 reduces a flat copy of all gradients at the end of the backward pass.
    step = replace(
        backward,
        gradients=kept + partition + read,
        activations=0,
        logits=0,
        communication=weights.trained * size if setting.zero_stage == 0 and setting.devices > 1 else 0,
        moment="step",
    )
    return max(backward, step, key=lambda memory: memory.device)


def cheapest_that_fits(
    settings: Iterable[TrainingSetting],
    predicted: Callable[[TrainingSetting], DeviceMemory],
    *,
    device_bytes: int,
    host_bytes: int | None = None,
) -> tuple[TrainingSetting, DeviceMemory] | None:
    """The first setting that fits, from the fastest to the slowest; None if none does.

    Args:
        settings: candidates in any order.
        predicted: their memory.
        device_bytes: what a step may use on a device.
        host_bytes: what one device's part may use on the host; None does not ask.
    """
    for setting in sorted(settings, key=relative_cost):
        memory = predicted(setting)
        if memory.device <= device_bytes and (host_bytes is None or memory.host <= host_bytes):
            return setting, memory
    return None


def relative_cost(setting: TrainingSetting) -> tuple[float, int]:
    """Relative cost of a setting in time: recomputing a third, sharded weights and offload their traffic; then larger batches first.

    Stages 0 to 2 send about as much as plain data-parallel training, stage 3 half as much again (Rajbhandari et al., ZeRO, 2020);
    the weights of offload are an order, not a measurement.
    """
    cost = 1.0
    cost *= 4 / 3 if setting.checkpointing else 1
    cost *= 1.5 if setting.zero_stage == 3 else 1 + 0.01 * setting.zero_stage
    cost *= 2 if setting.offload_optimizer else 1
    cost *= 2 if setting.offload_parameters else 1
    return cost, -setting.batch
