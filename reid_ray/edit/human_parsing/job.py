"""The segment job: images -> parsing actors (or segments that are there) -> the captions' nouns linked -> SEGMENTS.

Pictures are decoded and parsed by Ray Data actors; their masks, some hundreds of bytes each, pass through this process, which links nouns
and writes parts: some thousands of rows a second, more than several GPUs parse. Memory is bounded: captions wait in a file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.data.containers.caption_store import CaptionStore
from reid_ray.data.execution import actor_pool, ray_data_execution
from reid_ray.data.image_records import caption_of
from reid_ray.data.labels.doubted_captions import note_doubted
from reid_ray.data.labels.own_in_words import note_own, own_in_words
from reid_ray.data.sources import ImageListing, image_listing, read_images
from reid_ray.edit.human_parsing.config import HumanParserConfig, MaskRefinerConfig, NounsConfig, SegmentJob
from reid_ray.edit.human_parsing.found import SegmentActor
from reid_ray.edit.human_parsing.linked import CaptionText, Row, images_of, linked_rows
from reid_ray.errors import DataError
from reid_ray.model.hub_models import fetch_models, pinned
from reid_ray.model.model_files import model_revision, resolve_model
from reid_ray.progress import progress_bar
from reid_ray.records import CAPTIONS, SEGMENTS, table_of
from reid_ray.runtime import pool_need, ray_session, require_resources
from reid_ray.storage import JobOutput, TableWriter, iter_table, read_manifest
from reid_ray.terminal.own_lines import say

SEGMENTS_FOLDER = "segments"
_IMAGES_PER_STEP = 256
_CAPTION_COLUMNS = ["caption_id", "image_id", "kind", "text", "status"]


def run_segment(config: SegmentJob) -> dict[str, Any]:
    """Run the job; returns the manifest of config.output.path, which holds segments/ (SEGMENTS).

    Raises:
        DataError: no image, segment or caption, weights that cannot be loaded, or not a single segment was found.
        ConfigError: the parser is none, or its classes mean no slot.
        ResourceError: the cluster cannot hold the actors.
    """
    listing = None if config.images is None else image_listing(config.images)
    if listing is not None:
        config = config.model_copy(update={name: pinned(each, field=f"{name}.model") for name, each in _models(config).items()})
    output = JobOutput(
        "segment",
        config.output.path,
        config,
        if_exists=config.output.if_exists,
        inputs=_inputs(config, listing),
        contents={} if listing is None else listing.contents(),
    )
    if (earlier := output.kept()) is not None:
        return earlier
    with ExitStack() as stack:
        if listing is not None:
            stack.enter_context(ray_session(config.ray))
        stack.enter_context(output)
        captions = stack.enter_context(CaptionStore())
        if config.captions is not None:
            note_doubted(output, [config.captions.path])
            captions.add_all(_texts(config.captions))
        if listing is not None:
            stack.enter_context(ray_data_execution(no_progress_timeout_s=600))
            require_resources([pool_need("segment", config.pool)])
            fetch_models({name: (each, config.pool) for name, each in _models(config).items()})
        rows = _there(str(config.segments)) if listing is None else _parsed(config, listing)
        images = _write(config, output, images_of(rows), captions, None if listing is None else listing.count)
        output.facts["images"] = images
        further, told = ((), {}) if listing is None else (listing.further, listing.told)
        note_own(output, further, told, carried=False)
        output.facts["captions_without_an_image"] = sum(len(texts) for _, texts in captions.orphans())
        if not output.counts.written:
            raise DataError(f"{_origin(config)}: shows none of {', '.join(config.slots)} ({output.counts}); check parser and captions")
    say(f"segment: {output.counts} of {output.facts['images']} images{own_in_words(further, told, carried=False)} -> {config.output.path}")
    return read_manifest(config.output.path)


def _origin(config: SegmentJob) -> str:
    return str(config.segments if config.images is None else config.images.path or "synthetic people")


def _inputs(config: SegmentJob, listing: ImageListing | None) -> dict[str, Any]:
    found: dict[str, Any] = {"captions": None if config.captions is None else config.captions.path}
    if listing is None:
        return {"segments": config.segments, **found}
    for name, each in _models(config).items():
        resolved = resolve_model(each.model, field=f"{name}.model")
        found[name] = f"{each.model} {model_revision(resolved, revision=each.revision, field=f'{name}.model')}"
    return {"images": listing.origin, **found}


def _models(config: SegmentJob) -> dict[str, HumanParserConfig | MaskRefinerConfig]:
    return {"parser": config.parser, **({} if config.refiner is None else {"refiner": config.refiner})}


def _parsed(config: SegmentJob, listing: ImageListing) -> Iterator[Row]:
    assert config.images is not None
    arguments = {
        "parser": config.parser.model_copy(update={"model": _for_actors(config.parser.model)}),
        "refiner": config.refiner and config.refiner.model_copy(update={"model": _for_actors(config.refiner.model)}),
        "pool": config.pool,
        "slots": config.slots,
        "min_area": config.min_area,
        "max_pixels": config.images.max_pixels,
    }
    found = read_images(config.images, listing=listing).map_batches(
        SegmentActor, fn_constructor_kwargs=arguments, **actor_pool(config.pool)
    )
    for batch in found.iter_batches(batch_size=None, batch_format="pyarrow"):
        yield from batch.to_pylist()


def _for_actors(model: str) -> str:
    """A folder absolute: an actor's working directory need not be this one's."""
    return os.path.abspath(os.path.expanduser(model)) if os.path.isdir(os.path.expanduser(model)) else model


def _there(path: str) -> Iterator[Row]:
    for table in iter_table(path, SEGMENTS):
        yield from table.to_pylist()


def _texts(config: NounsConfig) -> Iterator[tuple[str, Any]]:
    for table in iter_table(config.path, CAPTIONS, columns=_CAPTION_COLUMNS):
        usable = pc.and_(pc.equal(table["status"], "ok"), pc.is_in(table["kind"], value_set=pa.array(config.kinds)))
        for row in table.filter(usable).to_pylist():
            yield row["image_id"], caption_of(row["text"], caption_id=row["caption_id"])


def _write(config: SegmentJob, output: JobOutput, images: Iterator[list[Row]], captions: CaptionStore, count: int | None) -> int:
    """Link and write the rows of all images; returns how many there are."""
    number, nouns = 0, config.captions
    with (
        TableWriter(output.folder / SEGMENTS_FOLDER, SEGMENTS, rows_per_part=config.rows_per_part) as writer,
        progress_bar("segment", count) as bar,
    ):
        while some := list(islice(images, _IMAGES_PER_STEP)):
            rows: list[Row] = []
            for found in some:
                own = [row for row in found if row["slot"] in config.slots]
                if nouns is None:
                    rows += own
                    continue
                texts = [CaptionText(each["caption_id"], each["text"]) for each in captions.take(found[0]["image_id"])]
                rows += linked_rows(own or found, texts, slots=config.slots, most_slots=nouns.most_slots)
            writer.append(table_of(SEGMENTS, rows))
            _count(output, rows)
            number += len(some)
            bar.update(len(some))
    return number


def _count(output: JobOutput, rows: list[Row]) -> None:
    output.counts.read += len(rows)
    for row in rows:
        if row["status"] == "ok":
            output.counts.written += 1
        else:
            output.counts.unused[(row["reason"] or "failed").partition(":")[0]] += 1
