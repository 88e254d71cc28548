"""Caption generator of synthetic people: sentences from the ground-truth attributes, in many wordings, as different annotators would.

Knows words and the attribute vocabulary; not pixels or tables. What a picture hides is not mentioned, and each annotator leaves some
things out. Every word that names an attribute is one that the parser of attributes knows (reid_ray.attributes).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping

from reid_ray.data.synthetic.traits import NONE

# What a caption can speak of, each with the attributes that its phrase names.
SLOTS: dict[str, tuple[str, ...]] = {
    "hair": ("hair", "hair_color"),
    "upper": ("upper", "upper_color", "upper_pattern"),
    "lower": ("lower", "lower_color"),
    "shoes": ("shoes", "shoes_color"),
    "bag": ("bag", "bag_color"),
    "hat": ("hat", "hat_color"),
}

# Words for a value; the first is the plainest.
WORDS: dict[str, tuple[str, ...]] = {
    "man": ("man", "male", "guy", "gentleman"),
    "woman": ("woman", "lady", "female"),
    "grey": ("grey", "gray"),
    "blond": ("blond", "blonde"),
    "t-shirt": ("t-shirt", "tee"),
    "shirt": ("shirt", "button-up shirt", "long-sleeved shirt"),
    "jacket": ("jacket", "open jacket"),
    "coat": ("coat", "long coat", "overcoat"),
    "hoodie": ("hoodie", "hooded sweatshirt"),
    "trousers": ("trousers", "pants", "slacks"),
    "jeans": ("jeans", "denim jeans"),
    "shoes": ("shoes", "sneakers", "trainers"),
    "backpack": ("backpack", "rucksack"),
    "handbag": ("handbag", "purse"),
    "shoulder bag": ("shoulder bag", "crossbody bag", "messenger bag"),
    "cap": ("cap", "baseball cap"),
    "beanie": ("beanie", "knit hat", "woolly hat"),
    "sun hat": ("sun hat", "wide-brimmed hat"),
    "checked": ("checked", "checkered", "plaid"),
    "striped": ("striped", "stripy"),
}
_PLURAL = {"trousers", "jeans", "shorts", "shoes", "boots"}
_VERBS = {
    "wear": ("wearing", "dressed in", "in", "wears", "is wearing", "is dressed in"),
    "bag": ("carrying", "holding", "with", "carries", "has", "is carrying"),
}


class Annotator:
    """One human-like writer: `Annotator(random.Random(7)).write(attributes, hidden={"shoes"})`."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._named: set[str] = set()  # by the caption that is being written

    def write(self, attributes: Mapping[str, str], hidden: Collection[str] = ()) -> str:
        """A caption of one to three sentences. `hidden` names the slots (see SLOTS) that the picture does not show."""
        return self.write_and_name(attributes, hidden)[0]

    def write_and_name(self, attributes: Mapping[str, str], hidden: Collection[str] = ()) -> tuple[str, frozenset[str]]:
        """As write, and the attributes whose values the caption names: known from writing it, so that no parser has to be believed."""
        rng = self._rng
        self._named = {"gender"}
        slots = [slot for slot in SLOTS if slot not in hidden and attributes.get(slot) != NONE]
        brief = rng.random() < 0.25
        kept = [slot for slot in slots if rng.random() < (0.55 if brief else 0.93)]
        if "upper" not in kept and "lower" not in kept:
            kept.append(rng.choice(["upper", "lower"]))
        phrases = {slot: self._phrase(slot, attributes) for slot in kept}
        style: Callable[[dict[str, str], str], str] = rng.choice([self._flowing, self._two_sentences, self._fronted, self._clipped])
        return _tidy(style(phrases, attributes["gender"])), frozenset(self._named)

    def _flowing(self, phrases: dict[str, str], gender: str) -> str:
        """A woman with long hair wearing a red coat, blue jeans and white shoes, carrying a bag."""
        rng = self._rng
        text = rng.choice(["a {}", "the {}", "this {}", "there is a {}", "a picture of a {}", "a {} walking"]).format(self._subject(gender))
        if "hair" in phrases:
            text += f" with {phrases['hair']}"
        worn = self._worn(phrases)
        if worn:
            text += f" {rng.choice(_VERBS['wear'][:3])} {worn}"
        if "bag" in phrases:
            text += f"{rng.choice([', ', ' and ']) if worn else ' '}{rng.choice(_VERBS['bag'][:3])} {phrases['bag']}"
        return text + "."

    def _two_sentences(self, phrases: dict[str, str], gender: str) -> str:
        """The man is wearing a green shirt and black trousers. He has short hair and carries a backpack."""
        rng = self._rng
        subject = self._subject(gender)
        he = self._pronoun(gender)
        worn = self._worn(phrases)
        wears = f"{rng.choice(_VERBS['wear'][3:])} {worn}." if worn else ""
        first = f"the {subject} {wears}" if worn else f"there is a {subject}."
        rest = []
        if "hair" in phrases:
            rest.append(f"has {phrases['hair']}")
        if "bag" in phrases:
            rest.append(f"{rng.choice(_VERBS['bag'][3:])} {phrases['bag']}")
        rng.shuffle(rest)
        second = f"{he} {' and '.join(rest)}." if rest else ""
        ordered = (
            [first, second]
            if rng.random() < 0.7 or not second
            else [f"the {subject} {' and '.join(rest)}.", f"{he} {wears}" if worn else first]
        )
        return " ".join(part for part in ordered if part)

    def _fronted(self, phrases: dict[str, str], gender: str) -> str:
        """Wearing a cap and a blue jacket, the man walks by in black jeans. His shoes are white."""
        rng = self._rng
        subject, his = self._subject(gender), {"he": "his", "she": "her", "they": "their"}[self._pronoun(gender)]
        top = _listed([phrases[slot] for slot in ("hat", "upper") if slot in phrases])
        text = f"{rng.choice(['wearing', 'dressed in', 'in'])} {top}, " if top else ""
        text += f"{rng.choice(['the', 'a', 'this'])} {subject} {rng.choice(['walks by', 'is walking', 'stands', 'passes by'])}"
        if "lower" in phrases:
            text += f" in {phrases['lower']}"
        if "bag" in phrases:
            text += f" with {phrases['bag']}"
        text += "."
        if "shoes" in phrases:
            color, noun = phrases["shoes"].split(" ", 1) if " " in phrases["shoes"] else ("", phrases["shoes"])
            text += f" {his} {noun} are {color}." if color else f" {his} {noun} can be seen."
        if "hair" in phrases:
            text += f" {self._pronoun(gender)} {'have' if his == 'their' else 'has'} {phrases['hair']}."
        return text

    def _clipped(self, phrases: dict[str, str], gender: str) -> str:
        """Woman, long black hair, red coat, blue jeans, white boots, brown handbag."""
        order = list(phrases)
        self._rng.shuffle(order)
        parts = [phrases[slot].removeprefix("a pair of ").removeprefix("a ").removeprefix("an ") for slot in order]
        return ", ".join([self._subject(gender), *parts]) + "."

    def _worn(self, phrases: dict[str, str]) -> str:
        order = [slot for slot in ("upper", "lower", "shoes", "hat") if slot in phrases]
        if self._rng.random() < 0.3:
            self._rng.shuffle(order)
        return _listed([phrases[slot] for slot in order])

    def _subject(self, gender: str) -> str:
        word = self._word(gender)
        if word in ("male", "female") or self._rng.random() < 0.1:
            return ("male " if gender == "man" else "female ") + self._rng.choice(["pedestrian", "person"])
        return f"young {word}" if self._rng.random() < 0.1 else word

    def _pronoun(self, gender: str) -> str:
        return "he" if gender == "man" else "she"

    def _word(self, value: str) -> str:
        """The plainest word two times in three, else any of its synonyms."""
        words = WORDS.get(value, (value,))
        return words[0] if self._rng.random() < 0.6 else self._rng.choice(words)

    def _phrase(self, slot: str, attributes: Mapping[str, str]) -> str:
        rng = self._rng
        value = attributes[slot]
        color = self._word(attributes[f"{slot}_color"]) if rng.random() < 0.95 else ""
        self._named |= {f"{slot}_color"} if color else set()
        if slot == "hair":
            self._named.add(slot)
            return self._hair(value, color)
        noun = self._word(value)
        self._named |= {slot} if noun != "shoes" else set()  # which may mean any footwear
        if slot == "upper" and attributes["upper_pattern"] != "plain" and rng.random() < 0.9:
            pattern = self._word(attributes["upper_pattern"])
            noun = f"{noun} with stripes" if pattern == "stripy" else f"{pattern} {noun}"
            self._named.add("upper_pattern")
        if slot == "upper" and attributes["upper_pattern"] == "plain" and rng.random() < 0.08:
            noun = f"plain {noun}"
            self._named.add("upper_pattern")
        words = f"{color} {noun}".strip()
        if value in _PLURAL:
            return f"a pair of {words}" if slot == "lower" and rng.random() < 0.15 else words
        return f"a {words}"

    def _hair(self, value: str, color: str) -> str:
        if value == "bun":
            return self._rng.choice(
                [f"{color} hair in a bun", f"{color} hair tied in a bun", f"a {color} bun" if color else "a bun"]
            ).strip()
        return f"{value} {color} hair" if self._rng.random() < 0.75 or not color else f"{color} hair that is {value}"


def _listed(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""


def _tidy(text: str) -> str:
    """Capitals after full stops, an before vowels, single spaces."""
    words = text.split()
    for i, word in enumerate(words[:-1]):
        if word == "a" and words[i + 1][0] in "aeiou":
            words[i] = "an"
    sentences = " ".join(words).split(". ")
    return ". ".join(sentence[:1].upper() + sentence[1:] for sentence in sentences)
