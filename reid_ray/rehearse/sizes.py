"""What a rehearsal makes smaller in a configuration: a table of sections' fields, and nothing that is not in it.

Losses, masking, optimizer, the shape of the schedule, splits, filters and transfer sets stay as they are written. What only a GPU has
counts as size. Knows sections by the names of their classes; not jobs, places or models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel

from reid_ray.config.base import Section

Place = tuple[str | int, ...]  # the way from a configuration to one of its values: fields, keys of mappings, numbers in lists
Rule = Callable[[Any, Any], Any]  # (the section, the value as written) -> the value of the rehearsal
ConfigT = TypeVar("ConfigT", bound=Section)

WORKERS = 2
_BATCH, _EPOCHS, _STEPS = 32, 2, 4
_CAPTIONED = 48  # images


@dataclass(frozen=True)
class Change:
    """A value that a rehearsal replaces: where it stands, what was written there and what stands there now."""

    place: Place
    was: Any
    now: Any

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.place))} {_shown(self.was)} -> {_shown(self.now)}"


def _exactly(value: Any) -> Rule:
    return lambda _, __: value


def _at_most(most: float) -> Rule:
    return lambda _, value: value if value is None or value <= most else type(value)(most)


def _steps(most: int) -> Rule:
    """Of a number of steps; a word such as `epoch` stays."""
    return lambda _, value: min(value, most) if isinstance(value, int) else value


def _batch(section: Any, value: int) -> int:
    """Samples per step that the workers can share: whole identities where these are sampled."""
    if section.sampler == "identity":
        return min(value, WORKERS * section.samples_per_identity)
    return max(WORKERS, min(value, _BATCH) // WORKERS * WORKERS)


# Class of a section, or the class and field that hold it -> its fields.
SIZES: dict[str, Mapping[str, Rule]] = {
    "WorkersConfig": {
        "count": _exactly(WORKERS),
        "min_count": _at_most(WORKERS),
        "num_cpus": _at_most(1.0),
        "num_gpus": _exactly(0.0),
        "device_gib": _exactly(None),
    },
    "ScheduleConfig": {
        "epochs": _at_most(_EPOCHS),
        "max_steps": _at_most(_STEPS),
        "validate_every": _steps(2),
        "checkpoint_every": _at_most(2),
        "log_every": _exactly(1),
    },
    "TrainImages": {"val_share": lambda _, value: max(value, 0.1) if value else value},  # a smaller share of few holds nobody out
    "EditorBatches": {"size": lambda _, value: max(WORKERS, min(value, 8) // WORKERS * WORKERS), "threads": _at_most(2)},
    "EditorModelConfig": {"height": _at_most(64), "width": _at_most(64), "crop": _at_most(64)},
    "BatchesConfig": {"size": _batch, "chunk": _at_most(8), "threads": _at_most(2)},
    "PoolConfig": {
        "replicas": _exactly(1),
        "max_replicas": _exactly(None),
        "num_cpus": _at_most(1.0),
        "num_gpus": _exactly(0.0),
        "batch_size": _at_most(64),
    },
    "VllmConfig": {
        "dtype": _exactly("float32"),
        "max_num_seqs": _at_most(32),
        "prepare_processes": _at_most(1),
        "own_process": _exactly(False),  # as many processes as for one engine on a few cores
        "kv_cache_mb": lambda _, value: 256 if value is None else value,
        "tensor_parallel_size": _exactly(1),
        "enforce_eager": _exactly(True),
    },
    "SamplingConfig": {"max_tokens": _at_most(64)},
    "RewriterConfig": {"share": _at_most(0.25)},  # how many captions are rewritten, not how
    "SearcherConfig": {"replicas": _exactly(1), "max_replicas": _exactly(None), "num_cpus": _at_most(1.0), "num_gpus": _exactly(0.0)},
    "EncodersConfig": {"replicas": _at_most(1), "max_replicas": _exactly(None), "num_cpus": _at_most(0.5), "num_gpus": _exactly(0.0)},
    "SearchJob": {"keep_serving": _exactly(False)},
    "ServeConfig": {"host": _exactly("127.0.0.1"), "port": _exactly(0)},
    "SyntheticConfig": {"identities": _at_most(24), "images_per_identity": _at_most(4), "cameras": _at_most(4)},
    "ImagesConfig": {"readers": _at_most(2)},
    # Each image costs answers of a model here, several with rewrites; elsewhere a listing is small enough.
    "CaptionJob.images": {"limit": lambda images, value: value if images.source == "synthetic" else min(value or _CAPTIONED, _CAPTIONED)},
    "EditJob.images": {"limit": lambda _, value: min(value or _CAPTIONED, _CAPTIONED)},
    "ChangesConfig": {"per_image": _at_most(1), "tries": _at_most(2)},
    "DrawingConfig": {"steps": _at_most(2), "batch_size": _at_most(8)},
    "RayConfig": {"address": _exactly(None)},
    "LogConfig": {"wandb_mode": _exactly("offline"), "mlflow_uri": _exactly(None)},  # a board that others see shows no rehearsal
    "NearestConfig": {  # of a few dozen people, too, an index is made where the kind has one
        "lists": _at_most(4),
        "accelerate_rows": lambda nearest, value: value if nearest.kind == "flat" else min(value, 16),
    },
    "GalleryConfig": {"segment_rows": _at_most(16)},
    "TinyMllmTrainingConfig": {"sight_steps": _at_most(4), "steps": _at_most(4), "people_per_set": _at_most(32)},
    "FitConfig": {"epochs": _at_most(2)},
    "TrainVerifierJob": {"held_out": lambda _, value: max(value, 0.4)},  # a smaller share of few holds nobody out
    "CaptionerJob": {"test_images": _at_most(8)},
    "TinySegformerTrainingConfig": {"steps": _at_most(4), "people_per_set": _at_most(32)},
    "TrainParserJob": {"test_images": _at_most(8)},
    "CalibrateJob": {"rewrites": _at_most(8)},
    "PlanJob": {"sample": _at_most(8)},
    "MineJob": {"limit": _at_most(16)},
}
# A part that is written and not used in this configuration keeps its size: (section, field) -> whether it is used.
_USED: Mapping[tuple[str, str], Callable[[Any], bool]] = {
    ("ImagesConfig", "synthetic"): lambda section: section.source == "synthetic",
    ("CaptionJob", "rewriter"): lambda section: bool(section.rewriter.share),
    ("EditJob", "rewriter"): lambda section: bool(section.rewriter.share),
    ("CaptionJob", "faithfulness"): lambda section: bool(section.rewriter.share),
}


def smaller(config: Section) -> list[Change]:
    """Every value that a rehearsal of `config` makes smaller."""
    return list(_smaller(config, ()))


def changed(config: ConfigT, changes: Sequence[Change]) -> ConfigT:
    """The same configuration with other values; what neither it nor `changes` set keeps its default, as in a file without it.

    Raises:
        pydantic.ValidationError: the values contradict each other.
    """
    tree = _written(config)
    for change in changes:
        node, part = tree, config
        for step in change.place[:-1]:
            part = getattr(part, step) if isinstance(part, BaseModel) and isinstance(step, str) else part[step]  # type: ignore[index]
            if isinstance(node, dict) and step not in node:
                node[step] = _written(part)
            node = node[step]
        node[change.place[-1]] = change.now
    return type(config).model_validate(tree)


def _smaller(part: Any, place: Place, held_by: str = "") -> Iterator[Change]:
    if isinstance(part, Section):
        names = [*(kind.__name__ for kind in reversed(type(part).__mro__)), held_by]
        rules = {name: rule for each in names for name, rule in SIZES.get(each, {}).items()}
        for name in type(part).model_fields:
            value = getattr(part, name)
            if name in rules and (now := rules[name](part, value)) != value:
                yield Change((*place, name), value, now)
            if _USED.get((type(part).__name__, name), lambda _: True)(part):
                yield from _smaller(value, (*place, name), f"{type(part).__name__}.{name}")
    elif isinstance(part, Mapping):
        for key, value in part.items():
            yield from _smaller(value, (*place, key))
    elif isinstance(part, list | tuple):
        for number, value in enumerate(part):
            yield from _smaller(value, (*place, number))


def _written(part: Any) -> Any:
    """What a part of a configuration was given, without defaults; lists and mappings as such."""
    if isinstance(part, BaseModel):
        return {name: _written(getattr(part, name)) for name in type(part).model_fields if name in part.model_fields_set}
    if isinstance(part, Mapping):
        return {key: _written(value) for key, value in part.items()}
    if isinstance(part, list | tuple):
        return [_written(value) for value in part]
    return part


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)
