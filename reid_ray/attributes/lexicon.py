"""The words in which captions describe pedestrians: garments, shoes, hair, bags, hats, things carried, colours, patterns, people.

Pure tables, general pedestrian English; not how words are bound to each other (see parser.py). A word stands for a set of values,
and two words contradict each other only if their sets are disjoint: khaki is {beige, green}, so it agrees with either. Generic nouns
(top, bag, hat, footwear) have the empty set and agree with every kind of their slot. Jeans against trousers, T-shirt against shirt and
boots against sneakers count as different garments, as human annotators use them; that rejects a few harmless rewrites and no caption.
"""

from __future__ import annotations

import re
from typing import NamedTuple

Values = frozenset[str]
ANY: Values = frozenset()  # a generic noun: agrees with every kind of its slot


class Noun(NamedTuple):
    """What a noun names: the slot (upper, shoes, bag, ...) and the kinds it may stand for; ANY if it says nothing about the kind."""

    slot: str
    kinds: Values


class Modifier(NamedTuple):
    """What an adjective says: facet (color, pattern, length, ...) and values."""

    facet: str
    values: Values


# slot -> {kinds separated by "/": words separated by ", "}; "*" names the slot without a kind. Plurals are derived.
_NOUNS: dict[str, dict[str, str]] = {
    "upper": {
        "t-shirt": "t shirt, tee, tee shirt, tshirt, short sleeved t shirt, long sleeved t shirt",
        "t-shirt/shirt": "short sleeved shirt, polo, polo shirt, jersey",
        "shirt": "shirt, button up shirt, button down shirt, dress shirt, long sleeved shirt, flannel shirt, flannel, blouse",
        "jacket": "jacket, blazer, windbreaker, puffer, bomber, anorak, denim jacket, suit jacket",
        "jacket/coat": "parka, raincoat, rain jacket, down jacket, puffer jacket",
        "coat": "coat, overcoat, trench coat, trenchcoat, fur coat, peacoat, pea coat",
        "hoodie": "hoodie, hoody, hooded sweatshirt, hooded jumper, hooded top",
        "hoodie/sweater": "sweatshirt",
        "sweater": "sweater, jumper, pullover, cardigan, turtleneck",
        "vest": "vest, waistcoat, gilet",
        "tank top": "tank top, camisole, undershirt, singlet, crop top, halter top",
        "*": "top, upper garment, upper clothing, upper body",
    },
    "lower": {
        "trousers": "trousers, trouser, pants, slacks, chinos, khakis, cargo pants, suit pants, dress pants, capris",
        "trousers/sweatpants": "sweatpants, joggers, track pants, sweat pants, sports pants, jogging pants",
        "jeans": "jeans, jean, denims, denim jeans, denim pants, denim trousers",
        "shorts": "shorts, short pants, denim shorts, bermudas",
        "skirt": "skirt, miniskirt",
        "leggings": "leggings, tights, stockings, pantyhose, yoga pants",
        "*": "bottoms, lower garment, lower clothing, lower body",
    },
    "full": {
        "dress": "dress, gown, sundress, frock",
        "suit": "suit, tuxedo, business suit",
        "jumpsuit": "jumpsuit, overalls, dungarees, romper, tracksuit",
        "uniform": "uniform",
        "robe": "robe, abaya, kimono, cloak",
    },
    "shoes": {
        "shoes": "sneaker, trainer, loafer, running shoe, sports shoe, sport shoe, tennis shoe, canvas shoe, leather shoe, "
        "dress shoe, athletic shoe, oxfords",
        "boots": "boot, ankle boot, bootie",
        "sandals": "sandal, flip flop, slipper, open toed shoe",
        "heels": "heels, high heels, pumps, stilettos, high heeled shoe, high heel shoe",
        "*": "shoe, footwear",
    },
    "hair": {
        "*": "hair, hairs, haired, hairstyle, haircut, hairdo",
    },
    "bag": {
        "backpack": "backpack, rucksack, knapsack, schoolbag, school bag, back pack, bookbag, book bag",
        "handbag": "handbag, hand bag, purse, clutch, pocketbook",
        "handbag/shoulder bag": "tote, tote bag",
        "shoulder bag": "shoulder bag, crossbody bag, cross body bag, messenger bag, satchel, sling bag, crossbody",
        "suitcase": "suitcase, luggage, trolley case, trolley bag, rolling bag",
        "shopping bag": "shopping bag, plastic bag, paper bag, grocery bag, carrier bag",
        "briefcase": "briefcase, laptop bag, computer bag",
        "waist bag": "waist bag, fanny pack, waist pack, bum bag, belt bag",
        "duffel": "duffel, duffel bag, duffle bag, gym bag, sports bag",
        "*": "bag, pouch",
    },
    "hat": {
        "cap": "cap, baseball cap, baseball hat, peaked cap",
        "beanie": "beanie, knit hat, knitted hat, woolly hat, wool hat, winter hat, knit cap, knitted cap",
        "sun hat": "sun hat, sunhat, straw hat, wide brimmed hat, wide brim hat, brimmed hat, bucket hat",
        "helmet": "helmet",
        "fedora": "fedora, bowler, top hat, cowboy hat, beret",
        "*": "hat, headwear",
    },
}  # fmt: skip

