"""Compaction: small neighbouring segments become one, what is dead in one goes, older ones get codes, beside searches and writes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reid_ray.gallery.depot.dead_rows import entry_of
from reid_ray.gallery.generations import living_batches, new_segment
from reid_ray.gallery.manifest import SegmentEntry
from reid_ray.gallery.nearest.live_part import LivePart
from reid_ray.gallery.renewal.generation_writer import GenerationWriter
from reid_ray.gallery.sealed.segment import Segment, SegmentFacts
from reid_ray.progress import Progress, ProgressBar, unseen


def merge_segments(at: GenerationWriter, progress: Progress = unseen) -> None:
    """Make one segment of those that are small neighbours, have dead rows or lack codes, a generation each. Maintenance is held."""
    with at.gate.exclusive():
        if at.has_log:
            at.swap(at.entries())  # what the log holds is merged with its neighbours, too
    groups = _groups(at.segments(), at.view.manifest.config.merge_rows)
    if not groups:
        return
    with progress("compact", sum(int(np.count_nonzero(part.alive)) for group in groups for part in group)) as bar:
        for group in groups:
            _merge(at, group, bar)


def _groups(parts: Sequence[LivePart], most: int) -> list[list[LivePart]]:
    """Neighbouring segments that become one: small ones together, those with dead rows or without codes alone."""
    groups: list[list[LivePart]] = []
    rows = 0
    for part in parts:
        living = int(np.count_nonzero(part.alive))
        if groups and rows + living <= most:
            groups[-1].append(part)
            rows += living
        else:
            groups.append([part])
            rows = living
    return [group for group in groups if len(group) > 1 or not group[0].alive.all() or _lacks_codes(group[0])]


def _lacks_codes(part: LivePart) -> bool:
    return isinstance(part.source, Segment) and part.source.lacks_codes


def _merge(at: GenerationWriter, group: Sequence[LivePart], bar: ProgressBar) -> None:
    """One generation in which the segments of a group are one. It is written while others write; they wait for the swap alone."""
    names = {_facts(part).name for part in group}
    rows = [np.flatnonzero(part.alive) for part in group]
    facts = new_segment(at.depot, living_batches(group, rows, bar), sum(map(len, rows)), at.view.manifest, at.view.schema)
    with at.gate.exclusive():
        entries: list[SegmentEntry] = []
        placed = False
        for part in at.segments():
            if _facts(part).name not in names:
                entries.append(at.entry(part))
            elif not placed:
                placed = True
                alive = alive_now(at, group, rows)
                if facts is not None:
                    entries.append(entry_of(at.depot, facts, np.concatenate(alive)))
        at.swap(entries)


def alive_now(at: GenerationWriter, parts: Sequence[LivePart], rows: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Which of some rows of segments live still, for each segment: bool. Nobody writes meanwhile."""
    now = {_facts(part).name: part.alive for part in at.segments()}
    return [now[_facts(part).name][row_N] for part, row_N in zip(parts, rows, strict=True)]


def _facts(part: LivePart) -> SegmentFacts:
    assert isinstance(part.source, Segment)
    return part.source.facts
