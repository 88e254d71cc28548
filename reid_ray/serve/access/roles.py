"""Roles and callers: what somebody may ask the service for, and who asks.

Roles are ordered: whoever may write may also search, whoever administers may do both. Knows names; not how they are proven.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class AccessRole(IntEnum):
    """What a caller may do: search the gallery; also add and delete items; also erase them, keep snapshots and read the audit log."""

    SEARCH = 1
    WRITE = 2
    ADMIN = 3

    @property
    def word(self) -> str:
        """As files, commands and answers spell it."""
        return self.name.lower()

    @classmethod
    def named(cls, word: object) -> AccessRole:
        """The role of a word.

        Raises:
            ValueError: there is none of this name.
        """
        found = next((role for role in cls if role.word == word), None)
        if found is None:
            raise ValueError(f"role {word!r} is none of {', '.join(role.word for role in cls)}")
        return found


@dataclass(frozen=True)
class Caller:
    """Who asks.

    `token_id` is that of the token that proved it, None for this machine's own user. `login`: by the cookie of a session. `purpose`: what
    the caller said once for the whole session.
    """

    name: str
    role: AccessRole
    token_id: str | None = None
    login: bool = False
    purpose: str | None = None


LOCAL = Caller("local", AccessRole.ADMIN)  # whoever asks a service without tokens from its own machine