# Things of which a person has one or none: each is a slot of its own.
_ACCESSORIES = {
    "glasses": "glasses, eyeglasses, spectacles, eyewear, bespectacled",
    "sunglasses": "sunglasses, sun glasses, shades",
    "umbrella": "umbrella, parasol",
    "phone": "phone, cellphone, cell phone, smartphone, mobile phone, mobile",
    "watch": "watch, wristwatch, wrist watch",
    "scarf": "scarf, shawl, headscarf, head scarf, hijab, bandana",
    "gloves": "glove, mitten",
    "tie": "tie, necktie, neck tie, bow tie, bowtie",
    "belt": "belt",
    "mask": "mask, face mask",
    "headphones": "headphones, earphones, earbuds, headset",
    "jewellery": "necklace, bracelet, earring, jewelry, jewellery, pendant, ring",
    "bottle": "bottle, water bottle, cup, mug, coffee",
    "book": "book, newspaper, magazine, notebook, folder",
    "camera": "camera",
    "bicycle": "bicycle, bike, scooter, motorcycle, skateboard",
    "stroller": "stroller, pram, pushchair, baby carriage",
    "socks": "sock",
    "beard": "beard, bearded, moustache, mustache, goatee",
    "lanyard": "lanyard, badge",
    "hood": "hood",
}

_COLORS = {
    "black": "black",
    "white": "white",
    "white/beige": "cream, ivory, off white",
    "grey": "grey, gray",
    "grey/white": "silver, greyish",
    "grey/black": "charcoal",
    "red": "red, scarlet, crimson, reddish",
    "red/brown": "maroon, burgundy, wine",
    "orange": "orange",
    "orange/pink": "peach",
    "orange/pink/red": "coral, salmon",
    "yellow": "yellow, mustard, lemon, yellowish",
    "yellow/blond": "golden, gold",
    "blond/yellow": "blond, blonde",
    "green": "green, olive, emerald, mint, greenish",
    "green/blue": "teal, turquoise, aqua",
    "blue": "blue, navy, navy blue, indigo, azure, cyan, sky blue, royal blue, bluish",
    "purple": "purple, violet, lavender, lilac, plum",
    "purple/pink": "magenta, fuchsia",
    "pink": "pink, rose, pinkish",
    "brown": "brown, chocolate, brownish",
    "brown/beige": "tan, camel",
    "brown/red": "chestnut",
    "beige/green/brown": "khaki",
    "beige/brown": "beige",
    "red/orange/brown": "ginger, auburn",
}
_OTHER_MODIFIERS: dict[str, dict[str, str]] = {
    "pattern": {
        "striped": "striped, stripes, stripe, stripy, pinstriped",
        "checked": "checked, checkered, chequered, plaid, tartan, gingham, checks, chequerboard, checkerboard",
        "floral": "floral, flowered, flowery, flower print, flower patterned",
        "dotted": "dotted, polka dot, polka dots, polka dotted, spotted, dots",
        "plain": "plain, solid, unpatterned",
        "camouflage": "camouflage, camo",
        "animal": "leopard, leopard print, zebra print, animal print",
        "graphic": "graphic, logo, printed, print, lettering, letters",
    },
    "length": {
        "short": "short, cropped",
        "medium": "medium length, shoulder length, mid length, chin length, bobbed",
        "long": "long, lengthy",
        "bald": "bald, balding, shaved head",
    },
    "tied": {
        "bun": "bun, topknot, top knot, chignon",
        "ponytail": "ponytail, pony tail, pigtails",
        "bun/ponytail": "tied back, tied up, pulled back, pinned up",
        "braid": "braid, braids, braided, plait, plaits, dreadlocks, cornrows",
    },
    "texture": {"curly": "curly, curled, curls, frizzy, afro", "wavy": "wavy", "straight": "straight"},
    "fringe": {"fringe": "bangs, fringe"},
    "shade": {"dark": "dark, deep", "light": "light, pale", "bright": "bright, vivid, neon"},
    "sleeve": {"short": "short sleeved, short sleeve", "long": "long sleeved, long sleeve", "none": "sleeveless"},
}  # fmt: skip


def word_set(words: str) -> frozenset[str]:
    """The words of a sentence, as a set."""
    return frozenset(words.split())


def _people(words: str, value: str) -> dict[str, str]:
    return dict.fromkeys(words.split(), value)


