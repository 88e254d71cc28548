"""Configuration shared by the training jobs: optimizer, DeepSpeed engine, schedule, workers, logging."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from reid_ray.config.base import Section
from reid_ray.config.common import OutputConfig, RayConfig
from reid_ray.config.paths import LocalPath, PathOrAddress, WrittenPath, expanded


class OptimizerConfig(Section):
    """Adam with a linear warm-up, then a cosine decay to zero or none."""

    name: Literal["adam", "adamw"] = Field("adam", description="adam couples weight decay to the gradient, adamw does not")
    lr: float = Field(1e-5, gt=0, description="peak learning rate (1e-5 for CLIP's weights)")
    weight_decay: float = Field(4e-5, ge=0, description="weight decay of what decay_of names (4e-5 as in IRRA)")
    beta1: float = Field(0.9, ge=0, lt=1, description="decay of the mean of gradients")
    beta2: float = Field(0.999, ge=0, lt=1, description="decay of the mean of squared gradients")
    eps: float = Field(1e-8, gt=0, description="added to the denominator of Adam")
    layer_decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="a tower's layer learns at this times the rate of the layer above it, its embeddings slowest; 1 is off, 0.65 to 0.9 "
        "are usual for fine-tuning",
    )
    heads_factor: float = Field(5.0, gt=0, description="rate of what the losses bring anew (id, irr, sigmoid), times lr (5 as in IRRA)")
    bias_factor: float | None = Field(
        None,
        gt=0,
        description="rate of biases, times lr, but for those of the classifiers of identities and words (2 as in IRRA's code); null: as "
        "the weights beside them",
    )
    decay_of: Literal["matrices", "weights", "all"] = Field(
        "matrices",
        description="what weight decay pulls: matrices alone, weights (vectors that are no biases too, such as the scales of norms: IRRA's "
        "code), or all (biases too: LUPerson-MLLM's code)",
    )
    warmup_share: float = Field(0.1, ge=0, lt=1, description="share of all steps in which the rate rises (5 of 60 epochs in IRRA)")
    warmup_from: float = Field(0.0, ge=0, le=1, description="where the rise begins, times lr (0.1 in IRRA)")
    rate_by: Literal["step", "epoch"] = Field(
        "step", description="step: the rate moves with every step; epoch: it stays through an epoch (IRRA's and LUPerson-MLLM's code)"
    )
    lr_decay: Literal["cosine", "none"] = Field(
        "cosine", description="after the rise: half a cosine to zero at the last step, or none, the same rate to the end"
    )
    clip_norm: float = Field(1.0, ge=0, description="gradients are scaled down to this global norm; 0 is off")

    @model_validator(mode="after")
    def _first_epoch_learns(self) -> Self:
        if self.rate_by == "epoch" and self.warmup_share and not self.warmup_from:
            raise ValueError("rate_by epoch and warmup_from 0 give the first epoch a rate of 0; set warmup_from to 0.1, or rate_by to step")
        return self


class DeepSpeedConfig(Section):
    """DeepSpeed engine: ZeRO stage, precision, offload."""

    zero_stage: Literal[0, 1, 2, 3] = Field(
        2, description="what is sharded over the workers: 0 nothing, 1 optimizer, 2 and gradients, 3 and weights"
    )
    precision: Literal["fp32", "bf16"] = Field("fp32", description="numbers of forward and backward pass; the optimizer stays fp32")
    persistence_threshold: int = Field(
        100_000, ge=0, description="ZeRO-3 keeps parameters of fewer elements whole on every worker (DeepSpeed's own default); 0 shards all"
    )

    reduce_bucket: int = Field(
        50_000_000,
        ge=1_000_000,
        description="elements of the buffer that gradients are averaged through; it takes 4 bytes each in fp32, 2 in bf16, on every device "
        "(DeepSpeed's own default, 500,000,000, takes 2 GB)",
    )
    offload_optimizer: bool = Field(
        False, description="keep the optimizer's state, and step it, in the memory of the CPU; needs zero_stage 1 or more"
    )
    offload_parameters: bool = Field(False, description="keep weights that are not in use in the memory of the CPU; needs zero_stage 3")

    @model_validator(mode="after")
    def _offload_goes_with_stage(self) -> Self:
        if self.offload_optimizer and self.zero_stage == 0:
            raise ValueError("offload_optimizer needs a sharded optimizer; set zero_stage to 1, 2 or 3, or offload_optimizer to false")
        if self.offload_parameters and self.zero_stage != 3:
            raise ValueError(f"offload_parameters needs zero_stage 3, not {self.zero_stage}; set zero_stage to 3, or it to false")
        return self

    @model_validator(mode="after")
    def _bf16_is_sharded(self) -> Self:
        if self.precision == "bf16" and self.zero_stage == 0:
            raise ValueError("precision bf16 needs zero_stage 1 or more: stage 0 drifts away from fp32 far more; set zero_stage to 1")
        return self


class ScheduleConfig(Section):
    """Schedule: epochs, validation, early stopping, checkpoints, failures."""

    epochs: int = Field(
        30, ge=1, description="passes over all samples, or over all identities with sampler identity (30 as in LUPerson-MLLM)"
    )
    max_steps: int | None = Field(None, ge=1, description="stop after this many steps, even within an epoch; null runs all epochs")
    validate_every: int | Literal["epoch"] = Field(
        500, description="steps between two validations, at least 1, or epoch: at the end of each; one more at the end"
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="stop after so many validations in a row without a better score (LLM-DA: 5, once per epoch); null never does",
    )
    checkpoint_every: int = Field(500, ge=1, description="steps between two checkpoints: at most these are lost with a worker")
    checkpoint_storage: WrittenPath | None = Field(
        None,
        description="where checkpoints go: a folder on storage that all nodes share, or a URI that pyarrow opens (s3://, gs://, abfs://, "
        "fsspec+...://); null keeps them beside the output",
    )
    keep_checkpoints: int = Field(2, ge=1, description="checkpoints kept while training; a finished run keeps none")
    log_every: int = Field(10, ge=1, description="steps between two lines of the log; a line is the mean of its steps")
    max_failures: int = Field(3, ge=0, description="lost workers that are replaced before the run gives up")

    @model_validator(mode="after")
    def _validates_at_times(self) -> Self:
        if self.validate_every != "epoch" and self.validate_every < 1:
            raise ValueError(f"validate_every is {self.validate_every}; give a number of steps of at least 1, or epoch")
        return self

    def validates_after(self, step: int, *, steps_per_epoch: int) -> bool:
        """Whether a validation is due after `step` steps."""
        return step % (steps_per_epoch if self.validate_every == "epoch" else self.validate_every) == 0


class WorkersConfig(Section):
    """The processes that train together."""

    count: int = Field(8, ge=1, description="training processes, one per GPU")
    min_count: int | None = Field(
        None,
        ge=1,
        description="go on with as few workers as this when nodes are lost, and with up to `count` when they are back, each time from the "
        "newest checkpoint; the global batch stays the same, so every number from min_count to count must divide it. null: always `count`",
    )
    patience_seconds: int = Field(
        60, ge=1, description="with min_count: how long a group of workers waits for its resources before a smaller one is started"
    )
    num_cpus: float = Field(1.0, gt=0, description="logical CPUs per worker")
    num_gpus: float = Field(0.0, ge=0, le=1, description="GPUs per worker: 1, or 0 to train on CPU")
    device_gib: float | None = Field(
        None, gt=0, description="memory of a GPU that training may use, GiB: a job that the memory job predicts to need more is refused"
    )
    torch_threads: int = Field(1, ge=1, description="threads of torch per worker on CPU")

    def divide(self, size: int, *, field: str) -> None:
        """Refuse a global batch that the workers cannot share evenly.

        Args:
            size: samples per step over all workers.
            field: where the configuration says so, for the message.

        Raises:
            ValueError: names the field.
        """
        for count in range(self.count if self.min_count is None else self.min_count, self.count + 1):
            if size % count:
                if count == self.count:
                    raise ValueError(f"{field} {size} is not a multiple of workers.count {count}")
                raise ValueError(
                    f"{field} {size} is not a multiple of {count} workers, which workers.min_count allows; set it to a multiple of "
                    f"{math.lcm(*range(self.min_count or count, self.count + 1))}, or raise workers.min_count"
                )

    @model_validator(mode="after")
    def _min_not_above_count(self) -> Self:
        if self.min_count is not None and self.min_count > self.count:
            raise ValueError(f"min_count {self.min_count} is above count {self.count}; lower min_count or raise count")
        return self


class StagingConfig(Section):
    """A copy of the prepared data on every node, where its workers do not read the run's folder itself."""

    path: LocalPath | None = Field(
        None,
        description="folder on each node's own disk for its copy, which its workers share; null: they map the run's folder where the node "
        "sees it, and a copy in TMPDIR where it does not",
    )
    gib: float = Field(
        200.0, gt=0, description="all copies on a node together, GiB; those that no run uses are removed for a new one, oldest first"
    )
    through: PathOrAddress | None = Field(
        None,
        description="address (s3://bucket/prefix, ...) where the driver puts what it prepared while the run lasts, for nodes to fetch it "
        "from; null: they fetch it from the driver's node through Ray's object store",
    )


