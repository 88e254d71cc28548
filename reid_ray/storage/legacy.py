"""Detection of format-0 outputs, whose versions kept no mark: they are told from anybody else's folder by their manifest."""

from __future__ import annotations

from pathlib import Path

from reid_ray.storage.files import read_json

_MANIFEST = "manifest.json"
_KEYS = frozenset({"job", "run_id", "config", "fingerprint", "counts", "facts", "timings", "started", "environment"})


def is_legacy_output(folder: Path) -> bool:
    """Whether the folder's manifest.json is one that only a job of this project writes."""
    try:
        manifest = read_json(folder / _MANIFEST)
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and manifest.keys() >= _KEYS
