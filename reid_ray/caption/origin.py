"""Provenance of captions: the manifest of the job that made them, and of the caption or rewrite job behind a refilter job.

Knows manifests of jobs that write CAPTIONS; not the captions.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from reid_ray.config.common import ImagesConfig
from reid_ray.errors import DataError
from reid_ray.storage import read_manifest

_JOBS = ("caption", "rewrite", "refilter")


def captioning_manifest(folder: str | Path) -> dict[str, Any]:
    """The manifest of a finished caption, rewrite or refilter job.

    Raises:
        DataError: the folder is not the output of one.
    """
    manifest = read_manifest(folder)
    if manifest.get("job") not in _JOBS:
        raise DataError(
            f"{folder}: is an output of {manifest.get('job') or 'no job'}, but run must name that of a caption, rewrite or refilter job"
        )
    return manifest


def origin_of(run: Mapping[str, Any]) -> Mapping[str, Any]:
    """The manifest of the job whose captions a refilter job read; of any other job its own."""
    while run["job"] == "refilter":
        run = captioning_manifest(run["config"]["run"])
    return run


def images_of(run: Mapping[str, Any]) -> ImagesConfig:
    """The images section of the caption job behind a manifest.

    Raises:
        DataError: it has none, or one of another version.
    """
    run = origin_of(run)
    if "images" not in run["config"]:
        raise DataError("the run's manifest does not say where its images are (a rewrite job reads none); set images")
    try:
        return ImagesConfig.model_validate(run["config"]["images"])
    except ValidationError as error:
        raise DataError(f"the run's manifest has another images section than this version reads ({error}); set images") from None
