"""Template extraction: attribute phrases of captions become slots; the patterns are varied, checked and deduplicated.

Pure text; the slots are those of prompts.py, the phrases those of attributes/parser.py. The rules here give usable templates from any
readable captions; a language model may reword them further (job.py), and what it returns passes the same checks.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reid_ray.attributes.lexicon import AGE, GENDER, modifier_of, noun_of, tokens_of, word_set
from reid_ray.attributes.parser import phrase_spans
from reid_ray.caption.filters.config import ValidationConfig
from reid_ray.caption.filters.validation import Violation, check_caption, words_of
from reid_ray.caption.prompts import SLOTS
from reid_ray.config.typed import TypedReader
from reid_ray.config.yaml_tree import RawScalar, read_yaml
from reid_ray.errors import ConfigError, DataError
from reid_ray.versions import FIELD, check

PERSON = SLOTS["person"]
_SLOT_OF = {"upper": "clothing", "lower": "clothing", "full": "clothing", "shoes": "footwear", "hair": "hair"}
_CARRIED = word_set("bag umbrella phone bottle book camera bicycle stroller")
_PLAIN = {"clothing": "clothes", "footwear": "shoes", "hair": "hair", "accessory": "accessories", "belongings": "belongings"}
_PEOPLE = word_set("person pedestrian individual figure somebody someone adult human people") | {
    word for word in GENDER if word not in word_set("he his him himself she her hers herself")
}
_PRONOUNS = {"his": "their", "her": "their", "he": f"the {PERSON}", "she": f"the {PERSON}", "him": "them", "hers": "theirs"}
_DENIALS = word_set("no not without neither nor")
_SCENE = word_set("camera cameras")  # "the camera shows": who takes the picture, not what is carried
_COPULAS = word_set("is are was were")
OPENINGS = ("In this picture, ", "As can be seen, ", "Here, ", "In view, ", "On a closer look, ")
_ANY_SLOT = re.compile(r"\[[^\]]*\]")
_TOKEN_SLOT = re.compile(r"\[[^\]]*\]|[a-z0-9’'-]+|[^\sa-z0-9]", re.IGNORECASE)
_SLOTS_IN_WORDS = f"its slots are {', '.join(SLOTS.values())}, as they stand here"
_REMEDIES = {"unbalanced": _SLOTS_IN_WORDS, "unknown_slot": _SLOTS_IN_WORDS, "no_person": f"it needs {PERSON}"}
_LIMITS = ValidationConfig(min_words=4, max_words=70)


@dataclass(frozen=True)
class Pattern:
    """A template and where it comes from."""

    text: str
    support: int  # captions that have this pattern
    origin: str  # captions | order | opening | model

    @property
    def id(self) -> str:
        """Digest of the text: a changed template is another one."""
        return "m" + hashlib.sha256(self.text.encode()).hexdigest()[:8]


def extract_pattern(caption: str) -> str:
    """The caption with its attribute phrases replaced by slots; neighbouring phrases of one slot become one. Not yet checked."""
    tokens = tokens_of(caption)
    spans = {span.start: span for span in phrase_spans(tokens)}
    words: list[str] = []
    index = 0
    while index < len(tokens):
        span = spans.get(index)
        if span is not None:
            words += _slotted(tokens[span.start : span.stop], _slot_of(span.slot))
            index = span.stop
            continue
        token = tokens[index]
        if token in _PEOPLE:
            if words[-1:] != [PERSON]:
                words.append(PERSON)
        elif token not in AGE:
            words += _PRONOUNS.get(token, token).split(" ", 1) if token in ("he", "she") else [_PRONOUNS.get(token, token)]
        index += 1
    return _sentence_case(_join_lists(words))


def check_template(text: str) -> Violation | None:
    """Why a template is of no use, or None.

    Codes: unbalanced, unknown_slot, no_person, few_slots, repeated_slot, denied_slot, bare_slots, leftover_attribute, no_sentence, and
    those of validation.check_caption.
    """
    slots = _ANY_SLOT.findall(text)
    counts = Counter(slots)
    bare = _ANY_SLOT.sub(" ", text)
    structural = (
        ("unbalanced", "[" in bare or "]" in bare or "{" in text),
        ("unknown_slot", not set(slots) <= set(SLOTS.values())),
        ("no_person", PERSON not in counts),
        ("few_slots", len(counts) < 3),
        ("repeated_slot", any(count > (2 if slot == PERSON else 1) for slot, count in counts.items())),
        ("denied_slot", re.search(r"\b(?:no|not|without|neither|nor)\s+(?:\w+\s+){0,2}\[", text, re.IGNORECASE) is not None),
        ("bare_slots", len(words_of(bare)) < len(slots) - 1),
        ("no_sentence", not re.search(r"[.!]$", text) or (not text[:1].isupper() and text[:1] != "[")),
    )
    for code, at_fault in structural:
        if at_fault:
            return Violation(code, text[:120])
    failure = check_caption(_ANY_SLOT.sub("something", text), _LIMITS)
    if failure is not None:
        return failure
    left = [token for token in tokens_of(bare) if _names_attribute(token)]
    return Violation("leftover_attribute", ", ".join(left)) if left else None


def mine_patterns(captions: Iterable[str]) -> tuple[list[Pattern], Counter[str]]:
    """Usable patterns of captions, most frequent first, and how many captions were refused by reason."""
    found: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    for caption in captions:
        pattern = extract_pattern(caption)
        failure = check_template(pattern)
        if failure is None:
            found[pattern] += 1
        else:
            rejected[failure.code] += 1
    patterns = [Pattern(text, count, "captions") for text, count in found.items()]
    return sorted(patterns, key=lambda p: (-p.support, p.text)), rejected


def load_templates(path: str | Path) -> dict[str, str]:
    """Id -> template of a templates.yaml: {templates: [{id, text}, ...]}, as the mining job writes it or a person edits it.

    Raises:
        DataError: names the file, the entry and what is wrong with it.
    """
    try:
        tree = read_yaml(Path(path))
    except ConfigError as error:
        raise DataError(f"{error}; templates.yaml of a mine job shows what is meant") from None
    check("templates", TypedReader().value(Any, tree[FIELD], FIELD) if FIELD in tree else None, origin=path)
    entries = tree.get("templates")
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{path}: must hold a list named templates with at least one entry")
    templates: dict[str, str] = {}
    for number, entry in enumerate(entries, 1):
        name, text = (entry.get("id"), entry.get("text")) if isinstance(entry, dict) else (None, None)
        if not isinstance(name, RawScalar) or not isinstance(text, RawScalar) or not name.text or not text.text:
            raise DataError(f"{path}: entry {number} needs an id and a text")
        failure = check_template(text.text)
        if failure is not None:
            raise DataError(f"{path}: template {name.text} is of no use ({failure}); {_REMEDIES.get(failure.code, 'mend or remove it')}")
        if name.text in templates:
            raise DataError(f"{path}: the id {name.text} appears twice; ids tell captions apart")
        templates[name.text] = text.text
    return templates


def vary(pattern: Pattern, rng: random.Random) -> Iterator[Pattern]:
    """The pattern with the slots of its lists in another order, and with another opening."""
    reordered = _reorder_lists(pattern.text, rng)
    if reordered != pattern.text:
        yield Pattern(reordered, 0, "order")
    if re.match(r"(?:The|A|An|This) \[", reordered):
        opening = rng.choice(OPENINGS)
        yield Pattern(opening + reordered[0].lower() + reordered[1:], 0, "opening")


def distinct(patterns: Iterable[Pattern], *, known: Iterable[str] = (), similarity: float) -> tuple[list[Pattern], int]:
    """Patterns that are not too like an earlier one or a `known` template, in order, and how many were dropped.

    Args:
        patterns: the better ones first.
        known: templates that exist already.
        similarity: Jaccard overlap of word pairs, in (0, 1], from which two count as the same.
    """
    kept: list[Pattern] = []
    pairs = [_word_pairs(text) for text in known]
    dropped = 0
    for pattern in patterns:
        own = _word_pairs(pattern.text)
        if any(len(own & other) >= similarity * len(own | other) for other in pairs):
            dropped += 1
            continue
        kept.append(pattern)
        pairs.append(own)
    return kept, dropped


def _slot_of(slot: str) -> str:
    return SLOTS[_SLOT_OF.get(slot, "belongings" if slot in _CARRIED else "accessory")]


def _slotted(phrase: Sequence[str], slot: str) -> list[str]:
    """A phrase as its slot; of "his shoes are white" the statement stays: their shoes are [footwear description]."""
    copula = next((word for word in phrase if word in _COPULAS), None)
    if copula is None or "that" in phrase or "which" in phrase:
        return [slot]
    name = next(key for key, value in SLOTS.items() if value == slot)
    return ["their", _PLAIN[name], "is" if name == "hair" else "are", slot]


def _join_lists(words: Sequence[str]) -> list[str]:
    """Each slot once per list: "[clothing] and [clothing]" -> "[clothing]", "[a], [clothing] and [clothing]" -> "[a] and [clothing]"."""
    joined: list[str] = []
    for word in words:
        joined.append(word)
        if not word.startswith("[") or word == PERSON:
            continue
        start = len(joined) - 1
        while start and (joined[start - 1] in (",", "and") or (joined[start - 1].startswith("[") and joined[start - 1] != PERSON)):
            start -= 1
        if word not in joined[start:-1]:
            continue
        removed = [joined.pop()]
        while joined[-1] in (",", "and"):
            removed.append(joined.pop())
        if "and" in removed and len(joined) > 2 and joined[-2] == "," and joined[-3].startswith("[") and joined[-3] != PERSON:
            joined[-2] = "and"
    return joined


def _sentence_case(words: Sequence[str]) -> str:
    text = re.sub(r"\s+([.,;:!?)])", r"\1", " ".join(word.replace("_", " ") for word in words))
    text = re.sub(r"\b([Aa])n(?= \[)", r"\1", text)
    parts = re.split(r"(?<=[.!?])\s+", text.strip(" ,;"))
    return " ".join(part[:1].upper() + part[1:] for part in parts)


def _reorder_lists(text: str, rng: random.Random) -> str:
    """Shuffle the slots of each list "[a], [b] and [c]": there, any order is grammatical."""

    def shuffled(match: re.Match[str]) -> str:
        slots = _ANY_SLOT.findall(match.group())
        order = rng.sample(slots, len(slots))
        parts = iter(order)
        return _ANY_SLOT.sub(lambda _: next(parts), match.group())

    attribute_slot = r"\[\w+ description\]"
    return re.sub(rf"{attribute_slot}(?:(?:, and |, | and ){attribute_slot})+", shuffled, text)


def _names_attribute(token: str) -> bool:
    modifier = modifier_of(token)
    if modifier is not None and modifier.facet in ("color", "pattern", "sleeve"):
        return True
    noun = noun_of(token)
    # "their shoes are [footwear description]" names the slot, not a kind.
    return token in GENDER or token in AGE or (noun is not None and bool(noun.kinds) and token not in _SCENE)


def _word_pairs(text: str) -> frozenset[tuple[str, str]]:
    words = ["<", *(t.lower() for t in _TOKEN_SLOT.findall(text) if t.lower() not in ("a", "an", "the", "this", ",", ".")), ">"]
    return frozenset(itertools.pairwise(words))
