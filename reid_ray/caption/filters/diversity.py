"""Diversity metrics (distinct-n, self-BLEU) of a set of captions, with templates used, repeated captions and lengths.

Pure numbers over texts; not where they come from. Everything streams. distinct-n and self-BLEU depend on how many captions are looked
at, so both are taken on a sample of fixed size, drawn by digest of the caption's key: the same rows in any order give the same sample.
"""

from __future__ import annotations

import hashlib
import heapq
import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from reid_ray.caption.filters.validation import words_of

MAX_N = 4
_ZERO_MATCHES = 0.1  # stands for no match at all, so that one missing order does not make BLEU zero (Chen and Cherry 2014, method 1)


@dataclass(frozen=True)
class Diversity:
    """The numbers of one set of captions."""

    captions: int
    repeated: int  # captions whose exact text an earlier one has
    sampled: int  # captions that distinct_n and self_bleu look at
    distinct_n: dict[int, float]  # n -> distinct n-grams / n-grams; higher is more varied
    self_bleu: float  # mean BLEU-4 of a caption against all others; lower is more varied
    words_mean: float
    words_histogram: dict[int, int]  # number of words -> captions
    template_counts: dict[str, int]
    template_coverage: float | None  # templates used / templates known; None if no caption has a template
    template_entropy: float | None  # entropy of the templates used / entropy of even use, in [0, 1]

    def as_dict(self) -> dict[str, Any]:
        """For JSON, keys as strings."""
        return {
            **asdict(self),
            "distinct_n": {str(n): round(value, 6) for n, value in self.distinct_n.items()},
            "words_histogram": {str(n): count for n, count in sorted(self.words_histogram.items())},
            "self_bleu": round(self.self_bleu, 6),
        }


class DiversityMeter:
    """Add captions as they come, ask once: `meter.add(keys, texts, templates)`, `meter.result()`.

    Memory: eight bytes a caption for repeats, and the sample.

    Args:
        sample: captions for distinct-n and self-BLEU; sets are comparable only at the same sample size.
        seed: of the sample.
        templates: ids of all templates that could have been used; empty where coverage has no meaning.
    """

    def __init__(self, *, sample: int = 1000, seed: int = 0, templates: Iterable[str] = ()) -> None:
        self._sample_size, self._seed = sample, seed
        self._templates: Counter[str] = Counter()
        self._known = frozenset(templates)
        self._kept: list[tuple[int, str, str]] = []  # a max-heap by digest: the smallest digests stay
        self._digests: list[np.ndarray] = []
        self._words: Counter[int] = Counter()

    def add(self, keys: Sequence[str], texts: Sequence[str], templates: Sequence[str | None] | None = None) -> None:
        """Add captions; `keys` identify them (caption_id), `templates` name the template of each, None where there was none."""
        self._digests.append(np.fromiter((_digest(text) for text in texts), np.uint64, len(texts)))
        for key, text in zip(keys, texts, strict=True):
            self._words[len(words_of(text))] += 1
            item = (-_digest(f"{self._seed} {key}"), key, text)
            if len(self._kept) < self._sample_size:
                heapq.heappush(self._kept, item)
            elif item > self._kept[0]:
                heapq.heapreplace(self._kept, item)
        self._templates.update(template for template in templates or () if template is not None)

    def result(self) -> Diversity:
        """The numbers so far; of an empty set, zeros."""
        digests = np.concatenate(self._digests) if self._digests else np.zeros(0, np.uint64)
        texts = [text for _, _, text in sorted(self._kept, reverse=True)]
        counted = sum(self._words.values())
        return Diversity(
            captions=len(digests),
            repeated=len(digests) - len(np.unique(digests)),
            sampled=len(texts),
            distinct_n={n: distinct_n(texts, n) for n in range(1, MAX_N + 1)},
            self_bleu=self_bleu(texts),
            words_mean=round(sum(n * count for n, count in self._words.items()) / counted, 3) if counted else 0.0,
            words_histogram=dict(self._words),
            template_counts=dict(sorted(self._templates.items())),
            template_coverage=len(self._known & set(self._templates)) / len(self._known) if self._known and self._templates else None,
            template_entropy=entropy_share(self._templates, len(self._known)) if self._known and self._templates else None,
        )


def distinct_n(texts: Iterable[str], n: int) -> float:
    """Distinct n-grams / n-grams over all texts (Li et al. 2016); 0 if there is none."""
    seen: set[tuple[str, ...]] = set()
    total = 0
    for text in texts:
        grams = _grams(words_of(text), n)
        total += sum(grams.values())
        seen.update(grams)
    return len(seen) / total if total else 0.0


def self_bleu(texts: Sequence[str], *, max_n: int = MAX_N) -> float:
    """Mean BLEU of each text against all the others as references (Zhu et al. 2018, Texygen), in [0, 1]; 0 for fewer than two texts.

    Uniform weights over 1- to max_n-grams, no match at an order counted as 0.1 matches, brevity penalty by the closest length. Linear
    in the number of words: a clipped count needs only the two largest counts of an n-gram over all texts.
    """
    words = [words_of(text) for text in texts]
    if len(words) < 2:
        return 0.0
    lengths = sorted(len(w) for w in words)
    largest = [_two_largest(words, n) for n in range(1, max_n + 1)]
    return sum(_bleu(index, w, lengths, largest) for index, w in enumerate(words)) / len(words)


def entropy_share(counts: Mapping[str, int], known: int) -> float:
    """Entropy of a count distribution over that of even use of `known` values: 1 is even, 0 is one value only."""
    total = sum(counts.values())
    if known < 2 or not total:
        return 0.0
    return -sum(c / total * math.log(c / total) for c in counts.values() if c) / math.log(known)


def _bleu(index: int, words: list[str], lengths: list[int], largest: list[dict[tuple[str, ...], tuple[int, int, int]]]) -> float:
    if not words:
        return 0.0
    logs = 0.0
    for n, table in enumerate(largest, 1):
        grams = _grams(words, n)
        matches = 0
        for gram, count in grams.items():
            most, owner, second = table[gram]
            matches += min(count, second if owner == index else most)
        logs += math.log((matches or _ZERO_MATCHES) / max(1, sum(grams.values())))
    closest = _closest_other(lengths, len(words))
    brevity = 1.0 if len(words) >= closest else math.exp(1 - closest / len(words))
    return brevity * math.exp(logs / len(largest))


def _two_largest(texts: Sequence[list[str]], n: int) -> dict[tuple[str, ...], tuple[int, int, int]]:
    """n-gram -> (largest count in one text, that text's index, largest count in any other text)."""
    table: dict[tuple[str, ...], tuple[int, int, int]] = {}
    for index, words in enumerate(texts):
        for gram, count in _grams(words, n).items():
            most, owner, second = table.get(gram, (0, -1, 0))
            table[gram] = (count, index, most) if count > most else (most, owner, max(second, count))
    return table


def _closest_other(lengths: list[int], own: int) -> int:
    """The length closest to `own` in a sorted list from which one `own` is taken out; of two equally close, the shorter."""
    at = bisect_left(lengths, own)
    others = [lengths[i] for i in (at - 1, at + 1) if 0 <= i < len(lengths)]
    return min(others, key=lambda length: (abs(length - own), length))


def _grams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
