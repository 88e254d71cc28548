"""The report job: a caption run's folder -> one HTML report and its statistics as JSON.

Knows where a run's table, manifest and images are, and which images to show; the page is page.py's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reid_ray.caption.origin import captioning_manifest, images_of, origin_of
from reid_ray.caption.report.config import ReportJob
from reid_ray.caption.report.page import Sample, render_report
from reid_ray.caption.report.statistics import collect_statistics
from reid_ray.caption.sampling import sample_images
from reid_ray.errors import DataError, ReidRayError
from reid_ray.records import CAPTIONS
from reid_ray.storage import JobOutput, iter_table, write_bytes, write_json
from reid_ray.storage.file_systems import locate_in
from reid_ray.storage.object_store.pointer import reading_place
from reid_ray.terminal.counted import counted
from reid_ray.terminal.own_lines import say

PAGE, NUMBERS = "report.html", "statistics.json"
_CAPTIONS_FOLDER = "captions"


def run_report(config: ReportJob) -> dict[str, Any]:
    """Run the job of `config`; returns the manifest. The folder holds report.html and statistics.json.

    Raises:
        DataError: the run is unfinished or has no captions.
    """
    place = reading_place(config.run)
    run = captioning_manifest(place)
    captions = locate_in(place, _CAPTIONS_FOLDER)
    inputs = {"run": config.run, "images": _images_path(config, run)}
    output = JobOutput("report", config.output.path, config, if_exists=config.output.if_exists, inputs=inputs)
    if (earlier := output.kept()) is not None:
        return earlier
    with output:
        templates = origin_of(run)["facts"].get("templates", ())
        statistics = collect_statistics(captions, sample=config.sample_captions, seed=config.seed, templates=templates)
        if not statistics.rows:
            raise DataError(f"{captions}: holds no row, so there is nothing to report; run the caption job on images that can be read")
        samples, note = _samples(config, run, captions)
        page = render_report(
            title=f"Captions of {config.run}",
            statistics=statistics,
            manifest=run,
            samples=samples,
            alpha=_alpha(run),
            note=note,
            origin=origin_of(run),
        )
        write_bytes(output.folder / PAGE, page.encode())
        write_json(output.folder / NUMBERS, statistics.as_dict())
        output.counts.read = output.counts.written = statistics.rows
        manifest = output.manifest()
    say(f"report: {counted(statistics.rows, 'row')}, {counted(len(samples), 'image')} -> {Path(config.output.path) / PAGE}")
    return manifest


def _images_path(config: ReportJob, run: Mapping[str, Any]) -> str | None:
    """Where the pictures of the report come from; None if nowhere, or if the run cannot say."""
    if not config.sample_images:
        return None
    try:
        return (config.images or images_of(run)).path
    except ReidRayError:
        return None  # the page says why


def _samples(config: ReportJob, run: Mapping[str, Any], captions: str) -> tuple[list[Sample], str]:
    """Sampled images with their rows, and a remark if there are none."""
    if not config.sample_images:
        return [], ""
    try:
        table = sample_images(config.images or images_of(run), config.sample_images, seed=config.seed)
    except ReidRayError as error:
        return [], f"The images of this run cannot be shown: {error}"
    images = dict(zip(table["image_id"].to_pylist(), table["image"].to_pylist(), strict=True))
    rows: dict[str, list[dict[str, Any]]] = {image_id: [] for image_id in images}
    for part in iter_table(captions, CAPTIONS):
        for row, image_id in enumerate(part["image_id"].to_pylist()):
            if image_id in rows:
                rows[image_id] += part.slice(row, 1).to_pylist()
    return [Sample(image_id, image, tuple(rows[image_id])) for image_id, image in images.items() if rows[image_id]], ""


def _alpha(run: Mapping[str, Any]) -> float | None:
    config = run["config"]
    if "alpha" in config:
        return float(config["alpha"])
    return float(config["faithfulness"]["alpha"]) if "faithfulness" in config else None
