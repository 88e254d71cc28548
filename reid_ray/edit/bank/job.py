"""The references job: segments of training images and folders of clothes -> a bank of references, each content once.

In this process, without Ray: a bank is some ten thousand crops. Knows order and counts; what may be a reference is from_images.py's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np

from reid_ray.data.labels.doubted_captions import note_doubted
from reid_ray.data.labels.own_in_words import note_own, own_in_words
from reid_ray.data.sources import ImageListing, image_listing
from reid_ray.edit.bank.config import ReferencesJob
from reid_ray.edit.bank.cut_out import encode_reference, reference_id
from reid_ray.edit.bank.from_folder import cut_folder
from reid_ray.edit.bank.from_images import cut_segments, held_out_contents, refused_segments, segments_to_cut
from reid_ray.errors import DataError
from reid_ray.progress import progress_bar
from reid_ray.records import REFERENCES, table_of
from reid_ray.storage import JobOutput, TableWriter, read_manifest
from reid_ray.terminal.own_lines import say

Row = dict[str, Any]
REFERENCES_FOLDER = "references"
_ROWS_PER_STEP = 256


def run_references(config: ReferencesJob) -> dict[str, Any]:
    """Run the job; returns the manifest of config.output.path, which holds references/ (REFERENCES).

    Raises:
        DataError: a table or folder cannot be read, or not one reference was found.
        ConfigError: values are given for a file that is not there.
    """
    listing = None if config.images is None else image_listing(config.images)
    inputs = {"images": None if listing is None else listing.origin, "segments": config.segments}
    contents = {} if listing is None else listing.contents()
    output = JobOutput("references", config.output.path, config, if_exists=config.output.if_exists, inputs=inputs, contents=contents)
    if (earlier := output.kept()) is not None:
        return earlier
    with output as out:
        note_doubted(out, [config.captions])
        writer = TableWriter(out.folder / REFERENCES_FOLDER, REFERENCES, rows_per_part=config.rows_per_part)
        with writer, progress_bar("references", None, unit="ref") as bar:
            bank = _Bank(out, writer)
            for row in _rows(config, listing):
                bank.add(*row)
                bar.update(1)
            bank.write()
        further, told = ((), {}) if listing is None else (listing.further, listing.told)
        note_own(out, further, told, carried=False)
        out.facts["slots"] = dict(sorted(bank.kept.items()))
        if not out.counts.written:
            raise DataError(f"references: not one picture gives a reference ({out.counts}); check images.path, segments and folders")
    say(f"references: {out.counts}{own_in_words(further, told, carried=False)} -> {config.output.path}")
    return read_manifest(config.output.path)


def _rows(config: ReferencesJob, listing: ImageListing | None) -> Iterator[tuple[Row, np.ndarray | None]]:
    held_out = held_out_contents(config)
    folders = chain.from_iterable(cut_folder(name, folder, config, held_out) for name, folder in config.folders.items())
    if listing is None:
        return folders
    by_image = segments_to_cut(config, held_out)
    refused = ((row, None) for row in refused_segments(config, held_out, by_image))
    return chain(refused, cut_segments(config, listing, by_image, held_out), folders)


class _Bank:
    """Rows on their way to the table: each content once, every other one a row that says so."""

    def __init__(self, out: JobOutput, writer: TableWriter) -> None:
        self.kept: dict[str, int] = {}
        self._out, self._writer, self._rows = out, writer, list[Row]()
        self._seen: set[bytes] = set()

    def add(self, row: Row, thing: np.ndarray | None) -> None:
        """Take up a row and its thing; a row without one is whole already."""
        self._out.counts.read += 1
        if thing is not None:
            content = reference_id(row["slot"], thing)
            row = {**row, "reference_id": content, "values": json.dumps(row["values"]) if row["values"] else None}
            if bytes.fromhex(content) in self._seen:
                row |= {"status": "refused", "reason": "repeated_content"}
            else:
                self._seen.add(bytes.fromhex(content))
                row |= {"status": "ok", "image": encode_reference(thing)}
        if row["status"] == "ok":
            self._out.counts.written += 1
            self.kept[row["slot"]] = self.kept.get(row["slot"], 0) + 1
        else:
            self._out.counts.unused[row["reason"].partition(":")[0]] += 1
        self._rows.append(row)
        if len(self._rows) == _ROWS_PER_STEP:
            self.write()

    def write(self) -> None:
        """Hand what was taken up to the table."""
        self._writer.append(table_of(REFERENCES, self._rows))
        self._rows = []
