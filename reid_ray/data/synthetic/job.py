"""The synthesize job: synthetic people, streamed to Parquet.

Knows order and counts; what people look like is in people.py and below. Memory is bounded by one part, whatever the size of the set.
"""

from __future__ import annotations

from typing import Any

from reid_ray.data.synthetic.config import SynthesizeJob
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.progress import progress_bar
from reid_ray.records import CAPTIONS, IMAGES
from reid_ray.storage import JobOutput, TableWriter, read_manifest
from reid_ray.terminal.own_lines import say

_IMAGES_PER_STEP = 512


def run_synthesize(config: SynthesizeJob) -> dict[str, Any]:
    """Write images/, captions/ (if asked) and manifest.json. Returns the manifest."""
    people = SyntheticPeople(config.people)
    output = JobOutput("synthesize", config.output.path, config, if_exists=config.output.if_exists)
    if (earlier := output.kept()) is not None:
        return earlier
    with output as out:
        with (
            TableWriter(out.folder / "images", IMAGES, rows_per_part=config.rows_per_part) as images,
            progress_bar("synthesize", people.num_images) as bar,
        ):
            for start in range(0, people.num_images, _IMAGES_PER_STEP):
                table = people.image_table(start, min(start + _IMAGES_PER_STEP, people.num_images))
                images.append(table)
                bar.update(table.num_rows)
        out.counts.read, out.counts.written = people.num_images, images.rows
        out.facts["identities"] = config.people.identities
        out.facts["identities_like_another"] = people.shared_identities()
        if config.captions:
            with TableWriter(out.folder / "captions", CAPTIONS, rows_per_part=2 * config.rows_per_part) as captions:
                for start in range(0, people.num_images, _IMAGES_PER_STEP):
                    captions.append(people.caption_table(start, min(start + _IMAGES_PER_STEP, people.num_images)))
            out.facts["captions"] = captions.rows
    say(f"synthesize: {out.counts}, {config.people.identities} identities -> {config.output.path}")
    return read_manifest(config.output.path)
