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

    sought: Sequence[str | bytes] = ()
    ids: Sequence[str] = ()
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
    """Note details of a request; `state` is its scope["state"]. What is noted later replaces what was noted before."""
    state[_KEY] = AuditNote(sought, ids, items, what)


def note_in(state: MutableMapping[str, Any]) -> AuditNote:
    """What was noted; nothing if nothing was."""
    found = state.get(_KEY)
    return found if isinstance(found, AuditNote) else AuditNote()
