"""Which captioners have only ever seen drawn people, and what is said beside what they say of others.

The captioner that ships, and every other that the captioner job makes, learnt from synthetic people alone: the manifest.json of its folder
names that job. Knows names and manifests; no weights.
"""

from __future__ import annotations

from pathlib import Path

from reid_ray.model.model_files import resolve_model
from reid_ray.storage import MANIFEST, read_object

REMARK = "a guess: by a model that has only seen drawn people"
_ADAPTED = "+"  # between the revisions of a base and its adapter


def knows_drawn_people_only(model: str | None, revision: str | None) -> bool:
    """Whether a caption's model learnt from drawn people alone; one that an adapter changed has learnt from something else.

    Args:
        model: as the CAPTIONS row names it; a folder that is no longer there is not known to.
        revision: of that row.
    """
    if model is None or _ADAPTED in (revision or ""):
        return False
    folder = Path(resolve_model(model) if model.startswith("builtin:") else model).expanduser()
    manifest = folder / MANIFEST
    return manifest.is_file() and read_object(manifest, remedy="make the model again").get("job") == "captioner"
