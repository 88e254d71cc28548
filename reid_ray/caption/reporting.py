"""The report job: a caption run's folder -> one HTML page and its numbers as JSON.

Knows where a run's table, manifest and images are, and which images to show; the page is run_report.py's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from reid_ray.caption.run_report import Sample, render_report
from reid_ray.caption.run_statistics import collect_statistics
from reid_ray.caption.sampling import sample_images
from reid_ray.config.common import ImagesConfig
from reid_ray.config.report import ReportJob
from reid_ray.errors import DataError, ReidRayError
from reid_ray.records import CAPTIONS
from reid_ray.storage import JobOutput, iter_table, read_manifest, write_bytes, write_json

PAGE, NUMBERS = "report.html", "statistics.json"
_CAPTIONS_FOLDER = "captions"


def run_report(config: ReportJob) -> dict[str, Any]:
    """Run the job of `config`; returns the manifest. The folder holds report.html and statistics.json.

    Raises:
        DataError: the run is unfinished or has no captions.
    """
    run = read_manifest(config.run)
    captions = Path(config.run) / _CAPTIONS_FOLDER
    with JobOutput("report", config.output.path, config, if_exists=config.output.if_exists, inputs={"run": config.run}) as output:
        facts = _origin(run)["facts"]
        templates = facts.get("templates", ())
        statistics = collect_statistics(captions, sample=config.sample_captions, seed=config.seed, templates=templates)
        samples, note = _samples(config, run, captions)
        page = render_report(
            title=f"Captions of {config.run}", statistics=statistics, manifest=run, samples=samples, alpha=_alpha(run), note=note
        )
        write_bytes(output.folder / PAGE, page.encode())
        write_json(output.folder / NUMBERS, statistics.as_dict())
        output.counts.read = output.counts.written = statistics.rows
        manifest = output.manifest()
    print(f"report: {statistics.rows} rows, {len(samples)} images -> {Path(config.output.path) / PAGE}")
    return manifest


def _samples(config: ReportJob, run: Mapping[str, Any], captions: Path) -> tuple[list[Sample], str]:
    """Sampled images with their rows, and a remark if there are none."""
    if not config.sample_images:
        return [], ""
    try:
        table = sample_images(config.images or _images_of(run), config.sample_images, seed=config.seed)
    except ReidRayError as error:
        return [], f"The images of this run cannot be shown: {error}"
    images = dict(zip(table["image_id"].to_pylist(), table["image"].to_pylist(), strict=True))
    rows: dict[str, list[dict[str, Any]]] = {image_id: [] for image_id in images}
    for part in iter_table(captions, CAPTIONS):
        for row, image_id in enumerate(part["image_id"].to_pylist()):
            if image_id in rows:
                rows[image_id] += part.slice(row, 1).to_pylist()
    return [Sample(image_id, image, tuple(rows[image_id])) for image_id, image in images.items() if rows[image_id]], ""


def _images_of(run: Mapping[str, Any]) -> ImagesConfig:
    """The images section of the caption job's manifest."""
    run = _origin(run)
    if "images" not in run["config"]:
        raise DataError("the run's manifest does not say where its images are; set images")
    try:
        return ImagesConfig.model_validate(run["config"]["images"])
    except ValidationError as error:
        raise DataError(f"the run's manifest has another images section than this version reads ({error}); set images") from None


def _origin(run: Mapping[str, Any]) -> Mapping[str, Any]:
    """The manifest of the caption job whose captions a refilter job read; a caption job's own."""
    while run["job"] == "refilter":
        run = read_manifest(run["config"]["run"])
    return run


def _alpha(run: Mapping[str, Any]) -> float | None:
    config = run["config"]
    if "alpha" in config:
        return float(config["alpha"])
    return float(config["faithfulness"]["alpha"]) if "faithfulness" in config else None
