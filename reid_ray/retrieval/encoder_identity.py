"""Fingerprint (content hash) and dimension of the encoder in a folder: from its manifest, else by loading it."""

from __future__ import annotations

from reid_ray.errors import DataError
from reid_ray.model.pretrained import LATENT, VISUAL, split_encoder
from reid_ray.storage import MANIFEST, read_manifest


def require_encoder_folder(path: str) -> None:
    """Refuse a path that holds no encoder before any actor starts.

    Raises:
        DataError: there is no such folder, or it is a training run and not the model in it.
    """
    folder, _ = split_encoder(path)
    if not folder.is_dir():
        raise DataError(f"encoder: {folder} is no folder; give the model/ folder that the train or tune job wrote")
    if (folder / "model" / MANIFEST).is_file():
        raise DataError(f"encoder: {folder} is a training run; give the model in it, {folder / 'model'}")


def require_texts(path: str) -> None:
    """Refuse an encoder that knows no texts where texts are to be embedded, before any actor starts.

    Raises:
        DataError: its feature is the visual one of a multimodal LLM.
    """
    folder, feature = split_encoder(path)
    if feature == VISUAL:
        raise DataError(f"encoder: {path} is a visual encoder and knows no texts; give {folder}#{LATENT}, or search by images")


def texts_trained(path: str) -> bool:
    """Whether a loss brought texts to images in the encoder's space; a multimodal LLM that was tuned without objective.sdm has none."""
    folder, _ = split_encoder(path)
    manifest = read_manifest(folder) if (folder / MANIFEST).is_file() else {}
    if manifest.get("kind") != "mllm":
        return True
    from reid_ray.model.mllm.mllm_encoder import has_text_latents

    return has_text_latents(manifest)


def encoder_identity(path: str) -> tuple[int, str]:
    """(dimension, fingerprint) of the encoder in a folder.

    Raises:
        DataError: the folder holds no encoder.
    """
    require_encoder_folder(path)
    folder, feature = split_encoder(path)
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
