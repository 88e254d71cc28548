"""Access control of a small service for tests: without tokens, or with one of each role."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from reid_ray.serve.access.audit.audit_log import AuditLog
from reid_ray.serve.access.config import AccessConfig, AuditConfig
from reid_ray.serve.access.roles import AccessRole
from reid_ray.serve.access.service_access import ServiceAccess, open_access
from reid_ray.serve.access.tokens.token_file import create_token


def own_machine(folder: Path, *, audit: bool = False, log: AuditLog | None = None) -> ServiceAccess:
    """Of a service that answers its own machine alone; its state lies in `folder`, or records are kept by `log`."""
    opened = open_access(AccessConfig(), AuditConfig(enabled=audit), state=folder / "state", tls=False)
    return opened if log is None else replace(opened, audit=log)


def with_tokens(folder: Path, *, audit: bool = False, tls: bool = False, **limits: float) -> tuple[ServiceAccess, dict[str, str]]:
    """Of a service with tokens, and a token of each role, by its word."""
    file = folder / "tokens.json"
    tokens = {role.word: create_token(file, f"the-{role.word}", role, days=None) for role in AccessRole}
    config = AccessConfig.model_validate({"tokens": str(file), **limits})
    return open_access(config, AuditConfig(enabled=audit), state=folder / "state", tls=tls), tokens
