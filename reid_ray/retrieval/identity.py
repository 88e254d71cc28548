"""Which encoder lies in a folder, found out as cheaply as possible: from its manifest, else by loading it."""

from __future__ import annotations

from pathlib import Path

from reid_ray.errors import DataError
from reid_ray.storage import MANIFEST, read_manifest


def require_encoder_folder(path: str) -> None:
    """Refuse a path that holds no encoder before any actor starts.

    Raises:
        DataError: there is no such folder, or it is a training run and not the model in it.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise DataError(f"encoder: {folder} is no folder; give the model/ folder that the train job wrote")
    if (folder / "model" / MANIFEST).is_file():
        raise DataError(f"encoder: {folder} is a training run; give the model in it, {folder / 'model'}")


def encoder_identity(path: str) -> tuple[int, str]:
    """(dimension, fingerprint) of the encoder in a folder.

    Raises:
        DataError: the folder holds no encoder.
    """
    require_encoder_folder(path)
    if (Path(path) / MANIFEST).is_file():
        manifest = read_manifest(path)
        if "dim" in manifest and "fingerprint" in manifest:
            return int(manifest["dim"]), str(manifest["fingerprint"])
    from reid_ray.model.loading import load_encoder

    encoder = load_encoder(path)
    return encoder.dim, encoder.fingerprint
