"""A job's configuration from a command line: its file found, and what is wrong with it told by what the user likely meant.

A file that is not there is told with the near names; another job's file is told as that, not key by key. What a right file says is for
reid_ray.config; knows the jobs by their table.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from reid_ray.config.base import Section, load_config, parse_overrides
from reid_ray.config.reference import job_model, job_of_config
from reid_ray.config.shipped import configs_folder, find_config, shipped_configs
from reid_ray.config.yaml_tree import read_yaml
from reid_ray.errors import ConfigError
from reid_ray.jobs import JOBS

ConfigT = TypeVar("ConfigT", bound=Section)


def job_config(model: type[ConfigT], text: str | None, overrides: Sequence[str]) -> ConfigT:
    """The configuration that `--config text` and overrides make.

    Raises:
        ConfigError: there is no such file, it is another job's, a key is at fault, or something is required and no file was given.
    """
    job = next((name for name in JOBS if JOBS[name].config == f"{model.__module__}:{model.__name__}"), None)
    if text is None:
        try:
            return load_config(model, None, overrides)
        except ConfigError as error:
            if job is None or not (left_out := _left_out(model, overrides)):
                raise
            keys = f"add {' '.join(f'{key}=...' for key in left_out)}, or " if overrides else ""
            raise ConfigError(f"{error}; {keys}give a file by --config, such as --config {_of_job(job)[0]}") from None
    path = find_config(text)
    if not path.exists() or path.is_dir():
        raise ConfigError(f"--config {text}: is neither a file nor the name of a shipped configuration; {near_configs(text)}")
    try:
        return load_config(model, path, overrides)
    except ConfigError:
        owner = _other_job(job, model, path) if job is not None and path.is_file() else None  # a pipe is read once
        if job is None or owner is None:
            raise
    raise ConfigError(
        f"{path}: is a configuration of the job {owner}, not of {job}; give one of its own, such as --config {_of_job(job)[0]}"
    )


def near_configs(text: str) -> str:
    """The shipped configurations whose names are near `text`, and how all are listed."""
    names = {Path(name).stem: name for name in shipped_configs()}  # no two have one file name
    near = [names[stem] for stem in difflib.get_close_matches(Path(text).stem, names)]
    return f"{did_you_mean(near)}`reid-ray configs` lists them"


def did_you_mean(near: Sequence[str]) -> str:
    """A question that names each, with a blank after it; nothing for none."""
    return f"did you mean {' or '.join([*([', '.join(near[:-1])] if near[1:] else []), near[-1]])}? " if near else ""


def _of_job(job: str) -> list[str]:
    return [name for name in shipped_configs() if job_of_config(Path(name)) == job]


def _left_out(model: type[Section], overrides: Sequence[str]) -> list[str]:
    """Dotted keys that are required, of which neither they nor anything of their section is in an override."""
    given = {dotted.partition(".")[0] for dotted, _ in parse_overrides(overrides)}
    return [key for name in model.model_fields if name not in given for key in _required(model, name)]


def _required(model: type[Section], name: str) -> list[str]:
    """What must be given of a field: its name, or dotted those of its section; nothing of one with a default."""
    field = model.model_fields[name]
    kind = field.annotation
    if not field.is_required():
        return []
    inner = isinstance(kind, type) and issubclass(kind, Section) and [key for each in kind.model_fields for key in _required(kind, each)]
    return [f"{name}.{key}" for key in inner] if inner else [name]


def _other_job(job: str, model: type[Section], path: Path) -> str | None:
    """The job whose file this is, where it holds a key that `job` does not know: by a shipped name, or as one that takes it whole."""
    if read_yaml(path).keys() <= model.model_fields.keys():
        return None
    if path.resolve().is_relative_to(configs_folder().resolve()):
        owner = job_of_config(path)
        return owner if owner in JOBS and owner != job else None
    return next((each for each in JOBS if each != job and _takes(job_model(each), path)), None)


def _takes(model: type[Section], path: Path) -> bool:
    try:
        load_config(model, path)
    except ConfigError:
        return False
    return True
