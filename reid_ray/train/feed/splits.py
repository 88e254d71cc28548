"""Train and validation split of the images, by their column or by held-out identities, and dense identity labels.

A person whom an editor made is learnt from or nothing: never validated on, and left out where the person of the photograph is not learnt
from.

Knows the columns of an IMAGES table and the section `images` of a training job; not captions, pixels or models. N images.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.errors import DataError
from reid_ray.records import EDITS
from reid_ray.train.feed.config import TrainImages
from reid_ray.train.feed.key_index import KeyIndex, hashes


@dataclass(frozen=True)
class Roles:
    """What each image is for.

    train_N: bool, learnt from.
    val_N: bool, chooses the weights; no image is both, and with val_share no identity is.
    person_N: int64, a dense number per identity.
    held_back_N: bool, edited pictures that would be learnt from, were the person of their photograph.
    """

    train_N: np.ndarray
    val_N: np.ndarray
    person_N: np.ndarray
    held_back_N: np.ndarray


def roles_of(images: pa.Table, config: TrainImages, edits: pa.Table | None = None) -> Roles:
    """The roles of the images of a table.

    Args:
        images: columns image_id, dataset, split, person_id and synthetic of the IMAGES schema, N rows.
        config: which splits, which share is held out, and what counts as one identity.
        edits: columns image_id, source_image_id, source_person_id and dataset of the EDITS schema; None: not given.

    Raises:
        DataError: persons of val_split are trained on, so that it would not choose the weights by how they do on others; or nobody says of
            whom edited pictures were made, and persons are held out.
    """
    edited_N = pc.fill_null(images["synthetic"], False).to_numpy()
    in_train_N = _is_split(images["split"], config.train_split)
    who_N = person_numbers(images)
    val_N = np.zeros(images.num_rows, bool)
    if config.val_share:
        val_N = _held_out(images, in_train_N & ~edited_N, config)
    elif config.val_split is not None:
        val_N = _is_split(images["split"], config.val_split) & ~edited_N
    train_N = in_train_N & ~val_N
    if config.val_split is not None:
        _refuse_trained_persons(who_N, train_N, val_N, config)
    held_back_N = train_N & edited_N
    if held_back_N.any():
        held_back_N &= _of_others(images, edits, edited_N=edited_N, photographs_N=train_N & ~edited_N, val_N=val_N, config=config)
    person_N = who_N if config.identity == "person" else np.arange(images.num_rows)
    return Roles(train_N & ~held_back_N, val_N, person_N, held_back_N)


def _of_others(
    images: pa.Table, edits: pa.Table | None, *, edited_N: np.ndarray, photographs_N: np.ndarray, val_N: np.ndarray, config: TrainImages
) -> np.ndarray:
    """Which pictures were made of a person whose photographs are here and not learnt from; bool [N].

    Raises:
        DataError: persons are held out, and an edited picture that would be learnt from has no row in EDITS.
    """
    edits = EDITS.empty_table() if edits is None else edits
    made = KeyIndex(hashes(edits["image_id"]))
    edit_N = made.find(hashes(images["image_id"]))
    unsaid = int((edit_N[edited_N & _is_split(images["split"], config.train_split)] < 0).sum())
    if unsaid and config.val_share:
        raise DataError(
            f"{config.origin}: images.edits does not say of whom {unsaid} edited pictures were made, and images.val_share "
            f"{config.val_share} holds persons out; give the edit job's table edits, or leave images.val_share at 0"
        )
    # By the person's label, and by the photograph where its row is here: each finds what the other cannot.
    labels = images.select(["dataset", "person_id"]).replace_schema_metadata(None)
    sources = pa.table({"dataset": edits["dataset"], "person_id": edits["source_person_id"]}, schema=labels.schema)
    known_E = pc.is_valid(edits["source_person_id"]).to_numpy()
    number = person_numbers(pa.concat_tables([labels, sources]))
    number_N, by_label_E = number[: images.num_rows], number[images.num_rows :]
    row_E = KeyIndex(hashes(images["image_id"])).find(hashes(edits["source_image_id"]))
    by_picture_E = np.where(row_E >= 0, number_N[row_E], by_label_E)
    taught, shown, validating = (np.bincount(number_N[each_N], minlength=len(number)) > 0 for each_N in (photographs_N, ~edited_N, val_N))
    other = validating | (shown & ~taught)
    other_E = other[by_picture_E] | (known_E & other[by_label_E])
    of_other_N = other[number_N]  # an editor's picture under the number of a photographed person
    told, edit_T = np.flatnonzero(edit_N >= 0), edit_N[edit_N >= 0]
    of_other_N[told] |= other_E[edit_T]
    edited_again = told[row_E[edit_T] >= 0], row_E[edit_T][row_E[edit_T] >= 0]  # an editor's picture of an editor's picture, and so on
    found = -1
    while found < (found := int(of_other_N.sum())):
        of_other_N[edited_again[0]] |= of_other_N[edited_again[1]]
    return of_other_N


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
            f"{config.origin}: {trained} of the {len(of_val)} identities of images.val_split {config.val_split!r} are also in split "
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
