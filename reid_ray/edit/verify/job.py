"""The train_verifier job: pictures of known attributes -> a network that reads them -> a verifier's folder that states its error.

Knows tables and the order of work; the network is in attribute_reader.py, its training in fitting.py.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from reid_ray.data.images import BadImageError, decode_image
from reid_ray.data.pieces import UNREAD
from reid_ray.data.sources import ImageListing, image_listing, iter_images
from reid_ray.edit.verify.attribute_reader import Vocabulary, at_size
from reid_ray.edit.verify.config import TrainVerifierJob, VerifyLimits
from reid_ray.edit.verify.fitting import UNKNOWN, LabelledPictures, error_of, fit_reader
from reid_ray.edit.verify.verifier import save_reader
from reid_ray.errors import DataError
from reid_ray.storage import Counts, JobOutput, read_manifest
from reid_ray.terminal.own_lines import say

MODEL = "model"


def run_train_verifier(config: TrainVerifierJob) -> dict[str, Any]:
    """Run the job; returns the manifest of config.output.path, whose model/ is the verifier.

    Raises:
        DataError: no image, none with attributes, or too few people to hold some out.
    """
    listing = image_listing(config.images)
    inputs = {"images": config.images.path}
    output = JobOutput(
        "train_verifier", config.output.path, config, if_exists=config.output.if_exists, inputs=inputs, contents=listing.contents()
    )
    if (earlier := output.kept()) is not None:
        return earlier
    with output as out:
        data, vocabulary, held_N = read_labelled(config, listing, out.counts)
        if held_N.all() or not held_N.any():
            raise DataError(
                f"{listing.origin}: held_out {config.held_out} leaves {int(held_N.sum())} of {len(data)} pictures out; give more people"
            )
        learnt, other = data.take(np.flatnonzero(~held_N)), data.take(np.flatnonzero(held_N))
        reader = fit_reader(learnt, vocabulary, config.reader, config.fit, seed=config.seed)
        facts = {
            "fitted_on": {
                **config.images.model_dump(mode="json", include={"source", "path", "split", "synthetic"}),
                "pictures": len(learnt),
            },
            "error": error_of(reader, other, sure=VerifyLimits().sure),
        }
        if config.images.source != "synthetic":
            facts["fitted_on"].pop("synthetic")
        save_reader(reader, Path(out.folder) / MODEL, facts)
        out.facts.update(facts)
    manifest = read_manifest(config.output.path)
    read = ", ".join(f"{name} {each['right']:.1%}" for name, each in manifest["facts"]["error"].items())
    say(f"train_verifier: {output.counts} -> {config.output.path}; read rightly on {len(other)} pictures of others: {read}")
    return manifest


def read_labelled(config: TrainVerifierJob, listing: ImageListing, counts: Counts) -> tuple[LabelledPictures, Vocabulary, np.ndarray]:
    """(pictures with codes, attribute -> values in order of their names, which are held out); what cannot be used is counted.

    Raises:
        DataError: no picture says anything.
    """
    pictures, told, who = [], [], []
    for table in iter_images(config.images, listing=listing):
        for row in table.select(["image", UNREAD.name, "attributes", "image_id", "dataset", "person_id", "synthetic"]).to_pylist():
            counts.read += 1
            attributes = _attributes(row["attributes"])
            if row["synthetic"]:
                counts.unused["synthetic"] += 1
            elif not attributes:
                counts.unused["no_attributes"] += 1
            else:
                try:
                    picture = decode_image(row["image"], max_pixels=config.images.max_pixels, unread=row[UNREAD.name])
                except BadImageError as error:
                    counts.unused[error.reason] += 1
                    continue
                pictures.append(at_size(picture, config.reader))
                told.append(attributes)
                who.append(f"{row['dataset'] or ''}\0{row['person_id']}" if row["person_id"] is not None else f"\0{row['image_id']}")
    if not pictures:
        raise DataError(f"{listing.origin}: no picture says in its attributes what it shows ({counts}); give a table whose images do")
    counts.written = len(pictures)
    seen = Counter((name, value) for each in told for name, value in each.items())
    vocabulary = {name: sorted(value for of, value in seen if of == name) for name in sorted({name for name, _ in seen})}
    vocabulary = {name: values for name, values in vocabulary.items() if len(values) > 1}
    codes = {
        name: np.array([values.index(each[name]) if name in each else UNKNOWN for each in told], np.int64)
        for name, values in vocabulary.items()
    }
    limit = int(config.held_out * 2**64)
    held_N = np.array(
        [int.from_bytes(hashlib.blake2b(f"{config.seed}\0{each}".encode(), digest_size=8).digest(), "big") < limit for each in who]
    )
    return LabelledPictures(np.stack(pictures), codes), vocabulary, held_N


def _attributes(text: str | None) -> dict[str, str]:
    """What a picture's entry says in words; numbers and lists are no values."""
    try:
        found = json.loads(text) if text is not None else None
    except ValueError:
        return {}
    return {name: value for name, value in found.items() if isinstance(value, str)} if isinstance(found, dict) else {}
