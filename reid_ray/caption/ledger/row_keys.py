"""Content-addressed cache keys of the rows that an image should end in: a key changes with whatever the row's text depends on.

Pure; knows configuration, ids and instructions, no engine and no disk. The ledger finds a row again by its key alone, so a key
covers more than caption_id does: the sections of the configuration that shape an answer (all of them but those listed below as
not part of a key, so that an option added later counts until it is listed), and the whole chain of templates that were tried.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from reid_ray.caption.config import CaptionerConfig, FaithfulnessConfig, RewriterConfig
from reid_ray.caption.ledger.content_keys import caption_id, digest, falls_in_share, prompt_fingerprint, rewrite_id
from reid_ray.caption.prompts import REWRITE, Instruction, dynamic_instruction, fingerprint_text, static_instruction

KEY_BYTES = 16
# Raise it when other answers pass for captions, or other rewrites for faithful ones, than before: cleaning, validation, agreement.
RULES_VERSION = 1
# What an answer does not depend on, or what a row's own identity holds already.
NOT_IN_KEY: dict[str, Any] = {
    "engine": {
        "max_model_len",
        "max_num_seqs",
        "kv_cache_mb",
        "gpu_memory_utilization",
        "tensor_parallel_size",
        "enforce_eager",
        "enable_prefix_caching",
        "block_size",
        "admit_together",
        "prepared_mb",
        "prepare_processes",
        "own_process",
    },
    "model": True,
    "adapter": True,  # by its content, in the revision
    "revision": True,
    "instruction_first": True,  # in the prompt's fingerprint
    "sampling": True,
    "pool": True,
}
# Options that came when there were ledgers already. At these values all is done as before, and they are no part of a key: captions that
# were made before are found again.
AS_BEFORE: dict[str, Any] = {"shrink": "reference"}


def key_of(*parts: object) -> bytes:
    """16 bytes that change with any part."""
    return bytes.fromhex(digest(*parts))


@dataclass(frozen=True)
class CaptionRequest:
    """A caption that the configuration asks for: its id, and the keys under which the ledger may hold it.

    A dynamic caption that the k-th template gave lies under keys[k - 1], one that no template gave under the last key.
    """

    kind: str
    caption_id: str
    instruction_ids: tuple[str, ...]
    keys: tuple[bytes, ...]


@dataclass(frozen=True)
class ImageAsk:
    """What is asked of one image; travels with its row from where it was decided to the engine.

    stand_in: the static caption that is asked for if a dynamic one among `requests` fails.
    """

    requests: tuple[CaptionRequest, ...]
    stand_in: CaptionRequest | None

    def column_value(self) -> dict[str, Any]:
        """For a column of ASK_TYPE."""
        return asdict(self)

    @classmethod
    def from_column(cls, value: Mapping[str, Any]) -> ImageAsk:
        """Of what such a column holds."""
        stand_in = value["stand_in"]
        return cls(tuple(map(_request_in, value["requests"])), None if stand_in is None else _request_in(stand_in))


_REQUEST_TYPE = pa.struct(
    [
        ("kind", pa.string()),
        ("caption_id", pa.string()),
        ("instruction_ids", pa.list_(pa.string())),
        ("keys", pa.list_(pa.binary(KEY_BYTES))),
    ]
)
ASK_TYPE = pa.struct([("requests", pa.list_(_REQUEST_TYPE)), ("stand_in", _REQUEST_TYPE)])


def _request_in(value: Mapping[str, Any]) -> CaptionRequest:
    return CaptionRequest(value["kind"], value["caption_id"], tuple(value["instruction_ids"]), tuple(value["keys"]))


class CaptionRecipe:
    """The captions that one captioner is to make of an image, as requests with keys.

    Args:
        config: the captioner's section.
        revision: what identifies its weights.
        templates: id -> template of the dynamic instruction; None takes this project's own.
        max_pixels: an image whose header claims more is not decoded.
    """

    def __init__(self, config: CaptionerConfig, *, revision: str, templates: Mapping[str, str] | None, max_pixels: int) -> None:
        self._config, self._revision, self._templates = config, revision, templates
        as_before = {name: True for name, value in AS_BEFORE.items() if getattr(config, name) == value}
        excluded = {**NOT_IN_KEY, **as_before, "instructions": True, "templates": True, "template_tries": True}
        self.digest = digest("captioner", RULES_VERSION, config.model_dump(mode="json", exclude=excluded), max_pixels)
        self.stage = digest(self.digest, config.model, revision, config.sampling.model_dump(mode="json"))  # one engine's work
        self._prompts: dict[str, str] = {}  # instruction id -> prompt fingerprint; computing it anew would cost most of the time

    def requests(self, image_id: str, image_sha256: str | None) -> list[CaptionRequest]:
        """One caption per kind of instruction, in the configuration's order."""
        return [self._request(kind, image_id, image_sha256) for kind in self._config.instructions]

    def fallback(self, image_id: str, image_sha256: str | None) -> CaptionRequest | None:
        """The static caption that stands in for a failed dynamic one; None where a static one is asked for anyway."""
        return None if "static" in self._config.instructions else self._request("static", image_id, image_sha256)

    def _request(self, kind: str, image_id: str, image_sha256: str | None) -> CaptionRequest:
        chain = [static_instruction()] if kind == "static" else self._chain(image_id, image_sha256)
        prompts = [self._prompt(instruction) for instruction in chain]
        name = caption_id(
            image_id=image_id,
            image_sha256=image_sha256,
            instruction_id=chain[0].id,
            model=self._config.model,
            revision=self._revision,
            prompt=prompts[0],
        )
        keys = tuple(key_of(name, self.digest, prompts[: k + 1]) for k in range(len(chain)))
        return CaptionRequest(kind, name, tuple(instruction.id for instruction in chain), keys)

    def _chain(self, image_id: str, image_sha256: str | None) -> list[Instruction]:
        drawn_by = f"{self._config.sampling.seed} {image_sha256 or image_id}"
        chain: list[Instruction] = []
        for _ in range(self._config.template_tries):
            tried = [instruction.id for instruction in chain]
            chain.append(dynamic_instruction(drawn_by, templates=self._templates, tried=tried))
        return chain

    def _prompt(self, instruction: Instruction) -> str:
        if instruction.id not in self._prompts:
            self._prompts[instruction.id] = prompt_fingerprint(
                fingerprint_text(instruction.text, instruction_first=self._config.instruction_first), self._config.sampling
            )
        return self._prompts[instruction.id]