class LogConfig(Section):
    """Experiment trackers. Every number also goes to metrics.jsonl."""

    to: list[Literal["tensorboard", "wandb", "mlflow"]] = Field(
        ["tensorboard"], description="boards; wandb and mlflow must be installed where the workers run"
    )
    project: str = Field("reid_ray", min_length=1, description="project of W&B, experiment of MLflow")
    run: str | None = Field(None, description="name of the run there; null lets them invent one")
    wandb_mode: Literal["online", "offline"] = Field(
        "offline", description="offline writes wandb/ for `wandb sync` later; online needs a network and a key"
    )
    mlflow_uri: Annotated[str, AfterValidator(expanded)] | None = Field(
        None, description="MLflow's tracking server or store; null writes mlflow/mlflow.db (SQLite) to the output"
    )
    peak_tflops: float | None = Field(
        None, gt=0, description="peak of one worker's device at engine.precision, TFLOP/s, for MFU; null knows the usual NVIDIA GPUs"
    )


class TrainingJob(Section):
    """The sections that reid_ray.train.run reads; a job that trains adds what it learns from and what it learns."""

    optimizer: OptimizerConfig = OptimizerConfig()
    engine: DeepSpeedConfig = DeepSpeedConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    workers: WorkersConfig = WorkersConfig()
    staging: StagingConfig = StagingConfig()
    log: LogConfig = LogConfig()
    output: OutputConfig
    ray: RayConfig = RayConfig()


# Fields that may differ when a run resumes (as pydantic excludes them): they change where the work is done, not what is computed.
NOT_IN_RUN_FINGERPRINT: Any = {
    "output": True,
    "ray": True,
    "log": True,
    "workers": True,
    "staging": True,
    "engine": {"zero_stage", "persistence_threshold", "reduce_bucket", "offload_optimizer", "offload_parameters"},
    "model": {"gradient_checkpointing"},
    "schedule": {"max_failures", "keep_checkpoints"},
}
