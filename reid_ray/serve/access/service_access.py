"""Everything about access that one process of a service holds: tokens, sessions, rates, the audit log.

Knows configuration and folders; not requests.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reid_ray.errors import ConfigError
from reid_ray.serve.access.audit.audit_log import AuditLog
from reid_ray.serve.access.config import AccessConfig, AuditConfig
from reid_ray.serve.access.rates import RateLimit
from reid_ray.serve.access.session_cookies import Sessions
from reid_ray.serve.access.tokens.token_book import TokenBook

AUDIT = "audit"  # the log's folder in the service's state folder


@dataclass(frozen=True)
class ServiceAccess:
    """What the gatekeeper and the routes of access share.

    `book` and `sessions` are None for a service without tokens, which answers only its own machine. `searches` None: no limit.
    """

    limits: AccessConfig
    book: TokenBook | None
    sessions: Sessions | None
    audit: AuditLog | None
    guesses: RateLimit
    searches: RateLimit | None
    purpose_required: bool = False

    def close(self) -> None:
        """Bring the audit log to the disk."""
        if self.audit is not None:
            self.audit.close()


def open_access(limits: AccessConfig, audit: AuditConfig, *, state: Path, tls: bool) -> ServiceAccess:
    """What a process of a service needs; the state folder, which all processes of the service share, is made if it is not there.

    Raises:
        ConfigError: the state folder cannot be made.
        DataError: the tokens file or a key cannot be read.
    """
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"state {state}: cannot be made ({error.strerror}); name a folder that this user may write to") from None
    book = TokenBook(Path(limits.tokens)) if limits.tokens is not None else None
    sessions = Sessions(state, book, hours=limits.session_hours, secure=tls) if book is not None else None
    per_s, guesses = limits.searches_per_s, limits.guesses_per_minute
    return ServiceAccess(
        limits,
        book,
        sessions,
        AuditLog(state / AUDIT, audit) if audit.enabled else None,
        RateLimit(guesses / 60, max(1.0, guesses)),
        RateLimit(per_s, max(per_s, limits.searches_at_once)) if per_s is not None else None,
        audit.purpose_required,
    )
