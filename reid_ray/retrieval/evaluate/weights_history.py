"""What the folder of an encoder says of its past, set against what is scored: how its weights were chosen, and what they have seen.

Knows manifests and tables; not vectors or ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from reid_ray.config.paths import expanded
from reid_ray.data.seen_rows import seen_by, unknown_rows
from reid_ray.model.pretrained import encoder_folder
from reid_ray.records import SEEN_FILE
from reid_ray.retrieval.embed.features import Features
from reid_ray.retrieval.evaluate.config import EvaluateJob
from reid_ray.retrieval.evaluate.exposure import exposure
from reid_ray.retrieval.evaluate.shown import Pictures, copies_across, item_rows, pictures_of, read_pictures
from reid_ray.storage import MANIFEST, read_manifest


def selection_of(encoder: str | None) -> dict[str, Any]:
    """What the weights were selected on, with which seed: from the manifests that training wrote; nulls where nothing is known.

    marks: those of the split that chose them, against what they learnt from (exposure.MARKS).
    """
    known: dict[str, Any] = dict.fromkeys(("selected_on", "selection", "step", "marks", "training_seed", "trained_on"))
    if encoder is None:
        return known
    folder, _ = encoder_folder(encoder)
    if (folder / MANIFEST).is_file():
        facts = read_manifest(folder).get("facts", {})
        known.update({name: facts[name] for name in ("selected_on", "selection", "step") if name in facts})
        known["marks"] = facts.get("exposure")
    if (manifest := _run_manifest(folder)) is not None:
        known["training_seed"] = manifest["config"]["batches"]["seed"]
        known["trained_on"] = manifest["inputs"]
        exposed = manifest.get("facts", {}).get("validation_exposure")  # an older run does not say, nor do its weights
        if known["marks"] is None and exposed is not None:
            known["marks"] = exposed["marks"]
    return known


def exposure_of_score(config: EvaluateJob, queries: Features, gallery: Features) -> dict[str, Any]:
    """What the weights have seen of gallery and queries: `exposure` of what the evaluate job scored."""
    folder = None if config.encoder is None else encoder_folder(config.encoder)[0]
    recorded = folder is not None and (folder / SEEN_FILE).is_file()
    by_image = config.protocol != "text_to_image"
    shown = asked = None
    if config.images is not None and (recorded or by_image):  # else nothing is to be compared with their pixels
        read: dict[str | None, Pictures | None] = {}
        sides = {"gallery": (config.split, gallery), **({"queries": (config.query_split or config.split, queries)} if by_image else {})}
        for split, _ in sides.values():
            if split not in read:
                read[split] = read_pictures(config.images, split, max_pixels=config.max_pixels)
        found = {name: pictures_of(side.items, table) for name, (split, side) in sides.items() if (table := read[split]) is not None}
        shown, asked = found.get("gallery"), found.get("queries")
    return exposure(
        chain(seen_by(folder) if folder is not None else [unknown_rows(None)], _of_unsigned_vectors(config, queries, gallery)),
        shown.rows if shown is not None else item_rows(gallery.items),
        asked.rows if asked is not None else item_rows(queries.items),
        copies=copies_across(asked, shown) if asked is not None and shown is not None else None,
        same_table=None if recorded or folder is None else _same_table(config, folder),
    )


def _of_unsigned_vectors(config: EvaluateJob, queries: Features, gallery: Features) -> list[pa.Table]:
    """What stands for given vectors that do not say which encoder made them: the record of the encoder that is named is none of theirs."""
    given = ((config.query_embeddings, queries), (config.gallery_embeddings, gallery))
    unsigned = config.encoder is not None and any(path is not None and not side.encoder_fingerprints for path, side in given)
    return [unknown_rows("the maker of vectors without encoder_fingerprint")] if unsigned else []


def selected_elsewhere(found: Mapping[str, Any]) -> bool | None:
    """Whether the weights were trained and chosen on other people, by what training recorded of all they have seen; None: unknown.

    The name of the split that chose them does not tell: what is called test here may have been called train there.
    """
    if "SEEN" in found["marks"]:
        return False
    return None if {"OVERLAP", "TEXTS", "UNKNOWN"} & set(found["marks"]) else True


def _run_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of the training run whose model/ a folder is."""
    run = folder.resolve().parent
    manifest = read_manifest(run) if (run / MANIFEST).is_file() else {}
    return manifest if manifest.get("job") in {"train", "tune"} else None


def _same_table(config: EvaluateJob, folder: Path) -> str | None:
    """Of weights that recorded nothing: a clause if their run names the images that are scored as what it learnt from or was chosen on."""
    manifest = _run_manifest(folder)
    if manifest is None or config.images is None or "images" not in manifest["config"]:
        return None
    own = manifest["config"]["images"]
    splits = {name: own[name] for name in ("train_split", "val_split") if name in own}
    if Path(expanded(str(own["path"]))).resolve() != Path(expanded(config.images)).resolve():
        return None
    for scored in {config.split, config.query_split or config.split}:
        for name, split in splits.items():
            if scored is None or (split is not None and scored == split):
                what = "learnt from" if name == "train_split" else "was chosen on"
                return f"by its manifest the training run {what} {'images' if split is None else f'split {split}'} of this very table"
    return None
