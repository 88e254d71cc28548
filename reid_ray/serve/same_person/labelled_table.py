"""A table of images anew, with the identities that people decided on: a folder that appears whole, every other column as it was.

Files are copied row group by row group, so that a table of millions with its pictures costs no memory. Knows tables; not how decisions
were made.
"""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reid_ray.errors import DataError
from reid_ray.records import IMAGES
from reid_ray.serve.same_person.config import LabelledTable
from reid_ray.serve.same_person.decision_log import DecisionLog
from reid_ray.serve.same_person.identity_groups import IdentityGroups, KnownImage
from reid_ray.serve.same_person.look_alikes import known_images
from reid_ray.serve.same_person.other_table import lacking_pictures, named_pictures
from reid_ray.storage import JobOutput, iter_table, parquet_files, read_manifest
from reid_ray.terminal.counted import counted
from reid_ray.terminal.own_lines import say

_PERSON = IMAGES.field("person_id")
# What became of a row, in the order in which the line of the job says it.
CHANGES = ("labelled", "merged", "taken_out", "contradicted")


def write_labelled(config: LabelledTable) -> dict[str, Any]:
    """Write config.output.path/images and return the manifest, whose facts count what became of the rows (CHANGES).

    Rows of a group whose decisions contradict each other keep what the table says of them.

    Raises:
        DataError: the table or the decisions cannot be read, no decision stands, or all are about pictures of another table.
    """
    inputs = {"images": config.images, "decisions": config.decisions}
    output = JobOutput("label", config.output.path, config, if_exists=config.output.if_exists, inputs=inputs)
    if (earlier := output.kept()) is not None:
        return earlier
    with closing(DecisionLog(config.decisions, make=False)) as log:
        decisions, answered = log.decisions, log.answered
    if not answered and not config.tracks:
        raise DataError(f"{config.decisions}: holds no decision that stands; make some with reid-ray label ask")
    named = named_pictures(decisions)
    images = {image.image_id: image for image in known_images(config.images, tracks=config.tracks, only=named)}
    lacking = lacking_pictures(named, images, decisions=config.decisions, table=config.images)
    labels = NewLabels(IdentityGroups(images.values(), decisions), images, first_new=_first_new(config.images))
    with output:
        (output.folder / "images").mkdir()
        for number, file in enumerate(parquet_files(config.images)):
            with file.open() as parquet:
                schema = _with_persons(parquet.schema_arrow)
                with pq.ParquetWriter(output.folder / "images" / f"part-{number:05d}.parquet", schema, compression="zstd") as writer:
                    for batch in parquet.iter_batches(batch_size=8192):
                        writer.write_table(labels.table(pa.Table.from_batches([batch]), schema))
                        output.counts.read += batch.num_rows
        output.counts.written = output.counts.read
        output.facts.update(
            {name: labels.changes[name] for name in CHANGES}, identities=labels.identities, unlabelled=labels.unlabelled, decisions=answered
        )
    changes = ", ".join(f"{name.replace('_', ' ')} {labels.changes[name]}" for name in CHANGES if labels.changes[name])
    said = f"{changes or 'nothing changed'}; {counted(labels.identities, 'identity', 'identities')} decided about"
    if labels.unlabelled:
        said += f"; {counted(labels.unlabelled, 'picture')} of nobody known"
    if lacking is not None:
        said += f"; {lacking}"
    say(f"label: images: {output.counts}; {said} -> {config.output.path}")
    return read_manifest(config.output.path)


class NewLabels:
    """Gives rows the person_id that their group has.

    Args:
        groups: of the images that are decided about.
        images: these, by image_id.
        first_new: above every person_id of the table.
    """

    def __init__(self, groups: IdentityGroups, images: dict[str, KnownImage], *, first_new: int) -> None:
        self._groups, self._images = groups, images
        self._number = groups.numbers(first_new)
        self._touched = {image.node for image in images.values() if image.node[0] == "person"}
        self.identities = len(self._number)
        self.changes: Counter[str] = Counter()
        self.unlabelled = 0  # rows that have no person_id now

    def table(self, rows: pa.Table, schema: pa.Schema) -> pa.Table:
        """The rows, with their person_id in place."""
        ids, datasets = (
            rows["image_id"].to_pylist(),
            (rows["dataset"].to_pylist() if "dataset" in rows.column_names else [None] * len(rows)),
        )
        persons = rows["person_id"].to_pylist() if "person_id" in rows.column_names else [None] * len(rows)
        new = pa.array([self._label(*row) for row in zip(ids, datasets, persons, strict=True)], _PERSON.type)
        self.unlabelled += new.null_count
        if "person_id" in rows.column_names:
            return rows.set_column(rows.column_names.index("person_id"), _PERSON, new).cast(schema)
        return rows.append_column(_PERSON, new).cast(schema)

    def _label(self, image_id: str, dataset: str | None, person: int | None) -> int | None:
        image = self._images.get(image_id) or KnownImage(image_id, dataset, person)
        if image_id not in self._images and image.node not in self._touched:
            return person
        root = self._groups.group_of(image_id) if image_id in self._images else self._groups.root_of(image.node)
        if root in self._groups.contradicted:
            self.changes["contradicted"] += 1
            return person
        found = self._number.get(root)
        if found != person:
            self.changes["labelled" if person is None else "taken_out" if found is None else "merged"] += 1
        return found


def _with_persons(schema: pa.Schema) -> pa.Schema:
    place = schema.get_field_index("person_id")
    return schema.append(_PERSON) if place < 0 else schema.set(place, _PERSON)


def _first_new(path: str) -> int:
    most = [pc.max(table["person_id"]).as_py() for table in iter_table(path, IMAGES, columns=["person_id"], batch_rows=65_536)]
    return 1 + max([number for number in most if number is not None], default=-1)
