"""Strict loading of weights into a model: every name and shape that it needs, none that it does not know, every number finite.

The only file that loads a model. transformers draws at random what a file lacks and leaves out what the model does not know, with a word
in a log at most; here both are refused by name. The tests on names read headers; that on numbers reads every weight once, 0.1 to 0.3 s
for each GB on two cores. Knows names and tensors; not formats (weight_files) or which folder holds what kind of model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from reid_ray.errors import DataError, reason_of
from reid_ray.model.weight_files import (
    UNREADABLE,
    WEIGHT_FILES,
    Shape,
    State,
    headers,
    parts_of,
    plain_name,
    read_state,
    shapes_in,
)

_NAMED = 3  # names that an error lists of each kind


def load_pretrained(
    model_class: Any, model: str | Path, *, not_needed: Sequence[str] = (), not_known: Sequence[str] = (), **options: Any
) -> Any:
    """A transformers model with exactly the weights of a folder, in evaluation mode.

    Args:
        model_class: of transformers; also one of its Auto classes.
        model: a local folder in the transformers format.
        not_needed: beginnings of names that the file may lack, because nothing reads these weights.
        not_known: beginnings of names that the file may hold beside the model's, such as heads of another task.
        options: of from_pretrained: dtype, quantization_config ...

    Raises:
        DataError: weights are missing, unknown, of another shape or not finite, or a file cannot be read.
    """
    from transformers import AutoConfig

    folder = Path(model)
    _refuse_adapter_in(folder)
    source: dict[str, Any] = {"pretrained_model_name_or_path": str(model)}
    state = _wrapped_state(folder) if folder.is_dir() and "gguf_file" not in options else None
    if state is not None:
        config = AutoConfig.from_pretrained(folder)
        model_class = getattr(model_class, "_model_mapping", {type(config): model_class})[type(config)]  # of an Auto class
        source = {"pretrained_model_name_or_path": None, "state_dict": state, "config": config}
    try:
        with no_progress_bars(), _silenced_loading_report():
            loaded, info = model_class.from_pretrained(**source, output_loading_info=True, ignore_mismatched_sizes=True, **options)
    except torch.OutOfMemoryError:
        raise
    except UNREADABLE as error:
        raise DataError(f"{model}: its weights cannot be loaded ({reason_of(error)}); copy the whole model folder again") from None
    _refuse(str(model), info, not_needed=not_needed, not_known=not_known)
    missing = set(info["missing_keys"])
    refuse_not_finite(str(model), ((name, weight) for name, weight in loaded.named_parameters() if name not in missing))
    if state is not None:
        _take_generation_config(loaded, folder)
    return loaded.eval()


def load_diffusers(model_class: Any, folder: Path) -> Any:
    """A diffusers model with exactly the weights of a folder, float32, in evaluation mode.

    Raises:
        DataError: a file is missing or cannot be read, or weights are missing, unknown or not finite.
    """
    if not (folder / "config.json").is_file():
        raise DataError(f"{folder}: holds no config.json, so the editor's {folder.name} is missing; copy the whole model folder again")
    try:
        model, info = model_class.from_pretrained(folder, dtype=torch.float32, output_loading_info=True, low_cpu_mem_usage=False)
    except torch.OutOfMemoryError:
        raise
    except UNREADABLE as error:
        raise DataError(f"{folder}: its weights cannot be loaded ({reason_of(error)}); copy the whole model folder again") from None
    refuse_differences(str(folder), missing=info["missing_keys"], unknown=info["unexpected_keys"], other_shape={})
    refuse_not_finite(str(folder), model.named_parameters())
    return model.eval()


def load_pipeline(pipeline_class: Any, folder: Path, dtype: torch.dtype) -> Any:
    """A diffusers pipeline of a folder. Weights that its files lack are refused by diffusers, but not those of transformers' parts in it.

    Raises:
        DataError: a file is missing or cannot be read, or weights are missing or not finite.
    """
    try:
        pipeline = pipeline_class.from_pretrained(folder, dtype=dtype)
    except torch.OutOfMemoryError:
        raise
    except UNREADABLE as error:
        raise DataError(f"{folder}: its weights cannot be loaded ({reason_of(error)}); copy the whole model folder again") from None
    for name, part in pipeline.components.items():
        if isinstance(part, torch.nn.Module):
            refuse_not_finite(f"{folder}/{name}", part.named_parameters())
    return pipeline


def load_state(module: torch.nn.Module, state: Mapping[str, torch.Tensor], *, origin: str) -> None:
    """Put a state dictionary into a module that needs exactly these names and shapes; `origin`, the file, is named in errors.

    Raises:
        DataError: it does not fit, or holds a number that is not finite.
    """
    compare(origin, needed=shapes(module.state_dict()), found=shapes(state))
    refuse_not_finite(origin, state.items())
    module.load_state_dict(dict(state))


def compare(origin: str, *, needed: Mapping[str, Shape], found: Mapping[str, Shape]) -> None:
    """Refuse weights whose names or shapes are not those that are needed.

    Raises:
        DataError: they are not; names `origin` and the first few.
    """
    refuse_differences(
        origin,
        missing=needed.keys() - found.keys(),
        unknown=found.keys() - needed.keys(),
        other_shape={name: (found[name], needed[name]) for name in needed.keys() & found.keys() if found[name] != needed[name]},
    )


def refuse_differences(
    origin: str, *, missing: Iterable[str], unknown: Iterable[str], other_shape: Mapping[str, tuple[Shape, Shape]]
) -> None:
    """Raise a DataError that names the first few weights that are missing, unknown or of another shape (found, needed); none: return."""
    shaped = [f"{name} is {_by(other_shape[name][0])}, should be {_by(other_shape[name][1])}" for name in sorted(other_shape)]
    said = [
        f"{len(names)} {what} ({', '.join(names[:_NAMED])}{' ...' if len(names) > _NAMED else ''})"
        for names, what in ((sorted(missing), "missing"), (sorted(unknown), "unknown"), (shaped, "of another shape"))
        if names
    ]
    if said:
        raise DataError(
            f"{origin}: its weights are not those that its configuration needs: {', '.join(said)}; copy the whole model folder again, "
            "or save the model under its own names"
        )


def refuse_not_finite(origin: str, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Refuse weights that hold NaN or an infinity.

    Raises:
        DataError: one does; names it.
    """
    for name, weight in weights:
        if not weight.is_floating_point() or not weight.numel() or weight.is_meta:
            continue
        if not torch.isfinite(torch.stack(torch.aminmax(weight.detach()))).all():  # both are NaN where one value is
            raise DataError(f"{origin}: weight {name} holds NaN or an infinity; copy the file again, or take an earlier checkpoint")


