"""Content-addressed ids of captions: a content hash of image, instruction, model and sampling. A row is made anew only if one changes.

Pure; knows no engine. Two runs that would generate the same caption give it the same id, so runs can be compared, resumed and
merged; the image's id is part of it, so that two files with the same content have two captions.
"""

from __future__ import annotations

import hashlib
import json

from reid_ray.caption.config import SamplingConfig

_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))  # made once: json.dumps would make one for each of millions of keys


def digest(*parts: object) -> str:
    """32 hex digits of the parts; a changed, moved or split part changes it."""
    return hashlib.sha256(_JSON.encode(parts).encode()).hexdigest()[:32]


def prompt_fingerprint(instruction: str, sampling: SamplingConfig) -> str:
    """16 hex digits of what is asked and how the answer is drawn; the `prompt_fingerprint` column."""
    return digest("prompt", instruction, sampling.model_dump(mode="json"))[:16]


def caption_id(*, image_id: str, image_sha256: str | None, instruction_id: str, model: str, revision: str, prompt: str) -> str:
    """Id of an image's caption; `prompt` is its prompt_fingerprint."""
    return digest("caption", image_id, image_sha256, instruction_id, model, revision, prompt)


def rewrite_id(*, parent_id: str, number: int, model: str, revision: str, prompt: str) -> str:
    """Id of the `number`-th rewrite of the caption `parent_id`."""
    return digest("rewrite", parent_id, number, model, revision, prompt)


def derived_seed(seed: int, *about: object) -> int:
    """A seed for each request, derived by hash, below 2**31: in a batch that shares one seed, all samples would be alike."""
    return int(digest("seed", seed, *about)[:8], 16) >> 1


def falls_in_share(key: str, share: float) -> bool:
    """Hash sampling: whether `key` belongs to a random but fixed `share` of all keys; a larger share contains every smaller one."""
    return int(digest("share", key)[:8], 16) < share * 2**32
