"""Data set validation (the job lint): read a data set once, say what is wrong with it, show examples.

Refuses only a layout that is not there. Everything else is a finding, counted, with examples, in lint.json and lint.html; of
a data set without one usable image the report says why, and the job ends with an error. Memory holds some 150 bytes an image and 20 a
caption.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from reid_ray.data.fetch import Loaded, load_all
from reid_ray.data.formats.registry import ImageRecord, read_source
from reid_ray.data.images import decode_image, jpeg_thumbnail
from reid_ray.data.ingest.job import admit
from reid_ray.data.labels.doubted_captions import note_doubted
from reid_ray.data.lint.checks import check, summary
from reid_ray.data.lint.config import LintJob
from reid_ray.data.lint.gather import Rows
from reid_ray.data.lint.page import as_html, as_json, table_text
from reid_ray.data.lint.token_counts import token_counts
from reid_ray.data.perceptual_hash import perceptual_hash
from reid_ray.errors import DataError
from reid_ray.progress import progress_bar
from reid_ray.storage import JobOutput, read_manifest, write_bytes, write_json
from reid_ray.storage.file_systems import is_remote
from reid_ray.storage.regular_files import printable
from reid_ray.terminal.own_lines import say

_SIDE = 128  # of an example, pixels at most


def run_lint(config: LintJob) -> dict[str, Any]:
    """Check config.source, print the table, write lint.json and lint.html to config.output and return the manifest.

    Raises:
        DataError: the source cannot be read at all (no report is left then), or no image of it can be used (the report is there).
    """
    source = config.source
    out = JobOutput("lint", config.output.path, config, if_exists=config.output.if_exists, inputs={"source": source.path})
    if (earlier := out.kept()) is not None:
        if not earlier["counts"]["written"]:
            raise DataError(f"{source.path}: no image can be used; see {config.output.path}/lint.html")
        return earlier
    rows = Rows(script=config.script, examples=config.examples, tokens=token_counts(config))
    hashes = partial(perceptual_hash, max_pixels=source.max_pixels)
    with out, progress_bar(f"lint {source.format}", total=None) as bar:
        for row in load_all(
            admit(read_source(source)), hashes, config.load, remote=is_remote(source.path), max_bytes=source.max_file_mb << 20
        ):
            rows.add(row)
            bar.update(1)
        out.counts.written = len(rows.image_ids)
        out.counts.unused.update(rows.unusable.counts)
        out.counts.read = out.counts.written + rows.unusable.counts.total()
        if rows.captions.total():
            note_doubted(out, [source.captions or source.path])
        findings = check(rows, config.near_bits)
        report = as_json(printable(source.path), summary(rows), rows.unusable.counts, findings)
        wanted = {image_id for finding in findings for example in finding.examples for image_id in example.image_ids}
        write_json(out.folder / "lint.json", report)
        write_bytes(out.folder / "lint.html", as_html(report, _thumbnails(config, wanted)).encode("utf-8", "backslashreplace"))
        out.facts["findings"] = {finding.rule: finding.count for finding in findings}
    say(table_text(findings))
    say(f"lint: {out.counts}; {len(findings)} findings -> {config.output.path}/lint.html")
    if not rows.image_ids:
        raise DataError(
            f"{source.path}: no image can be used ({out.counts}); {rows.unusable.commonest()}; see "
            f"{config.output.path}/lint.html, or check source.format and source.path"
        )
    return read_manifest(config.output.path)


def _thumbnails(config: LintJob, wanted: set[str]) -> dict[str, bytes]:
    """Small JPEG pictures of the examples, from a second pass over the source that fetches only these."""
    found: dict[str, bytes] = {}
    chosen: Iterable[ImageRecord] = (
        record for record in read_source(config.source) if isinstance(record, ImageRecord) and printable(record.image_id) in wanted
    )
    draw = partial(_small, max_pixels=config.source.max_pixels)
    load = config.load.model_copy(update={"processes": 0})
    if wanted:
        for row in load_all(chosen, draw, load, remote=is_remote(config.source.path), max_bytes=config.source.max_file_mb << 20):
            if isinstance(row, Loaded):
                found[printable(row.record.image_id)] = row.found
            if len(found) == len(wanted):
                break
    return found


def _small(data: bytes, max_pixels: int) -> bytes:
    """An example's picture as the page shows it.

    Raises:
        BadImageError: as images.decode_image.
    """
    return jpeg_thumbnail(decode_image(data, max_pixels=max_pixels), width=_SIDE, height=_SIDE)