class RewriteRecipe:
    """The rewrites that are to be made of a caption, with their keys: none, or `count`.

    The thresholds of faithfulness belong to a rewrite's key: under others another try would have been kept. Captions do not depend
    on them.
    """

    def __init__(self, config: RewriterConfig, faithfulness: FaithfulnessConfig, *, revision: str, scorer_revision: str) -> None:
        self._config, self._revision = config, revision
        excluded = {**NOT_IN_KEY, "share": True, "count": True}
        section, thresholds = config.model_dump(mode="json", exclude=excluded), faithfulness.model_dump(mode="json", exclude={"device"})
        self.digest = digest("rewriter", RULES_VERSION, section, thresholds, scorer_revision)
        self.stage = digest(self.digest, config.model, revision, config.sampling.model_dump(mode="json"))
        self._prompt = prompt_fingerprint(fingerprint_text(REWRITE, instruction_first=config.instruction_first), config.sampling)

    @property
    def count(self) -> int:
        """Rewrites per picked caption; 0 if none is picked."""
        return self._config.count if self._config.share else 0

    def keys(self, parent_id: str, parent_key: bytes) -> list[bytes]:
        """Keys of the rewrites of a caption that is there; none if it falls out of the share."""
        if not falls_in_share(parent_id, self._config.share):
            return []
        return [self._key(parent_id, parent_key, number)[1] for number in range(self._config.count)]

    def keys_by_id(self, parent_id: str, parent_key: bytes) -> dict[str, bytes]:
        """caption_id -> key of the rewrites of a caption."""
        return dict(self._key(parent_id, parent_key, number) for number in range(self._config.count))

    def _key(self, parent_id: str, parent_key: bytes, number: int) -> tuple[str, bytes]:
        name = rewrite_id(parent_id=parent_id, number=number, model=self._config.model, revision=self._revision, prompt=self._prompt)
        return name, key_of(name, parent_key.hex(), self.digest)
