"""Splits by identity, for sources that have none: who is learnt from, who chooses the weights, who is tested on.

Identities are ordered by a digest of the seed and their number, so the same ones are drawn on every machine, in whatever order the images
come and however many read them; of others added later only those near a boundary change sides. An identity is in one split alone; images
without one stay unsplit. Knows records; not tables.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from reid_ray.data.image_records import ImageRecord, Records, Skipped
from reid_ray.data.ingest.config import IdentitySplit
from reid_ray.errors import DataError


def drawn_splits(records: Iterable[ImageRecord | Skipped], wanted: IdentitySplit, *, origin: str) -> dict[int, str]:
    """{identity's digest: split} of all identities that a source names; of those that no split takes, nothing.

    One pass over the source's records, none of its pictures opened; some 150 bytes an identity.

    Args:
        records: of the source, as a reader gives them.
        wanted: how many of each.
        origin: the source, for messages.

    Raises:
        DataError: an image has a split already; no image has an identity; or more identities are wanted than there are.
    """
    images: Counter[int] = Counter()
    for record in records:
        if isinstance(record, Skipped):
            continue
        if record.split is not None:
            raise DataError(
                f"{origin}: {record.image_id} is of split {record.split} already; drop split_by_identity to keep the source's own splits"
            )
        if record.person_id is not None:
            images[_digest(record, wanted.seed)] += 1
    if not images:
        raise DataError(
            f"{origin}: no image has a person_id, so there is nobody to split by; give identities (source.pattern), or drop "
            "split_by_identity"
        )
    able = sorted(digest for digest, count in images.items() if count >= wanted.least_images)
    test, val = _count(wanted.test, len(able)), _count(wanted.val, len(able))
    rest = len(images) - test - val
    train = rest if wanted.train is None else _count(wanted.train, len(images))
    if test + val > len(able) or train > rest:
        raise DataError(
            f"{origin}: split_by_identity asks for {train} identities to train, {val} to validate and {test} to test, but there are "
            f"{len(images)}, {len(able)} of them with {wanted.least_images} images or more; ask for fewer, or lower least_images"
        )
    splits = dict.fromkeys(able[:test], "test") | dict.fromkeys(able[test : test + val], "val")
    left = sorted(digest for digest in images if digest not in splits)
    return splits | dict.fromkeys(left[:train], "train")


def with_splits(records: Records, splits: Mapping[int, str], *, seed: int) -> Iterator[ImageRecord | Skipped]:
    """The records, each image of a drawn identity in its split."""
    for record in records:
        if isinstance(record, Skipped) or record.person_id is None:
            yield record
        else:
            yield replace(record, split=splits.get(_digest(record, seed)))


def _digest(record: ImageRecord, seed: int) -> int:
    who = f"{seed}\0{record.dataset}\0{record.person_id}"
    return int.from_bytes(hashlib.blake2b(who.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def _count(wanted: float, of: int) -> int:
    """A number of identities as it is, a share of all rounded, but at least one where it is not nought."""
    return int(wanted) if wanted >= 1 else max(round(wanted * of), int(wanted > 0))
