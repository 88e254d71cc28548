"""Exposure: what a model's weights have seen of the pictures, identities and texts that a score is of, as facts, marks and sentences.

A score on people that the weights were trained on, or chosen by, says nothing about others. Training writes beside the weights what it
used (SEEN), and what the weights before it had; here that is compared with gallery and queries. What cannot be told is called unknown,
never clean. Knows rows of SEEN and words; not models or scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from reid_ray.data.dataset_overlap import is_mixed, known_overlap
from reid_ray.data.perceptual_hash import BITS, NEAR_BITS
from reid_ray.records import SEEN
from reid_ray.retrieval.evaluate.seen_lookup import ROLES, Origin, SeenFacts, look_up, origins_of

# What a near duplicate is; a mark that is not there says that none of these was found, and no more.
SEARCHED = (
    f"copies encoded again, scaled or brightened, within {NEAR_BITS} of {BITS} bits of a perceptual hash; not mirrored or cropped ones"
)
# In the order in which tables show them, with what they mean.
MARKS = {
    "SEEN": f"pictures (the same, or near duplicates: {SEARCHED}) or identities were trained on or chose the weights",
    "OVERLAP": "by their sources, a data set that was trained on or chose the weights shares pictures with this one",
    "COPIES": f"pictures of queries (the same, or near duplicates: {SEARCHED}) stand in the gallery too, where they count",
    "TEXTS": "texts that query stand word for word among those trained on or that chose the weights",
    "UNKNOWN": "something of this is not known",
}
_DID = {"train": "were trained on", "val": "chose the weights"}
_NOTHING: dict[str, Any] = {"queries": None, "copies": None, "datasets": None, "known_overlaps": [], "same_table": None}


def exposure(
    seen: Iterable[pa.Table],
    gallery: pa.Table,
    queries: pa.Table | None = None,
    *,
    copies: Mapping[str, int] | None = None,
    same_table: str | None = None,
) -> dict[str, Any]:
    """What training, and the choice of weights, had of what a score is of.

    Args:
        seen: pieces of SEEN (data/seen_rows.py), of the weights and of those before them.
        gallery: rows of SEEN, whose role does not matter; of pictures that are not at hand content and near are null.
        queries: likewise, images or texts.
        copies: {"images", "near": queries' pictures that the gallery has as another row that counts}, where there are any to have.
        same_table: for weights that recorded nothing, what their run's manifest says of this very table; a clause.

    Returns:
        "recorded": whether the weights themselves tell; "images", "identities" of the gallery; "train": {"images", "near", "identities"}
        and "val" likewise; "queries" likewise, with "texts"; "copies"; "datasets": names of those that were seen, by role;
        "known_overlaps"; "same_table"; "open": what is not known, in sentences; "marks": of MARKS. A count is None where there is nothing
        to compare.
    """
    sides = {"gallery": gallery, "queries": SEEN.empty_table() if queries is None else queries}
    told, facts = look_up(seen, sides)
    shown = set[Origin]().union(*map(origins_of, sides.values()))
    found: dict[str, Any] = {
        "recorded": None not in facts.unknown,
        **told["gallery"],
        **_NOTHING,
        "queries": None if queries is None else told["queries"],
        "copies": None if copies is None else dict(copies),
        "datasets": {role: sorted({name for name, _ in origins}) for role, origins in facts.origins.items()},
        "known_overlaps": _overlaps(facts, shown),
        "same_table": same_table,
    }
    found["open"] = _open(found, facts, shown)
    return {**found, "marks": _marks(found)}


def unseen(found: Mapping[str, Any]) -> bool | None:
    """Whether nothing of a score was seen, in any role; None where that is not known."""
    return None if found["marks"] == ["UNKNOWN"] else not found["marks"]


def marks_of(found: Mapping[str, Any] | None) -> list[str]:
    """The marks of an exposure; UNKNOWN where there is none, as of what an older version prepared."""
    return ["UNKNOWN"] if found is None else list(found["marks"])


def exposure_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """The exposure in a result.json; what one of an older version does not tell is unknown."""
    found = result.get("exposure", {"recorded": False})
    if "marks" in found:
        return dict(found)
    if not found["recorded"]:
        older: dict[str, Any] = {"recorded": False, "images": None, "identities": 0, "texts": None}
        older |= {role: {"images": None, "near": None, "identities": 0, "texts": None} for role in ROLES}
        found = {**older, **_NOTHING, "open": [_NOT_RECORDED]}
    else:
        roles = {role: {**found[role], "near": None, "texts": None} for role in ROLES}
        said = "whether it has near duplicates of seen pictures, and what of the queries was seen, was not asked when it was evaluated"
        found = {**found, **roles, **_NOTHING, "open": [said]}
    return {**found, "marks": _marks(found)}


def exposure_sentence(found: Mapping[str, Any], *, of: str = "the gallery") -> str:
    """What a reader must know before the numbers, in a few sentences."""
    said = []
    shared = [_shared(found, role, of) for role in ROLES] + [_shared(found["queries"], role, "the queries") for role in ROLES]
    if clauses := [clause for clause in [*shared, found["same_table"]] if clause]:
        said.append(f"WARNING: {'; '.join(clauses)}: these numbers are not those of unseen people.")
    elif found["recorded"]:
        said.append(_nothing(found, of))
    if found["known_overlaps"]:
        said.append(f"By their sources, {'; '.join(found['known_overlaps'])}.")
    if copies := found["copies"] and sum(found["copies"].values()):
        said.append(f"WARNING: {copies} pictures of queries, or near duplicates of them, stand in the gallery as other rows that count.")
    for role in ROLES:
        if found["queries"] is not None and found["queries"][role]["texts"]:
            heard = {"train": "among the texts trained on", "val": "among those that chose the weights"}[role]
            said.append(f"{found['queries'][role]['texts']} of {found['queries']['texts']} texts that query stand word for word {heard}.")
    if found["open"]:
        said.append(f"Unknown: {'; '.join(found['open'])}.")
    return " ".join(said)


def marks_in_words(results: Iterable[Mapping[str, Any]]) -> list[str]:
    """A line for each mark that these exposures bear."""
    borne = {mark for found in results for mark in found["marks"]}
    return [f"{mark}: {meaning}." for mark, meaning in MARKS.items() if mark in borne]


_NOT_RECORDED = "what these weights were trained on is not recorded beside them by their fingerprint"


def _marks(found: Mapping[str, Any]) -> list[str]:
    sides = [found, *([found["queries"]] if found["queries"] is not None else [])]
    seen = any(side[role][what] for side in sides for role in ROLES for what in ("images", "near", "identities"))
    borne = {
        "SEEN": seen or found["same_table"] is not None,
        "OVERLAP": bool(found["known_overlaps"]),
        "COPIES": found["copies"] is not None and any(found["copies"].values()),
        "TEXTS": any(side[role]["texts"] for side in sides for role in ROLES),
        "UNKNOWN": bool(found["open"]),
    }
    return [mark for mark in MARKS if borne[mark]]


def _overlaps(facts: SeenFacts, shown: set[Origin]) -> list[str]:
    did = {"train": "was trained on", "val": "chose the weights"}
    pairs = [(role, had, asked) for role in ROLES for had in facts.origins[role] for asked in shown]
    said = [(known_overlap(had[0], asked[0], train_source=had[1], test_source=asked[1]), had[0], role) for role, had, asked in pairs]
    return sorted({f"{overlap} ({name} {did[role]})" for overlap, name, role in said if overlap is not None})


def _open(found: Mapping[str, Any], facts: SeenFacts, shown: set[Origin]) -> list[str]:
    said = [_NOT_RECORDED] if None in facts.unknown else []
    before = sorted(name for name in facts.unknown if name is not None)
    said += [f"what {name} was trained on is not recorded beside it by its fingerprint" for name in before]
    if not found["recorded"]:
        return said
    if found["images"] is None:
        said.append("the gallery's pictures were not given, so identities alone were compared")
    said += [*_of_pictures(found, "the gallery"), *_of_pictures(found["queries"], "the queries")]
    said += [*_of_identities(found, "the gallery"), *_of_identities(found["queries"], "the queries")]
    origins = shown.union(*facts.origins.values())
    if unsourced := sorted({name for name, source in origins if source is None and is_mixed(name)}):
        said.append(f"from which data sets the pictures of {', '.join(unsourced)} come, for their table does not say")
    if facts.without_hash:
        said.append(f"near duplicates of {facts.without_hash} pictures that were seen, for their perceptual hashes are not recorded")
    if found["queries"] is not None and found["queries"]["texts"] is not None and facts.without_texts:
        said.append("the texts that were seen are not all recorded")
    return said


def _shared(side: Mapping[str, Any] | None, role: str, name: str) -> str | None:
    """Such as: of the gallery, 3 of 9 images, 1 near duplicates more, 2 of 4 identities were trained on."""
    if side is None:
        return None
    had = side[role]
    counts = {
        f"{had['images']} of {side['images']} images": had["images"],
        f"{had['near']} near duplicates of seen images more": had["near"],
        f"{had['identities']} of {side['identities']} identities": had["identities"],
    }
    said = [text for text, count in counts.items() if count]
    return f"of {name}, {', '.join(said)} {_DID[role]}" if said else None


def _nothing(found: Mapping[str, Any], of: str) -> str:
    who = f"none of the {found['identities']} identities of {of}"
    pictures = f"none of its {found['images']} images was found by content or as a near duplicate ({SEARCHED})"
    more = f"; {pictures}" if found["images"] is not None else ""
    return f"As far as is recorded, {who} was trained on or chose the weights{more}."


def _of_pictures(side: Mapping[str, Any] | None, name: str) -> list[str]:
    if side is None or not side["unshown"]:
        return []
    return [f"{side['unshown']} of {side['images']} pictures of {name}, whose contents are not at hand"]


def _of_identities(side: Mapping[str, Any] | None, name: str) -> list[str]:
    said = []
    if side is not None and side["nameless"]:
        said.append(f"{side['nameless']} identities of {name}, for their table names no data set by which to compare them")
    if side is not None and side["renumbered"]:
        said.append(f"whether {side['renumbered']} identities of {name} are those that were seen, for their set is numbered anew each time")
    return said