def shapes(state: Mapping[str, torch.Tensor]) -> dict[str, Shape]:
    """Name -> shape."""
    return {name: tuple(value.shape) for name, value in state.items()}


def check_names(folder: Path, *, stripped: bool = False) -> None:
    """Refuse a folder whose files lack a weight that its configuration needs, from headers alone: before a model is loaded.

    What cannot be judged passes: architectures that transformers does not have, other formats than safetensors, quantised weights.

    Args:
        folder: in the transformers format.
        stripped: whoever loads it strips wrappers' names, as load_pretrained does and vLLM does not.

    Raises:
        DataError: weights are missing, or of another shape.
    """
    import transformers

    _refuse_adapter_in(folder)
    found = shapes_in(folder)
    try:
        config = transformers.AutoConfig.from_pretrained(folder)
        model_class = getattr(transformers, config.architectures[0])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return
    if found is None or getattr(config, "quantization_config", None):
        return
    state = {plain_name(name) if stripped else name: torch.empty(shape, device="meta") for name, shape in found.items()}
    options = {"state_dict": state, "config": config, "device_map": {"": "meta"}, "dtype": torch.float32}
    with no_progress_bars(), _silenced_loading_report():
        _, info = model_class.from_pretrained(None, output_loading_info=True, ignore_mismatched_sizes=True, **options)
    if info["missing_keys"] or info["mismatched_keys"]:
        _refuse(str(folder), info)


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Without transformers' bars for reading and writing a file: a job has its own, and a bar per worker would drown it."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _refuse_adapter_in(folder: Path) -> None:
    """Transformers would put an adapter that lies in a model's folder on a base of its own choice; vLLM would leave it out."""
    if (folder / "adapter_config.json").is_file():
        raise DataError(
            f"{folder}: holds adapter_config.json, so it is an adapter, not a model; merge it into its base, or move it into a folder "
            "of its own and give that as the adapter"
        )


def _refuse(origin: str, info: Mapping[str, Any], *, not_needed: Sequence[str] = (), not_known: Sequence[str] = ()) -> None:
    """refuse_differences, of transformers' loading info."""
    refuse_differences(
        origin,
        missing=[name for name in info["missing_keys"] if not name.startswith(tuple(not_needed))],
        unknown=[name for name in info["unexpected_keys"] if not name.startswith(tuple(not_known))],
        other_shape={name: (tuple(found), tuple(needed)) for name, found, needed in info["mismatched_keys"]},
    )


def _wrapped_state(folder: Path) -> State | None:
    """The folder's weights, if transformers could not read them as they lie: pickled, or under wrapped names. None: it can."""
    file = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if file is None:
        return None  # transformers knows more formats, and says what it looked for
    if ".bin" not in file.name and all(plain_name(name) == name for part in parts_of(file) for name in headers(part)):
        return None
    states = [read_state(part) for part in parts_of(file)]
    state = {name: value for each in states for name, value in each.items()}
    if len(state) < sum(map(len, states)):
        raise DataError(f"{file}: names a weight in two files; copy the whole model folder again")
    return state


def _take_generation_config(model: Any, folder: Path) -> None:
    from transformers import GenerationConfig

    if (folder / "generation_config.json").is_file() and model.can_generate():
        model.generation_config = GenerationConfig.from_pretrained(folder)


@contextmanager
def _silenced_loading_report() -> Iterator[None]:
    """Silence transformers' report of missing and unexpected names: both are errors here, raised in a sentence."""
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def _by(shape: Shape) -> str:
    return " x ".join(map(str, shape)) or "a number"
