"""Streaming statistics of a data set's columns: a few numbers per image and caption, and examples of what was wrong.

Compact columns, so that millions of rows fit in memory; pictures and texts are not kept. Read by checks.py.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from reid_ray.data.failures import Failures
from reid_ray.data.fetch import Loaded
from reid_ray.data.formats.registry import Caption, ImageRecord, Skipped
from reid_ray.data.lint.caption_text import caption_fault, normalised
from reid_ray.data.lint.token_counts import TokenCounts
from reid_ray.storage.regular_files import printable

UNKNOWN = -(1 << 62)  # in place of a person_id that is null


@dataclass(frozen=True)
class Example:
    """One case of a fault: the images it concerns, and a few words."""

    image_ids: tuple[str, ...]
    text: str


@dataclass
class Faults:
    """How often something occurred, and the first few cases."""

    limit: int
    count: int = 0
    examples: list[Example] = field(default_factory=list)

    def add(self, image_ids: tuple[str, ...], text: str) -> None:
        """Count one case."""
        self.count += 1
        if len(self.examples) < self.limit:
            self.examples.append(Example(tuple(map(printable, image_ids)), printable(text[:300])))


@dataclass(frozen=True)
class Columns:
    """One number per usable image (N) or usable caption (M)."""

    digest_N: np.ndarray  # uint64: 8 bytes of the image's SHA-256
    hash_NB: np.ndarray  # uint8 [N, 16]: perceptual hashes
    person_N: np.ndarray  # int64, UNKNOWN where null
    split_N: np.ndarray  # int16: index into Rows.splits
    caption_digest_M: np.ndarray  # uint64: digest of the normalised text
    caption_image_M: np.ndarray  # int64: index into Rows.image_ids


class Rows:
    """The usable images and captions of a data set as columns, and the faults met on the way."""

    def __init__(self, *, script: str, examples: int, tokens: TokenCounts) -> None:
        self.limit = examples
        self.image_ids: list[str] = []
        self.datasets: Counter[str] = Counter()
        self.splits: list[str] = []  # split names; split_N counts from here
        self.faults: dict[str, Faults] = {}  # rule -> faults seen while streaming
        self.unusable = Failures()
        self.captions: Counter[str] = Counter()  # usable captions per split
        self.mended: dict[str, Faults] = {}  # code of MENDED -> images in which a reader set that right
        self._script, self.tokens = script, tokens
        self._digest, self._hash = array("Q"), bytearray()
        self._person, self._split = array("q"), array("h")
        self._caption_digest, self._caption_image = array("Q"), array("q")

    def add(self, row: Loaded[bytes] | Skipped) -> None:
        """Remember one image with its captions, or why it cannot be used."""
        if isinstance(row, Skipped):
            self.datasets[printable(row.dataset)] += 1
            self.unusable.add(row)
            self.fault(f"image_{row.reason}", (row.image_id,), row.detail)
            for caption in row.captions:
                self._check_caption(caption, row.image_id)
            return
        record = row.record
        self.datasets[printable(record.dataset)] += 1
        self.image_ids.append(printable(record.image_id))
        self._digest.append(int(row.sha256[:16], 16))
        self._hash.extend(row.found)
        self._person.append(UNKNOWN if record.person_id is None else record.person_id)
        self._split.append(self._split_code(printable(record.split or "none")))
        for code in record.mended:
            self.mended.setdefault(code, Faults(self.limit)).add((record.image_id,), code)
        for caption in record.captions:
            self._add_caption(caption, record)

    def fault(self, rule: str, image_ids: tuple[str, ...], text: str) -> None:
        """Count a case of a rule."""
        self.faults.setdefault(rule, Faults(self.limit)).add(image_ids, text)

    def columns(self) -> Columns:
        """The numbers so far, without copies; add nothing while they are in use."""
        return Columns(
            digest_N=np.frombuffer(self._digest, dtype=np.uint64),
            hash_NB=np.frombuffer(self._hash, dtype=np.uint8).reshape(-1, 16),
            person_N=np.frombuffer(self._person, dtype=np.int64),
            split_N=np.frombuffer(self._split, dtype=np.int16),
            caption_digest_M=np.frombuffer(self._caption_digest, dtype=np.uint64),
            caption_image_M=np.frombuffer(self._caption_image, dtype=np.int64),
        )

    def split_codes(self, *names: str) -> list[int]:
        """What split_N says for these splits."""
        return [code for code, name in enumerate(self.splits) if name in names]

    def _split_code(self, name: str) -> int:
        if name not in self.splits:
            self.splits.append(name)
        return self.splits.index(name)

    def _add_caption(self, caption: Caption, record: ImageRecord) -> None:
        if not self._check_caption(caption, record.image_id):
            return
        self.captions[printable(record.split or "none")] += 1
        digest = hashlib.blake2b(normalised(caption["text"]).encode("utf-8", "backslashreplace"), digest_size=8).digest()
        self._caption_digest.append(int.from_bytes(digest, "little"))
        self._caption_image.append(len(self.image_ids) - 1)

    def _check_caption(self, caption: Caption, image_id: str) -> bool:
        """Whether the caption is there; a caption that is there but looks wrong is a fault and stays."""
        if caption["status"] == "failed" or caption["text"] is None:
            rule, _, detail = str(caption.get("reason")).partition(": ")
            self.fault(rule, (image_id,), detail or rule)
            return False
        rule_broken = caption_fault(caption["text"], self._script)
        if rule_broken is not None:
            self.fault(rule_broken, (image_id,), caption["text"])
        text = printable(caption["text"])
        # tokenizers make no more tokens than bytes, but for their marks
        if len(text.encode()) + 2 > self.tokens.context and (count := self.tokens.count(text)) > self.tokens.context:
            self.fault("caption_long", (image_id,), f"{count} tokens: {text}")
        return True
