"""The memory job: a training job's configuration -> predicted GPU memory of each setting, and the cheapest that fits.

Knows order and words; how a step is traced is in dry_run.py, the arithmetic in estimate.py, the modules in meta_steps.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import product
from typing import Any, Literal

from reid_ray.config.base import load_config
from reid_ray.config.paths import named_places
from reid_ray.config.shipped import find_config
from reid_ray.errors import ConfigError
from reid_ray.storage import JobOutput, read_manifest, write_bytes, write_json
from reid_ray.terminal.own_lines import say
from reid_ray.train.config import TrainingJob
from reid_ray.train.memory.config import MemoryJob
from reid_ray.train.memory.estimate import (
    DeviceMemory,
    ParameterCounts,
    PeakBytes,
    Stage,
    TrainingSetting,
    cheapest_that_fits,
    predict,
    relative_cost,
)

_NOT_READ = frozenset({"images", "captions", "data", "output", "transfer", "schedule", "log"})  # sections of the planned job
TABLE, NUMBERS = "memory.md", "memory.json"


@dataclass(frozen=True)
class MemoryForecast:
    """What was predicted: the job's own setting first, then every other one."""

    weights: ParameterCounts
    own: tuple[TrainingSetting, DeviceMemory]
    others: list[tuple[TrainingSetting, DeviceMemory]]
    best: tuple[TrainingSetting, DeviceMemory] | None


def run_memory(config: MemoryJob) -> dict[str, Any]:
    """Run the job of `config`; returns the manifest. The folder holds memory.md and memory.json.

    Raises:
        ReidRayError: the planned job's configuration is wrong, or its model cannot be had.
    """
    job = _job(config)
    inputs = {"config": str(find_config(config.config)), **named_places(job, without=_NOT_READ)}
    output = JobOutput("memory", config.output.path, config, if_exists=config.output.if_exists, inputs=inputs)
    if (earlier := output.kept()) is not None:
        return earlier
    with output:
        plan = plan_memory(config, job)
        output.counts.read = output.counts.written = 1 + len(plan.others)
        table = render(plan, config)
        numbers = {
            "weights": asdict(plan.weights),
            "own": _numbers(plan.own),
            "best": _numbers(plan.best) if plan.best is not None else None,
            "others": [_numbers(each) for each in plan.others],
        }
        write_bytes(output.folder / TABLE, table.encode())
        write_json(output.folder / NUMBERS, numbers)
        output.facts.update({name: numbers[name] for name in ("weights", "own", "best")})
    say(table)
    say(f"memory: {1 + len(plan.others)} settings of {config.config} -> {config.output.path}")
    return read_manifest(config.output.path)


def plan_memory(config: MemoryJob, job: Any = None) -> MemoryForecast:
    """Predict the job's own setting and those around it; `job` is the planned job where it is loaded already."""
    from reid_ray.train.memory.meta_steps import editor_step, train_step, tune_step

    job = job or _job(config)
    steps: dict[str, Any] = {"train": train_step, "tune": tune_step, "train_editor": editor_step}
    make = steps[config.job]
    own = _own_setting(config, job)

    @cache
    def traced(batch: int, checkpointing: bool, keep: bool) -> tuple[ParameterCounts, PeakBytes]:
        return make(job, config, batch=batch, checkpointing=checkpointing, keep_gradients=keep)

    def predicted(setting: TrainingSetting) -> DeviceMemory:
        weights, held = traced(setting.batch, setting.checkpointing, not setting.frees_gradients)
        return predict(weights if setting.zero_stage == 3 else replace(weights, whole=0), held, setting)

    recomputes = (False,) if config.job == "train_editor" else (False, True)
    others = [setting for setting in _settings(own, sorted({own.batch, *config.batches}), recomputes=recomputes) if setting != own]
    limit = int((config.device_gib - config.reserve_gib) * 2**30)
    host = int(config.host_gib * 2**30) if config.host_gib is not None else None
    best = cheapest_that_fits([own, *others], predicted, device_bytes=limit, host_bytes=host)
    weights, _ = traced(own.batch, own.checkpointing, not own.frees_gradients)
    return MemoryForecast(weights, (own, predicted(own)), [(each, predicted(each)) for each in sorted(others, key=relative_cost)], best)


def refuse_too_large(name: Literal["train", "tune", "train_editor"], job: TrainingJob) -> None:
    """Refuse a job that cannot fit into workers.device_gib of its devices, before any worker starts; without that nothing is asked.

    Raises:
        ConfigError: says how much is needed, for what, and which setting fits.
    """
    if job.workers.device_gib is None:
        return
    config = MemoryJob(job=name, config=name, device_gib=job.workers.device_gib, reserve_gib=0, output=job.output)
    plan = plan_memory(config, job)
    need = plan.own[1]
    if need.device <= job.workers.device_gib * 2**30:
        return
    parts = {part: value for part, value in asdict(need).items() if part not in ("host", "moment") and value}
    listed = ", ".join(f"{part} {value / 2**30:.3g}" for part, value in sorted(parts.items(), key=lambda item: -item[1]))
    remedy = f"{_words(plan.best[0])} would fit" if plan.best else "no setting with this batch fits, so lower batches.size or add workers"
    raise ConfigError(
        f"workers.device_gib: {_words(plan.own[0])} needs {need.device / 2**30:.3g} GiB of {job.workers.device_gib:g} ({listed}); {remedy}"
    )


