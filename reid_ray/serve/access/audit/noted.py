"""What a route tells the audit log about its request, before the gatekeeper records it.

Knows the request's state; not what becomes of the note.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_KEY = "audit_note"


@dataclass
class AuditNote:
    """Details of an act: see AuditedAct."""

    sought: list[str | bytes] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    items: int | None = None
    what: dict[str, Any] = field(default_factory=dict)


def noted(
    state: MutableMapping[str, Any],
    *,
    sought: Sequence[str | bytes] = (),
    ids: Sequence[str] = (),
    items: int | None = None,
    **what: Any,
) -> None:
    """Note details of a request; `state` is its scope["state"]. What several calls note adds up."""
    note = state.setdefault(_KEY, AuditNote())
    note.sought += sought
    note.ids += ids
    note.items = note.items if items is None else (note.items or 0) + items
    note.what |= what


def note_in(state: MutableMapping[str, Any]) -> AuditNote:
    """What was noted; nothing if nothing was."""
    found = state.get(_KEY)
    return found if isinstance(found, AuditNote) else AuditNote()