GENDER: dict[str, str] = {
    **_people("man male guy gentleman boy he his him himself men father grandfather businessman", "man"),
    **_people("woman female lady girl she her hers herself women mother grandmother businesswoman gal", "woman"),
}
AGE: dict[str, str] = {
    **_people("young youthful teenage teenager youngster boy girl child kid toddler", "young"),
    **_people("old elderly senior aged grandfather grandmother", "old"),
    **_people("slim thin skinny slender lean", "slim"),
    **_people("overweight heavyset fat chubby plump", "heavy"),
}

# What a caption may add or drop without harm, because annotators do; only a contradiction counts. The length of hair is not among it.
SOFT_FACETS = frozenset({"shade", "sleeve", "texture", "fringe"})
SOFT_VALUES = frozenset({"plain"})
# Everybody has these, so the bare generic noun ("wearing a top and shoes") says nothing.
ALWAYS_THERE = frozenset({"upper", "lower", "shoes", "hair"})


def _values(key: str) -> Values:
    return ANY if key == "*" else frozenset(key.split("/"))


def _forms(word: str) -> tuple[str, ...]:
    if word.endswith("s"):
        return (word,)
    return (word, f"{word}es" if word.endswith(("sh", "ch", "x")) else f"{word[:-1]}ves" if word == "scarf" else f"{word}s")


def _read_nouns() -> dict[str, Noun]:
    nouns: dict[str, Noun] = {}
    for slot, kinds in _NOUNS.items():
        for kind, words in kinds.items():
            nouns.update((form, Noun(slot, _values(kind))) for word in words.split(", ") for form in _forms(word))
    for kind, words in _ACCESSORIES.items():
        nouns.update((form, Noun(kind, frozenset({kind}))) for word in words.split(", ") for form in _forms(word))
    return nouns


def _read_modifiers() -> dict[str, Modifier]:
    modifiers = {word: Modifier("color", _values(key)) for key, words in _COLORS.items() for word in words.split(", ")}
    for facet, table in _OTHER_MODIFIERS.items():
        modifiers.update((word, Modifier(facet, _values(key))) for key, words in table.items() for word in words.split(", "))
    return modifiers


NOUNS: dict[str, Noun] = _read_nouns()
MODIFIERS: dict[str, Modifier] = _read_modifiers()
# Hair styles that are nouns ("a black bun", "his dreadlocks"): a colour before them is the hair's.
STYLE_NOUNS = word_set(
    "bun topknot top_knot chignon ponytail pony_tail pigtails braid braids plait plaits dreadlocks cornrows curls afro bangs fringe"
)
_PHRASES = sorted((words for words in (*NOUNS, *MODIFIERS) if " " in words), key=len, reverse=True)
_PHRASE = re.compile(r"\b(?:" + "|".join(map(re.escape, _PHRASES)) + r")\b")
_PHRASE_WITH_GAPS = re.compile(r"\b(?:" + "|".join(" +".join(map(re.escape, phrase.split())) for phrase in _PHRASES) + r")\b")  # slower
_TOKEN = re.compile(r"[a-z]+(?:_+[a-z]+)*|[.,;:!?()]")
_GENITIVE, _SPACE, _JOINTS = re.compile(r"[’']s\b"), re.compile(r"\s"), re.compile(r"_+")
_SIGNS = str.maketrans({"-": " ", "–": ",", "—": ","})


class Token(NamedTuple):
    """A word, a phrase of the lexicon or a punctuation mark of a text, and its characters start to stop (exclusive) there."""

    word: str
    start: int
    stop: int


def token_places(text: str) -> list[Token]:
    """Lower-case words and punctuation with their places; a phrase of the lexicon is one, joined by underscores."""
    lower = text.lower()
    if len(lower) != len(text):  # of a few characters the small letter is two
        lower = "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
    plain = _SPACE.sub(" ", _GENITIVE.sub("  ", lower).translate(_SIGNS))  # no step moves a character
    phrase = _PHRASE_WITH_GAPS if "  " in plain else _PHRASE
    joined = phrase.sub(lambda match: match.group().replace(" ", "_"), plain)
    return [Token(_JOINTS.sub("_", match.group()), match.start(), match.end()) for match in _TOKEN.finditer(joined)]


def tokens_of(text: str) -> list[str]:
    """The words of token_places, without their places; hyphens count as spaces."""
    return [token.word for token in token_places(text)]


def noun_of(token: str) -> Noun | None:
    """The noun that a token is, or None."""
    noun = NOUNS.get(token.replace("_", " "))
    return noun if noun is not None else Noun("hair", ANY) if token in STYLE_NOUNS else None


def modifier_of(token: str) -> Modifier | None:
    """The modifier that a token is, or None."""
    return MODIFIERS.get(token.replace("_", " "))
