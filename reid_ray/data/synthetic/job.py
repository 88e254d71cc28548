"""The synthesize job: synthetic people, streamed to Parquet.

Knows order and counts; what people look like is in people.py and below. Memory is bounded by one part, whatever the size of the set.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from reid_ray.data.synthetic.config import SynthesizeJob
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.data.synthetic.sentences import SLOTS
from reid_ray.progress import progress_bar
from reid_ray.records import CAPTIONS, IMAGES, SEGMENTS
from reid_ray.storage import JobOutput, TableWriter, read_manifest
from reid_ray.terminal.own_lines import say

_IMAGES_PER_STEP = 512


def run_synthesize(config: SynthesizeJob) -> dict[str, Any]:
    """Write images/, captions/ and segments/ (if asked) and manifest.json. Returns the manifest."""
    people = SyntheticPeople(config.people)
    output = JobOutput("synthesize", config.output.path, config, if_exists=config.output.if_exists)
    if (earlier := output.kept()) is not None:
        return earlier
    with output as out:
        with ExitStack() as open_tables:
            images = open_tables.enter_context(TableWriter(out.folder / "images", IMAGES, rows_per_part=config.rows_per_part))
            segments = _segments(open_tables, out, config)
            bar = open_tables.enter_context(progress_bar("synthesize", people.num_images))
            for start in range(0, people.num_images, _IMAGES_PER_STEP):
                stop = min(start + _IMAGES_PER_STEP, people.num_images)
                table = people.image_table(start, stop)
                images.append(table)
                if segments is not None:
                    segments.append(people.segment_table(start, stop, images=table))
                bar.update(table.num_rows)
        out.counts.read, out.counts.written = people.num_images, images.rows
        if segments is not None:
            out.facts["segments"] = segments.rows
        out.facts["identities"] = config.people.identities
        out.facts["identities_like_another"] = people.shared_identities()
        if config.captions:
            with TableWriter(out.folder / "captions", CAPTIONS, rows_per_part=2 * config.rows_per_part) as captions:
                for start in range(0, people.num_images, _IMAGES_PER_STEP):
                    captions.append(people.caption_table(start, min(start + _IMAGES_PER_STEP, people.num_images)))
            out.facts["captions"] = captions.rows
    say(f"synthesize: {out.counts}, {config.people.identities} identities -> {config.output.path}")
    return read_manifest(config.output.path)


def _segments(open_tables: ExitStack, out: JobOutput, config: SynthesizeJob) -> TableWriter | None:
    if not config.segments:
        return None
    rows = len(SLOTS) * config.rows_per_part
    return open_tables.enter_context(TableWriter(out.folder / "segments", SEGMENTS, rows_per_part=rows))
