"""The checks of lint over a whole data set: repeated images and captions, identities and splits, counts against published ones.

Pure functions of gather.Rows, each a rule or two; what concerns one row alone was found while streaming. A level says what to do:
warning: results will suffer or flatter; note: know it. What cannot be used at all never comes here, the job refuses it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from reid_ray.data.image_records import MENDED
from reid_ray.data.lint.caption_text import RULES as TEXT_RULES
from reid_ray.data.lint.gather import UNKNOWN, Columns, Example, Faults, Rows
from reid_ray.data.lint.published_sizes import PUBLISHED, SOURCES
from reid_ray.data.perceptual_hash import groups, near_pairs

Level = Literal["warning", "note"]

_TESTING = ("query", "gallery", "test")
_NOT_THE_DATA_SETS_FAULT = {"junk": "boxes that the protocol ignores", "no_image_file": "files that are no images"}
_CAPTION_RULES = {
    **TEXT_RULES,
    "null_caption": "captions that are null",
    "empty_caption": "captions without a character",
    "caption_not_text": "captions that are numbers or objects, not texts",
    "repeated_name": "captions of a name that its file has twice, with different captions",
    "composed_query": "captions that ask together with their image: kept, and used by no job",
    "caption_long": "captions longer than the context of a model: their ends are cut off",
}


@dataclass(frozen=True)
class Finding:
    """One rule that fired."""

    rule: str
    level: Level
    count: int
    message: str
    examples: tuple[Example, ...] = ()


def check(rows: Rows, near_bits: int) -> list[Finding]:
    """Every finding, the gravest first."""
    columns = rows.columns()
    findings = [
        *_streamed(rows),
        *_exact_duplicates(rows, columns),
        *_near_duplicates(rows, columns, near_bits),
        *_repeated_captions(rows, columns),
        *_identities(rows, columns),
        *_published(rows, columns),
    ]
    return sorted(findings, key=lambda finding: (finding.level == "note", finding.rule))


def summary(rows: Rows) -> dict[str, Any]:
    """{split: {"images", "identities", "captions"}} of what can be used."""
    columns = rows.columns()
    table = {}
    for split in sorted(rows.splits):
        people = columns.person_N[np.isin(columns.split_N, rows.split_codes(split))]
        known = people[people != UNKNOWN]
        table[split] = {"images": len(people), "identities": len(np.unique(known)), "captions": rows.captions[split]}
    return table


def _streamed(rows: Rows) -> Iterator[Finding]:
    for rule, faults in rows.faults.items():
        if rule in _CAPTION_RULES:
            level: Level = "note" if rule in ("caption_short", "composed_query") else "warning"
            how = f" (of {rows.tokens.context} tokens, counted {rows.tokens.label})" if rule == "caption_long" else ""
            yield _finding(rule, level, faults, f"{_CAPTION_RULES[rule]}{how}")
        else:
            reason = rule.removeprefix("image_")
            known = _NOT_THE_DATA_SETS_FAULT.get(reason)
            yield _finding(rule, "note" if known else "warning", faults, known or f"images that cannot be used: {reason.replace('_', ' ')}")
    for code, faults in rows.mended.items():
        yield _finding(f"mended_{code}", "note", faults, MENDED[code])


def _exact_duplicates(rows: Rows, columns: Columns) -> Iterator[Finding]:
    same, across = Faults(rows.limit), Faults(rows.limit)
    for group in groups(columns.digest_N):
        _sort_out(rows, columns, group, "identical bytes", same=same, across=across)
    if across.count:
        yield _finding("duplicate_image_across", "warning", across, "sets of identical images under different identities or splits")
    if same.count:
        yield _finding("duplicate_image", "note", same, "sets of identical images of one identity, or of unknown ones")


def _near_duplicates(rows: Rows, columns: Columns, near_bits: int) -> Iterator[Finding]:
    """Pairs of alike images. One identity's neighbouring frames are alike by nature: a note; across identities it is a warning."""
    first_of_digest = np.unique(columns.digest_N, return_index=True)[1]  # identical files are the rule above
    unique_HB, first, inverse = np.unique(columns.hash_NB[first_of_digest], axis=0, return_index=True, return_inverse=True)
    same, across = Faults(rows.limit), Faults(rows.limit)
    for group in groups(inverse.ravel()):
        _sort_out(rows, columns, first_of_digest[group], "equal hashes", same=same, across=across)
    pairs, complete = near_pairs(unique_HB, near_bits)
    for pair in first_of_digest[first[pairs]]:
        _sort_out(rows, columns, np.sort(pair), f"hashes within {near_bits} of 128 bits", same=same, across=across)
    extent = "" if complete else "; some very common hashes were compared with their nearest only, so there may be more"
    if across.count:
        yield _finding("near_duplicate_across", "warning", across, f"sets of alike images under different identities or splits{extent}")
    if same.count:
        yield _finding("near_duplicate", "note", same, f"sets of alike images of one identity, or of unknown ones{extent}")


