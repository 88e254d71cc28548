"""The job export: the project's tables -> a data set in a published layout, which the job ingest or the authors' own code reads.

Streams, one image in memory at a time; ids and names are told apart by digests, some 160 bytes an image (0.6 GB at 4 million). A row that a
layout cannot express (no identity, a split it does not have) is counted with its reason; what each layout needs is written beside its
writer in layouts.py, json_layouts.py and reid_layouts.py.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from reid_ray.data.config import LoadConfig
from reid_ray.data.export.config import ExportJob
from reid_ray.data.export.layouts import WRITERS
from reid_ray.data.export.writer import CannotExpressError
from reid_ray.data.fetch import load_all
from reid_ray.data.formats.config import SourceConfig
from reid_ray.data.formats.registry import Caption, Skipped, open_source
from reid_ray.data.image_records import is_composed
from reid_ray.data.images import image_size
from reid_ray.data.ingest.job import admit
from reid_ray.data.labels.doubted_captions import note_doubted
from reid_ray.data.labels.own_in_words import note_own, own_in_words
from reid_ray.errors import DataError
from reid_ray.progress import progress_bar
from reid_ray.storage import JobOutput, read_manifest
from reid_ray.storage.file_systems import is_remote
from reid_ray.terminal.own_lines import say


def run_export(config: ExportJob) -> dict[str, Any]:
    """Write config.tables to config.output in the layout config.format and return the manifest.

    Raises:
        DataError: there are no such tables, or no row can be expressed in the layout.
    """
    inputs = {"tables": config.tables, **({"captions": config.captions} if config.captions else {})}
    out = JobOutput("export", config.output.path, config, if_exists=config.output.if_exists, inputs=inputs)
    if (earlier := out.kept()) is not None:
        return earlier
    source = SourceConfig.model_validate(
        {"format": "parquet", "path": config.tables, **({"captions": config.captions} if config.captions else {})}
    )
    load = LoadConfig(processes=config.processes, check="header")
    inspect = partial(image_size, max_pixels=source.max_pixels)
    # ids are keys: a second row of one is counted, and no two images are asked to share a name
    opened = open_source(source)
    rows = load_all(admit(opened), inspect, load, remote=is_remote(source.path), max_bytes=source.max_file_mb << 20)
    left_out = {"kind": 0, "not_ok": 0}
    with out, WRITERS[config.format](out.folder, config) as writer, progress_bar(f"export {config.format}", total=None) as bar:
        for row in rows:
            out.counts.read += 1
            bar.update(1)
            if isinstance(row, Skipped):
                out.counts.unused[row.reason] += 1
                continue
            if row.record.synthetic and not (config.include_synthetic or writer.marks_synthetic):
                out.counts.unused["synthetic"] += 1
                continue
            captions = _wanted(row.record.captions, config.kinds, left_out, composed=writer.composed)
            if config.format == "luperson_mllm":
                captions += _stand_ins(row.record.captions, config.kinds)
            try:
                writer.add(row.record, row.data, captions)
                out.counts.written += 1
            except CannotExpressError as error:
                out.counts.unused[error.reason] += 1
        writer.finish()
        if writer.captions:
            note_doubted(out, [config.captions or config.tables])
        note_own(out, opened.own.names, {}, carried=False)
        out.facts["captions"] = {"written": writer.captions, "left_out": {**left_out, **writer.left_out}}
        if not out.counts.written:
            raise DataError(f"{config.tables}: no row can be written as {config.format} ({out.counts})")
    left = "".join(f", {reason} {n}" for reason, n in out.facts["captions"]["left_out"].items() if n)
    own = own_in_words(opened.own.names, {}, carried=False)
    say(f"export: images: {out.counts}; captions: written {writer.captions}{left}{own} -> {config.output.path}")
    return read_manifest(config.output.path)


def _wanted(captions: tuple[Caption, ...], kinds: tuple[str, ...], left_out: dict[str, int], *, composed: bool) -> list[Caption]:
    wanted = []
    for caption in captions:
        if caption["kind"] not in kinds:
            left_out["kind"] += 1
        elif caption["status"] != "ok" and not (composed and is_composed(caption)):
            left_out["not_ok"] += 1
        else:
            wanted.append(caption)
    return wanted


def _stand_ins(captions: tuple[Caption, ...], kinds: tuple[str, ...]) -> list[Caption]:
    """For a dynamic caption that failed, the static one by the same captioner, which took its place in the caption job, too."""
    if "dynamic" not in kinds:
        return []
    static = {caption["captioner"]: caption for caption in captions if caption["kind"] == "static" and caption["status"] == "ok"}
    failed = {caption["captioner"] for caption in captions if caption["kind"] == "dynamic" and caption["status"] == "failed"}
    return [{**static[captioner], "kind": "dynamic"} for captioner in sorted(failed & set(static), key=str)]
