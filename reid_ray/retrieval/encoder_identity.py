"""Which encoder a path names, before any actor loads it: the folder or the commit, there on each node; fingerprint and dimension.

Fingerprint (content hash) and dimension come from the folder's manifest, else by loading it.
"""

from __future__ import annotations

import pyarrow.compute as pc

from reid_ray.config.called import called
from reid_ray.config.common import PoolConfig
from reid_ray.data.seen_rows import seen_by
from reid_ray.data.synthetic.people import DATASET
from reid_ray.errors import DataError
from reid_ray.model.hub_access import hub_commit, is_hub_name, parts_of_name
from reid_ray.model.hub_models import fetch_on_nodes
from reid_ray.model.pretrained import ENCODER_FILES, LATENT, VISUAL, encoder_folder, split_encoder
from reid_ray.records import SEEN_FILE
from reid_ray.runtime import pool_need
from reid_ray.storage import MANIFEST, read_manifest


def pinned_encoder(path: str) -> str:
    """A hub name with the commit that it stands for, NAME@COMMIT, which stays the same encoder; the path of a folder as it is.

    Raises:
        DataError: it is a hub name of which neither this machine's cache nor the hub knows a commit.
    """
    folder, feature = split_encoder(path)
    if folder.is_dir() or not is_hub_name(str(folder)):
        return path
    name, _ = parts_of_name(str(folder))
    return f"{name}@{hub_commit(str(folder), field=called('encoder'))}{f'#{feature}' if feature else ''}"


def located_encoder(path: str) -> str:
    """A path that holds for every process: of a folder the absolute one; a hub name as it is."""
    folder, feature = split_encoder(path)
    if not folder.is_dir() and is_hub_name(str(folder)):
        return path
    return f"{folder.resolve()}{f'#{feature}' if feature else ''}"


def require_encoder(path: str) -> None:
    """Refuse a path that holds no encoder before any actor starts; one of a hub is downloaded to this machine, if it is not there.

    Raises:
        DataError: there is no such folder, it is a training run and not the model in it, or the hub does not give it.
    """
    folder, _ = encoder_folder(path)
    if (folder / "model" / MANIFEST).is_file():
        raise DataError(f"{called('encoder')}: {folder} is a training run; give the model in it, {folder / 'model'}")


def fetch_encoder(path: str, pool: PoolConfig) -> None:
    """Have the encoder of a hub on every node that can hold an actor of `pool`, once each; Ray must be running.

    Raises:
        DataError: the hub does not give it there.
    """
    folder, _ = split_encoder(path)
    if not folder.is_dir() and is_hub_name(str(folder)):
        fetch_on_nodes(str(folder), ENCODER_FILES, pool_need("embed", pool), field=called("encoder"))


def shipped_content(path: str | None) -> dict[str, str]:
    """For JobOutput, of an encoder that ships and is no place of the user's: which one it is in this version; else nothing."""
    return {"encoder": encoder_identity(path)[1]} if path is not None and path.startswith("builtin:") else {}


def require_texts(path: str) -> None:
    """Refuse an encoder that knows no texts where texts are to be embedded, before any actor starts.

    Raises:
        DataError: its feature is the visual one of a multimodal LLM.
    """
    folder, feature = split_encoder(path)
    if feature == VISUAL:
        raise DataError(f"{called('encoder')}: {path} is a visual encoder and knows no texts; give {folder}#{LATENT}, or search by images")


def texts_trained(path: str) -> bool:
    """Whether a loss brought texts to images in the encoder's space; a multimodal LLM that was tuned without objective.sdm has none."""
    folder, _ = encoder_folder(path)
    manifest = read_manifest(folder) if (folder / MANIFEST).is_file() else {}
    if manifest.get("kind") != "mllm":
        return True
    from reid_ray.model.mllm.mllm_encoder import has_text_latents

    return has_text_latents(manifest)


def knows_drawn_people_only(path: str) -> bool:
    """Whether all pictures that the weights were trained on are known, and are of the data set of synthetic people."""
    folder, _ = encoder_folder(path)
    if not (folder / SEEN_FILE).is_file():
        return False
    pictures = 0
    for rows in seen_by(folder):
        of_pictures = rows.filter(pc.fill_null(pc.not_equal(rows["kind"], "text"), True))
        drawn = pc.fill_null(pc.equal(of_pictures["dataset"], DATASET), False)
        if of_pictures.num_rows and not pc.all(drawn).as_py():
            return False
        pictures += of_pictures.num_rows
    return pictures > 0


def encoder_identity(path: str) -> tuple[int, str]:
    """(dimension, fingerprint) of the encoder in a folder or of a hub.

    Raises:
        DataError: there is no such folder, it holds no encoder, or the hub does not give it.
    """
    require_encoder(path)
    folder, feature = encoder_folder(path)
    if (folder / MANIFEST).is_file():
        manifest = read_manifest(folder)
        if manifest.get("kind") == "mllm":
            from reid_ray.model.mllm.mllm_encoder import identity_of_tuned

            return identity_of_tuned(manifest, feature or LATENT)
        if "dim" in manifest and "fingerprint" in manifest:
            return int(manifest["dim"]), str(manifest["fingerprint"])
    from reid_ray.model.pretrained import load_encoder

    encoder = load_encoder(path)
    return encoder.dim, encoder.fingerprint