def _sort_out(rows: Rows, columns: Columns, group: np.ndarray, text: str, *, same: Faults, across: Faults) -> None:
    """Count a set of alike images as one identity's in one split, or not."""
    people, splits = columns.person_N[group], columns.split_N[group]
    one = (people == people[0]).all() and (splits == splits[0]).all()
    owners = ", ".join("unknown" if person == UNKNOWN else str(person) for person in people[:4])
    names = ", ".join(dict.fromkeys(rows.splits[code] for code in splits))
    ids = tuple(rows.image_ids[index] for index in group[:4])
    (same if one else across).add(ids, f"{len(group)} images, {text}; identities {owners}; {names}")


def _repeated_captions(rows: Rows, columns: Columns) -> Iterator[Finding]:
    faults = Faults(rows.limit)
    image_M = columns.caption_image_M
    # an image without identity is an identity of its own
    owner_N = np.where(columns.person_N == UNKNOWN, -2 - np.arange(len(rows.image_ids)), columns.person_N)
    for group in groups(columns.caption_digest_M):
        images = image_M[group]
        owners = len(np.unique(owner_N[images]))
        if owners > 1:
            faults.add(tuple(rows.image_ids[index] for index in images[:4]), f"one caption, {owners} identities, {len(group)} times")
    if faults.count:
        yield _finding("caption_across_identities", "warning", faults, "captions that stand under more than one identity")


def _identities(rows: Rows, columns: Columns) -> Iterator[Finding]:
    person_N = columns.person_N
    known = person_N != UNKNOWN
    if not known.any():
        return
    side_N = np.array([0 if name in _TESTING else 1 + code for code, name in enumerate(rows.splits)], dtype=np.int64)[columns.split_N]
    yield from _crossing(rows, columns, side_N)
    single, gaps = Faults(rows.limit), Faults(rows.limit)
    _, first, count = np.unique(np.stack([side_N, person_N])[:, known], axis=1, return_index=True, return_counts=True)
    for index in np.flatnonzero(known)[first[count == 1]]:
        single.add((rows.image_ids[index],), f"identity {person_N[index]}, split {rows.splits[columns.split_N[index]]}")
    if single.count:
        yield _finding("one_image_identity", "warning", single, "identities with one image: no pair to train on, no match to find")
    ids = np.unique(person_N[known & (person_N >= 0)])
    for low in np.flatnonzero(np.diff(ids) > 1):
        gaps.add((), f"no identity from {ids[low] + 1} to {ids[low + 1] - 1}")
    if gaps.count:
        missing = int(ids[-1] - ids[0] + 1 - len(ids))
        yield _finding("gap_in_ids", "note", gaps, f"gaps in the numbering of identities, {missing} numbers in all")


def _crossing(rows: Rows, columns: Columns, side_N: np.ndarray) -> Iterator[Finding]:
    """Identities in more than one of train, val, test (query and gallery are one side)."""
    known = columns.person_N != UNKNOWN
    people, owner = np.unique(columns.person_N[known], return_inverse=True)
    sides = np.zeros(len(people), dtype=np.int64)
    np.bitwise_or.at(sides, owner.ravel(), 1 << np.minimum(side_N[known], 62))
    of_train_and_val = sum(1 << (1 + code) for code in rows.split_codes("train", "val"))
    as_published = rows.datasets.keys() == {"MSMT17"}
    crossing, of_val = Faults(rows.limit), Faults(rows.limit)
    for person in np.flatnonzero(sides & (sides - 1)):
        faults = of_val if as_published and sides[person] == of_train_and_val else crossing
        if faults.count >= faults.limit:  # only examples need the images
            faults.count += 1
            continue
        where = np.flatnonzero(columns.person_N == people[person])
        codes, first = np.unique(columns.split_N[where], return_index=True)
        names = ", ".join(sorted(rows.splits[code] for code in codes))
        faults.add(tuple(rows.image_ids[index] for index in where[first]), f"identity {people[person]} in {names}")
    if crossing.count:
        yield _finding("identity_across_splits", "warning", crossing, "identities in more than one split: scores will flatter")
    if of_val.count:
        message = "identities of train again in val, as MSMT17 publishes it: no split to select a model on"
        yield _finding("identity_across_splits", "note", of_val, message)


def _published(rows: Rows, columns: Columns) -> Iterator[Finding]:
    """Counts of usable images, identities and captions against published ones, one finding for all that differ."""
    if len(rows.datasets) != 1 or (name := next(iter(rows.datasets))) not in PUBLISHED:
        return
    differences = []
    for split, published in PUBLISHED[name].items():
        parts = split.split("+")
        mask = np.isin(columns.split_N, rows.split_codes(*parts))
        people = columns.person_N[mask]
        found = {
            "images": (int(mask.sum()), published.images),
            "identities": (len(np.unique(people[people != UNKNOWN])), published.identities),
            "captions": (sum(rows.captions[part] for part in parts), published.captions),
        }
        for what, (count, wanted) in found.items():
            least, most = wanted if isinstance(wanted, tuple) else (wanted, wanted)
            if least is not None and most is not None and not least <= count <= most:
                differences.append(f"{split} {what} {count}, not {least}" + (f" to {most}" if most != least else ""))
    if differences:
        message = f"usable rows against published numbers ({SOURCES[name]}): {'; '.join(differences)}"
        yield Finding("published_count", "warning", len(differences), message)


def _finding(rule: str, level: Level, faults: Faults, message: str) -> Finding:
    return Finding(rule, level, faults.count, message, tuple(faults.examples))
