"""Whether decisions are about the pictures of a table: those about another one are refused, those partly about it are told.

Both verbs of `reid-ray label` ask this. Knows ids and decisions; not tables or files.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from reid_ray.errors import DataError
from reid_ray.serve.same_person.decision_log import Decision
from reid_ray.terminal.counted import counted


def named_pictures(decisions: Iterable[Decision]) -> set[str]:
    """The image_ids that decisions name."""
    return {image_id for decision in decisions for image_id in decision.images}


def lacking_pictures(named: set[str], there: Collection[str], *, decisions: str, table: str) -> str | None:
    """What is said of the pictures that decisions name and the table lacks; None if it has all.

    Args:
        named: image_ids of the decisions.
        there: those of them that the table has, and any others.
        decisions: the file, for the message.
        table: of images, for the message.

    Raises:
        DataError: it has none of them.
    """
    lacking = named.difference(there)
    if not lacking:
        return None
    if lacking == named:
        raise DataError(
            f"{decisions}: none of the {counted(len(named), 'picture')} that its decisions name, such as {min(named)}, is in {table}; give "
            "the table that they were made about, or another file of decisions"
        )
    return f"{counted(len(lacking), 'picture')} that decisions name, such as {min(lacking)}, not in the table"
