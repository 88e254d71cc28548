"""Train and validation split of the images, by their column or by held-out identities, and dense identity labels.

Knows the columns of an IMAGES table and the section `images` of a training job; not captions, pixels or models. N images.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.errors import DataError
from reid_ray.train.feed.config import TrainImages


@dataclass(frozen=True)
class Roles:
    """What each image is for.

    train_N: bool, learnt from.
    val_N: bool, chooses the weights; no image is both, and with val_share no identity is.
    person_N: int64, a dense number per identity.
    """

    train_N: np.ndarray
    val_N: np.ndarray
    person_N: np.ndarray


def roles_of(images: pa.Table, config: TrainImages) -> Roles:
    """The roles of the images of a table.

    Args:
        images: columns image_id, dataset, split and person_id of the IMAGES schema, N rows.
        config: which splits, which share is held out, and what counts as one identity.

    Raises:
        DataError: persons of val_split are trained on, so that it would not choose the weights by how they do on others.
    """
    split = images["split"]
    train_N = _is_split(split, config.train_split)
    person_N = person_numbers(images) if config.identity == "person" else np.arange(images.num_rows)
    if config.val_share:
        val_N = train_N & _held_out(images, train_N, config)
        return Roles(train_N & ~val_N, val_N, person_N)
    if config.val_split is None:
        return Roles(train_N, np.zeros(images.num_rows, bool), person_N)
    val_N = _is_split(split, config.val_split)
    who_N = person_N if config.identity == "person" else person_numbers(images)
    _refuse_trained_persons(who_N, train_N, val_N, config)
    return Roles(train_N, val_N, person_N)


def person_numbers(images: pa.Table) -> np.ndarray:
    """A dense number per identity: (dataset, person_id); an image without a person_id is an identity of its own. int64 [N]."""
    known_N = pc.is_valid(images["person_id"]).to_numpy()
    dataset = pc.fill_null(images["dataset"], "").combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    person = pc.fill_null(images["person_id"], 0).to_numpy()
    first = np.where(known_N, dataset, -1)
    second = np.where(known_N, person, np.arange(images.num_rows))
    order = np.lexsort((second, first))
    fresh = np.concatenate([[True], (np.diff(first[order]) != 0) | (np.diff(second[order]) != 0)])[: len(order)]
    number_N = np.empty(len(order), np.int64)
    number_N[order] = np.cumsum(fresh) - 1
    return number_N


def _refuse_trained_persons(who_N: np.ndarray, train_N: np.ndarray, val_N: np.ndarray, config: TrainImages) -> None:
    """Whatever counts as one identity in the losses, a person who is trained on is not unseen."""
    of_val = np.unique(who_N[val_N])
    trained = int(np.isin(of_val, who_N[train_N]).sum())
    if trained:
        raise DataError(
            f"{config.path}: {trained} of the {len(of_val)} identities of images.val_split {config.val_split!r} are also in split "
            f"{config.train_split!r} (as in MSMT17's list_val.txt), but weights are to be chosen on unseen persons; set images.val_split "
            "to null and images.val_share to 0.1, which holds identities out"
        )


def _is_split(split: pa.ChunkedArray, name: str | None) -> np.ndarray:
    return pc.is_null(split).to_numpy() if name is None else pc.fill_null(pc.equal(split, name), False).to_numpy()


def _held_out(images: pa.Table, train_N: np.ndarray, config: TrainImages) -> np.ndarray:
    """Whose person's digest falls below val_share, whatever counts as one identity in the losses.

    A person, or an image without one, keeps its side when others are added, removed or reordered.
    """
    limit = int(config.val_share * 2**64)
    rows = np.flatnonzero(train_N)
    here = images.select(["image_id", "dataset", "person_id"]).take(rows)
    val_N = np.zeros(images.num_rows, bool)
    start = 0
    for batch in here.to_batches(max_chunksize=65_536):
        for image_id, dataset, person in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            who = f"{dataset or ''}\0{person}" if person is not None else f"\0{image_id}"
            digest = hashlib.blake2b(f"{config.val_seed}\0{who}".encode(), digest_size=8).digest()
            val_N[rows[start]] = int.from_bytes(digest, "big") < limit
            start += 1
    return val_N
