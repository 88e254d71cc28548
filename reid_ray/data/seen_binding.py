"""Which weights a table of SEEN is of: their fingerprint stands in its schema, so that it vouches for no others that come to lie beside it.

Loading weights compares them with the fingerprint in the manifest beside them, so what is compared here is that. Knows manifests and
schemas; not rows or models.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from reid_ray.records import SEEN
from reid_ray.storage import MANIFEST, read_manifest

_WEIGHTS = b"reid_ray.weights"


def weights_at(folder: Path) -> str | None:
    """The fingerprint of the weights in a folder, as the manifest names it that lies beside them; None: there is none, or it names none."""
    manifest = read_manifest(folder) if (folder / MANIFEST).is_file() else {}
    if manifest.get("job") == "merge" or manifest.get("kind") == "editor":
        return _text(manifest.get("facts", {}).get("weights"))
    return _text(manifest.get("fingerprint")) if manifest.get("kind") in {"dual-encoder", "mllm"} else None


def bound_schema(fingerprint: str | None) -> pa.Schema:
    """SEEN, of the weights of this fingerprint."""
    return SEEN if fingerprint is None else SEEN.with_metadata({**SEEN.metadata, _WEIGHTS: fingerprint.encode()})


def bound_to(file: Path) -> str | None:
    """The fingerprint of the weights that a table of SEEN is of; None: it names none, as those of older versions."""
    named = (pq.read_schema(file).metadata or {}).get(_WEIGHTS)
    return None if named is None else named.decode()


def _text(named: object) -> str | None:
    return named if isinstance(named, str) else None