def render(plan: MemoryForecast, config: MemoryJob) -> str:
    """The plan as Markdown: what the job asks for, whether it fits, what would, and the table."""
    limit = config.device_gib - config.reserve_gib
    need = plan.own[1].device / 2**30
    lines = [
        f"# Memory of {config.job}, {config.config}",
        "",
        f"{plan.weights.trained:,} weights train, {plan.weights.frozen:,} do not. Needed are {need:.2f} GiB of the "
        f"{limit:.2f} GiB of a device ({config.device_gib:g} less {config.reserve_gib:g}): {'fits' if need <= limit else 'does not fit'}.",
    ]
    if plan.best is None:
        lines.append("None of the settings below fits: take more devices, a smaller model, shorter texts or smaller crops.")
    else:
        lines.append(f"The fastest that fits: {_words(plan.best[0])} ({plan.best[1].device / 2**30:.2f} GiB).")
    columns = list(plan.own[1].row())
    lines += ["", "| setting | " + " | ".join(columns) + " | fits |", "| --- |" + " ---: |" * (len(columns) + 1)]
    for setting, memory in (plan.own, *plan.others):
        cells = [f"{value:.2f}" if isinstance(value, float) else str(value) for value in memory.row().values()]
        fits = "yes" if memory.device / 2**30 <= limit else "no"
        lines.append(f"| {_words(setting)} | " + " | ".join(cells) + f" | {fits} |")
    lines += ["", "GiB per device at its fullest moment; host: GiB of the host for each device. The first row is the job as configured."]
    return "\n".join(lines) + "\n"


def _job(config: MemoryJob) -> TrainingJob:
    if config.job == "train":
        from reid_ray.train.dual.config import TrainJob

        return load_config(TrainJob, find_config(config.config), config.overrides)
    if config.job == "train_editor":
        from reid_ray.train.editor.config import TrainEditorJob

        return load_config(TrainEditorJob, find_config(config.config), config.overrides)
    from reid_ray.train.mllm.config import TuneJob

    return load_config(TuneJob, find_config(config.config), config.overrides)


def _own_setting(config: MemoryJob, job: Any) -> TrainingSetting:
    from reid_ray.train.zero import buffers

    engine, devices = job.engine, config.devices or job.workers.count
    if job.batches.size % devices:
        raise ConfigError(f"devices: {devices} do not divide batches.size {job.batches.size} of {config.config}; change one of them")
    bucket, live = buffers(engine)
    return TrainingSetting(
        zero_stage=engine.zero_stage,
        devices=devices,
        batch=job.batches.size // devices,
        checkpointing=config.job != "train_editor" and job.model.gradient_checkpointing,
        offload_optimizer=engine.offload_optimizer,
        offload_parameters=engine.offload_parameters,
        weight_bytes=2 if engine.precision == "bf16" else 4,
        bucket=bucket,
        live=live,
    )


def _settings(own: TrainingSetting, batches: list[int], *, recomputes: tuple[bool, ...]) -> Iterator[TrainingSetting]:
    """The settings around the job's own: every stage that may be, with and without offload, and checkpointing where the job knows it."""
    stages: tuple[Stage, ...] = (0, 1, 2, 3)
    for stage, checkpointing, optimizer, parameters, batch in product(stages, recomputes, (False, True), (False, True), batches):
        impossible = (stage == 0 and (optimizer or own.weight_bytes == 2)) or (parameters and not (stage == 3 and optimizer))
        if not impossible:
            yield replace(
                own,
                zero_stage=stage,
                batch=batch,
                checkpointing=checkpointing,
                offload_optimizer=optimizer,
                offload_parameters=parameters,
            )


def _numbers(plan: tuple[TrainingSetting, DeviceMemory]) -> dict[str, Any]:
    return {"setting": asdict(plan[0]), "bytes": asdict(plan[1]), "device": plan[1].device}


def _words(setting: TrainingSetting) -> str:
    offloaded = [what for what, moved in (("optimizer", setting.offload_optimizer), ("weights", setting.offload_parameters)) if moved]
    return ", ".join(
        [
            f"ZeRO-{setting.zero_stage}",
            f"batch {setting.batch}",
            *(["checkpointing"] if setting.checkpointing else []),
            *([f"{' and '.join(offloaded)} on the host"] if offloaded else []),
        ]
    )
