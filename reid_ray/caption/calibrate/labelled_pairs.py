"""Labelled pairs for calibration: (original, rewrite) with the truth of whether an attribute changed.

Made from synthetic people, whose truth is known. Of human pairs the annotator says which attributes a caption names and which of them is
changed, so these labels owe nothing to the parser of attributes that the calibrated filter reads by. A language model's rewrite is read by
that parser and compared with the person, where the filter compares it with the original: what the parser misreads goes unseen there.
Knows texts and truth; no model.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reid_ray.config.common import SyntheticConfig
from reid_ray.config.yaml_tree import read_config_text
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.data.synthetic.sentences import Annotator
from reid_ray.data.synthetic.traits import ATTRIBUTES, NONE
from reid_ray.data.synthetic.truth_score import read_claims, score_caption
from reid_ray.errors import ConfigError, DataError

_WORDINGS = 24  # tries to word a person so that exactly the attributes of the original are named
SAME, CHANGED, LOSSY = "same", "changed", "lossy"


@dataclass(frozen=True)
class LabelledPair:
    """A labelled pair.

    label: same (a true paraphrase: all attributes of the original, none else), changed (at least one attribute is not true of the
    person), lossy (nothing wrong, but something left out: neither a paraphrase nor a contradiction, counted by itself).
    """

    original: str
    rewrite: str
    label: str
    source: str  # human: worded afresh by another annotator; edit: one word group replaced; rewriter: a language model's; file: given
    person: int  # pairs of one person go to the same half
    note: str = ""  # which attribute changed


def human_pairs(config: SyntheticConfig) -> Iterator[LabelledPair]:
    """For each person up to three pairs: a paraphrase, an afresh worded caption of one changed attribute, and the smallest edit of one.

    The changed attribute is drawn evenly from those that the original names.
    """
    for person, truth in enumerate(SyntheticPeople(config).attributes()):
        rng = random.Random(f"{config.seed} pairs {person}")
        seed = rng.getrandbits(32)
        original, named = Annotator(random.Random(seed)).write_and_name(truth)
        candidates = sorted(name for name in named if truth.get(name, NONE) not in (NONE, "plain"))
        if not candidates:
            continue
        name = rng.choice(candidates)
        value = rng.choice([value for value in ATTRIBUTES[name] if value not in (truth[name], NONE, "plain")])
        changed = {**truth, name: value}
        note = f"{name}: {truth[name]} -> {value}"
        paraphrase = _worded(truth, named, original, rng)
        if paraphrase is not None:
            yield LabelledPair(original, paraphrase, SAME, "human", person)
        reworded = _worded(changed, named, original, rng)
        if reworded is not None:
            yield LabelledPair(original, reworded, CHANGED, "human", person, note)
        # The same stream of random numbers words the changed person the same way, but for the attribute.
        edited, also_named = Annotator(random.Random(seed)).write_and_name(changed)
        if edited != original and also_named == named and _one_change(original, edited):
            yield LabelledPair(original, edited, CHANGED, "edit", person, note)


def judge_rewrite(original: str, rewrite: str, truth: Mapping[str, str], person: int) -> LabelledPair:
    """Label a language model's rewrite of a true caption by the person's attributes."""
    wrong = score_caption(rewrite, truth).wrong
    if wrong:
        return LabelledPair(original, rewrite, CHANGED, "rewriter", person, "says " + ", ".join(f"{c.attribute}: {c.word}" for c in wrong))
    left_out = sorted(_named(original) - _named(rewrite))
    if left_out:
        return LabelledPair(original, rewrite, LOSSY, "rewriter", person, "leaves out " + ", ".join(left_out))
    return LabelledPair(original, rewrite, SAME, "rewriter", person)


def read_pairs(path: str | Path) -> list[LabelledPair]:
    """Pairs of your own: JSON lines {"original": ..., "rewrite": ..., "label": "same" or "changed"}.

    Raises:
        DataError: names the line that is not such an object.
    """
    pairs = []
    try:
        text = read_config_text(Path(path))
    except ConfigError as error:
        raise DataError(f"{error}, of JSON lines") from None
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines: a text may hold other line breaks, which JSON allows
        if not line.strip():
            continue
        try:
            value: Any = json.loads(line)
            original, rewrite, label = value["original"], value["rewrite"], value["label"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: should be an object with original, rewrite and label ({error!r})") from None
        if not isinstance(original, str) or not isinstance(rewrite, str):
            raise DataError(f"{path}, line {number}: original and rewrite must be texts")
        if label not in (SAME, CHANGED):
            raise DataError(f"{path}, line {number}: label is {label!r}, but must be {SAME!r} or {CHANGED!r}")
        pairs.append(LabelledPair(original, rewrite, label, "file", person=number))
    return pairs


def halves(pairs: Sequence[LabelledPair]) -> tuple[list[LabelledPair], list[LabelledPair]]:
    """(to choose thresholds on, to report on): every second person, so that no caption is in both."""
    return [p for p in pairs if p.person % 2 == 0], [p for p in pairs if p.person % 2 == 1]


def _worded(attributes: Mapping[str, str], named: frozenset[str], original: str, rng: random.Random) -> str | None:
    for _ in range(_WORDINGS):
        text, also_named = Annotator(random.Random(rng.getrandbits(32))).write_and_name(attributes)
        if text != original and also_named == named:
            return text
    return None


def _named(text: str) -> frozenset[str]:
    return frozenset(claim.attribute for claim in read_claims(text))


def _one_change(original: str, edited: str) -> bool:
    """Whether the texts differ in one run of words only: else the random streams drifted apart and it is a fresh wording."""
    a, b = original.lower().split(), edited.lower().split()
    head = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    tail = next((i for i, (x, y) in enumerate(zip(a[head:][::-1], b[head:][::-1], strict=False)) if x != y), min(len(a), len(b)) - head)
    return max(len(a), len(b)) - head - tail <= 4
