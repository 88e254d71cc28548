"""Which reason codes say that a row was left out, and which that it failed: what counts of every job are told apart by.

A row is left out where nothing is wrong with it: what was asked for does not take it, such as an image of another split. It has failed
where something was to be made of it and could not be. docs/reasons.md has all codes; those for which there is nothing to do are these.
Knows codes; not jobs.
"""

from __future__ import annotations

from collections.abc import Mapping

_OF_FILES = ("no_image_file", "listed_twice", "junk", "unexpected_key", "composed_query", "no_video_stream")
_OF_SEGMENTS = ("not_worn", "out_of_sight", "no_pixels", "not_named", "several_named", "too_many_slots", "noun_taken", "noun_not_read")
_OF_REFERENCES = ("no_split", "made_by_editor", "not_drawn", "repeated_content", "too_little")
_OF_EDITS = ("not_for_training", "edited_already", "no_slot", "look_unknown", "cannot_be_said")
_OF_TRAINING = ("other_split", "source_held_out", "not_in_share", "earlier_rewrite", "unfaithful", "other_kind")
_OF_REWRITES = ("parent_not_used", "parent_validates")
_OF_SCORES = ("replaced", "erased", "unknown_person", "synthetic", "no_attributes", "no_match")
_OF_EXPORTS = ("not_seen", "other_tokens", "kind", "not_ok")
LEFT_OUT = frozenset((*_OF_FILES, *_OF_SEGMENTS, *_OF_REFERENCES, *_OF_EDITS, *_OF_TRAINING, *_OF_REWRITES, *_OF_SCORES, *_OF_EXPORTS))


def told_apart(unused: Mapping[str, int]) -> tuple[dict[str, int], dict[str, int]]:
    """Rows by reason as (what failed, what was left out), each by reason, sorted; reasons without a row are in neither."""
    counted = sorted((reason, count) for reason, count in unused.items() if count)
    return {reason: n for reason, n in counted if reason not in LEFT_OUT}, {reason: n for reason, n in counted if reason in LEFT_OUT}


def both_told_apart(unused: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, dict[str, int]]]:
    """Of several sides of one thing, such as queries and gallery: {"failed": side -> counts, "left_out": side -> counts}."""
    apart = {side: told_apart(counts) for side, counts in unused.items()}
    return {name: {side: counts[place] for side, counts in apart.items()} for place, name in enumerate(("failed", "left_out"))}
