"""Data preparation of a training run: image-caption pairs joined once into memory-mapped Arrow files, for every worker.

Each pass streams (join.py, pictures.py); what is held is numbers. Those that read tables and decode are spread over the cluster's CPUs
(spread.py), and a preparation that was cut off goes on with what they have finished. Knows the order of the passes and what is left of
them; not models, batches or Ray.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.config.base import fingerprint
from reid_ray.config.paths import expanded
from reid_ray.data.seen_rows import read_with_source
from reid_ray.errors import DataError
from reid_ray.records import EDITS, SEEN_FILE
from reid_ray.storage import Counts, read_table, write_json
from reid_ray.storage.provenance import content_at, content_of
from reid_ray.train.config import NOT_IN_RUN_FINGERPRINT
from reid_ray.train.failed_dynamic import count_stand_ins, find_stand_ins
from reid_ray.train.feed.batches import Mixture, edited_persons
from reid_ray.train.feed.config import PairTrainingJob
from reid_ray.train.feed.join import NAMES, Accepting, ImageRows, accept_captions, join_rewrites, write_samples
from reid_ray.train.feed.pictures import pack_pictures
from reid_ray.train.feed.prepared import FACTS, IDS, PAIRS, PICTURES, SAMPLES, VALIDATION, RowFile, write_rows
from reid_ray.train.feed.seen import write_seen
from reid_ray.train.feed.splits import Roles, roles_of
from reid_ray.train.feed.spread import begin_anew, forget, over_the_cluster
from reid_ray.versions import numbered

_ACCEPTED, _PLAN = "accepted.arrow", "plan.json"  # there while the passes run
_IMAGE_COLUMNS = ["image_id", "dataset", "split", "person_id", "camera_id", "image_sha256", "synthetic"]
_EDIT_COLUMNS = ["image_id", "source_image_id", "source_person_id", "dataset"]


def prepare_pairs(
    config: PairTrainingJob,
    folder: Path,
    counts: Counts,
    *,
    fits: Callable[[str], bool] | None = None,
    answered: Callable[[RowFile], np.ndarray] | None = None,
) -> dict[str, Any]:
    """Join config.images and config.captions and write what training reads into `folder`.

    Args:
        config: the training job; images, captions and max_pixels count here.
        folder: where the files go; must exist.
        counts: of captions: read, written (samples, rewrites and validation queries), failed by reason.
        fits: whether the model can read a text; one that it cannot is counted as too_long.
        answered: of the training samples, which have a target text (tune); others are counted as no_continuation.

    Returns:
        Facts for the manifest: samples, those of them that stand in for failed dynamic captions, rewrites, persons, pictures,
        validation queries and pictures, names of the data sets.

    Raises:
        DataError: a table is unusable, or nothing is left to train or validate on (says why captions dropped out), or the sampler
            cannot fill a batch.
    """
    _begin(config, folder)
    images = pa.concat_tables([read_with_source(path, _IMAGE_COLUMNS) for path in config.images.paths])
    roles = roles_of(images, config.images, _edits(config.images.edits))
    accepting = _accepting(config, images, roles, fits)
    spread = over_the_cluster()
    wanted_N = accept_captions(config.captions.paths, accepting, folder / _ACCEPTED, counts, spread=spread)
    accepted = RowFile(folder / _ACCEPTED)
    pictures = pack_pictures(
        *(config.images.paths, images["image_id"], wanted_N, folder / PICTURES), max_pixels=config.images.max_pixels, spread=spread
    )
    joined = join_rewrites(accepted, pictures.reason_N, pictures.reasons, roles.train_N, counts)
    write_samples(
        accepted,
        joined,
        roles,
        pictures.picture_N,
        camera_N=pc.fill_null(images["camera_id"].cast(pa.int64()), -1).to_numpy(),
        edited_N=pc.fill_null(images["synthetic"], False).to_numpy(),
        own_identity=config.images.identity == "caption",
        train=(folder / SAMPLES, folder / IDS),
        val=folder / VALIDATION,
    )
    if answered is not None:
        _keep_answered(folder, answered, counts)
    train, val = RowFile(folder / SAMPLES), RowFile(folder / VALIDATION)
    used_N, texts = pictures.picture_N >= 0, {"train": train, "val": val}
    write_seen(folder / SEEN_FILE, images, roles, hash_NB=pictures.hash_NB, used_N=used_N, texts=texts)
    _refuse_empty(config, images, train, val, counts)
    counts.written = len(train) + len(val) + len(joined.rewrite_R)
    return _finish(config, folder, train, val, counts, learnt_from=images["dataset"].filter(pa.array(roles.train_N)))


def _accepting(config: PairTrainingJob, images: pa.Table, roles: Roles, fits: Callable[[str], bool] | None) -> Accepting:
    """Which captions count."""
    return Accepting(
        ImageRows(images["image_id"], origin=config.images.origin),
        roles.train_N | roles.val_N,
        roles.held_back_N,
        (*config.captions.kinds, *(["rewrite"] if config.captions.reads_rewrites else [])),
        fits,
        find_stand_ins(config.captions.paths, kinds=config.captions.kinds),
    )


def _finish(
    config: PairTrainingJob, folder: Path, train: RowFile, val: RowFile, counts: Counts, *, learnt_from: pa.ChunkedArray
) -> dict[str, Any]:
    """Write the facts, by which the rest counts as whole, and take away what is of use while the passes run alone."""
    datasets = sorted(pc.unique(learnt_from.drop_null()).to_pylist())
    stand_ins = sum(count_stand_ins(batch.column("caption_id")) for batch in RowFile(folder / IDS).batches())
    facts = _facts(config, train, val, stand_ins=stand_ins, datasets=datasets)
    write_json(folder / FACTS, {**numbered("prepared"), "facts": facts, "counts": counts.as_dict()})
    (folder / _PLAN).unlink()
    begin_anew(folder / _ACCEPTED)
    forget(folder / PICTURES)
    return facts


def _begin(config: PairTrainingJob, folder: Path) -> None:
    """Keep what an earlier preparation of the same tables by the same configuration has finished, and nothing else."""
    places = [*config.images.paths, *config.images.edits, *config.captions.paths]
    states = [content_at(place) if "://" in place else content_of(Path(expanded(place))) for place in places]
    made_of = fingerprint({"config": config.model_dump(mode="json", exclude=NOT_IN_RUN_FINGERPRINT), "inputs": states})
    plan = {**numbered("prepared"), "made_of": made_of}
    if not (folder / _PLAN).is_file() or json.loads((folder / _PLAN).read_text(encoding="utf-8")) != plan:
        for name in (_ACCEPTED, PICTURES):
            begin_anew(folder / name)
        write_json(folder / _PLAN, plan)


def _facts(config: PairTrainingJob, train: RowFile, val: RowFile, *, stand_ins: int, datasets: list[str]) -> dict[str, Any]:
    """What the manifest says of the samples.

    Raises:
        DataError: see _identity_facts.
    """
    return {
        "samples": len(train),
        "stand_ins": stand_ins,
        "rewrites": int(train.lengths("rewrites").sum()),
        "persons": len(np.unique(train.column("person"))),
        "pictures": len(np.unique(train.column("picture"))),
        "validation_queries": len(val),
        "validation_pictures": len(np.unique(val.column("picture"))),
        "datasets": datasets,
        **_edited_facts(config, train),
        **(_identity_facts(config, train) if config.batches.sampler == "identity" else {}),
    }


def _edits(paths: list[str]) -> pa.Table | None:
    """What is known of whom pictures were made; rows without a picture are of no use."""
    if not paths:
        return None
    edits = pa.concat_tables([read_table(path, EDITS, columns=_EDIT_COLUMNS) for path in paths])
    return edits.filter(pc.is_valid(edits["image_id"]))


def _edited_facts(config: PairTrainingJob, train: RowFile) -> dict[str, int]:
    """How many samples show people whom an editor made.

    Raises:
        DataError: a share of them was asked for, and there are too few, or too few photographs, to fill it.
    """
    edited_S, batches = train.column("synthetic").astype(bool), config.batches
    if batches.edited_share is not None:
        unit = "captions" if batches.sampler == "shuffle" else "identities"
        edited_U = edited_S if batches.sampler == "shuffle" else edited_persons(train.column("person"), edited_S)
        places = batches.size if batches.sampler == "shuffle" else batches.identities
        least = Mixture(places, batches.edited_share)
        for found, needed, what in (
            (int(edited_U.sum()), least.most_edited, "that an editor made (images.further with column synthetic)"),
            (int((~edited_U).sum()), least.most_photographs, "of photographs"),
        ):
            if found < needed:
                raise DataError(
                    f"{config.images.origin}: {found} {unit} {what} can be learnt from, but batches.edited_share {batches.edited_share} "
                    f"asks for {needed} in a batch; give more, lower batches.size, or set batches.edited_share to null"
                )
    return {"edited_samples": int(edited_S.sum())} if edited_S.any() else {}


def _keep_answered(folder: Path, answered: Callable[[RowFile], np.ndarray], counts: Counts) -> None:
    """Samples that have a continuation; the others are counted."""
    keep_S = answered(RowFile(folder / SAMPLES))
    if keep_S.all():
        return
    counts.unused["no_continuation"] += int((~keep_S).sum())
    for name, schema in ((SAMPLES, PAIRS), (IDS, NAMES)):
        file, left = RowFile(folder / name), folder / f".{name}"
        parts = np.split(keep_S, np.cumsum([batch.num_rows for batch in file.batches()])[:-1])
        write_rows(left, schema, (batch.filter(pa.array(keep)) for batch, keep in zip(file.batches(), parts, strict=True)))
        left.replace(folder / name)


def _refuse_empty(config: PairTrainingJob, images: pa.Table, train: RowFile, val: RowFile, counts: Counts) -> None:
    captions, named = ", ".join(config.captions.paths), _named(config.images.train_split)
    if len(train) < config.batches.size:
        unsplit = images["split"].null_count
        remedy = "check captions.kinds and images.train_split, or lower batches.size"
        if config.images.train_split is not None and unsplit:
            remedy = f"{unsplit} images have no split: set images.train_split to null to learn from those, or {remedy}"
        found = f"{len(train)} captions {named} are usable, fewer than batches.size {config.batches.size}"
        raise DataError(f"{captions}: {found}; captions: {counts}; {remedy}")
    if config.images.val_split is not None and not len(val):
        raise DataError(
            f"{captions}: no usable caption of split {config.images.val_split!r} to choose the weights by; set images.val_split to a split "
            "that the images have, or to null, to keep the last weights or to hold identities out by images.val_share"
        )
    if config.images.val_share and not len(val):
        raise DataError(f"{captions}: images.val_share {config.images.val_share} holds out none of the identities {named}; raise it")


def _named(split: str | None) -> str:
    return "of images without a split" if split is None else f"of split {split!r}"


def _identity_facts(config: PairTrainingJob, train: RowFile) -> dict[str, int]:
    """How many identities show fewer pictures than sampler identity draws of each, so that theirs repeat.

    Raises:
        DataError: fewer identities than a batch holds, or none with a second picture.
    """
    pictures_P = np.bincount(np.unique(np.stack([train.column("person"), train.column("picture")]), axis=1)[0])
    pictures_P = pictures_P[pictures_P > 0]
    batches, named = config.batches, _named(config.images.train_split)
    if len(pictures_P) < batches.identities:
        raise DataError(
            f"{config.images.origin}: {len(pictures_P)} identities {named} have captions, fewer than the {batches.identities} of a batch "
            "(batches.size / batches.samples_per_identity); lower batches.size"
        )
    if (pictures_P == 1).all():
        raise DataError(
            f"{config.images.origin}: each of the {len(pictures_P)} identities {named} has one picture, so batches.sampler identity has "
            "nothing to pair; give images.person_id, or set batches.sampler to shuffle"
        )
    return {
        "persons_with_one_picture": int((pictures_P == 1).sum()),
        "persons_with_repeated_pictures": int((pictures_P < batches.samples_per_identity).sum()),
    }
