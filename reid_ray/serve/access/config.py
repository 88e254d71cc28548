"""Configuration of the service's access control: tokens, sessions, rates, request bodies, the audit and the access log, TLS."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from reid_ray.config.base import Section
from reid_ray.config.paths import LocalPath, WrittenPath


class AccessConfig(Section):
    """Who may ask, how often, and how much a request may send."""

    tokens: LocalPath | None = Field(
        None,
        description="file of tokens, made by `reid-ray tokens create`; null: only this machine is answered, and may do everything",
    )
    open_ray: Literal["refuse", "everyone on this network may run code here"] = Field(
        "refuse", description="on Ray: a Ray without token authentication is refused, unless you write the other value in full"
    )
    session_hours: float = Field(12.0, gt=0, le=24 * 31, description="how long a login on the page lasts, hours")
    searches_per_s: float | None = Field(
        50.0, gt=0, description="searches a token may ask for per second, each process counting for itself; null: no limit"
    )
    searches_at_once: int = Field(200, ge=1, description="searches a token may ask for at once after a pause")
    guesses_per_minute: float = Field(10.0, gt=0, description="wrong tokens per minute from one address that get 401; further ones get 429")
    body_timeout_s: float = Field(10.0, gt=0, description="a request's body must be here after so long, seconds, and as long again as ...")
    body_kb_per_s: float = Field(64.0, gt=0, description="... its bytes take at this speed, KiB per second; later it gets 408")
    bodies_in_hand: int = Field(
        64, ge=1, description="request bodies read at once by one process; when all are slow, the slowest gives way (503)"
    )
    body_mb_in_hand: int = Field(512, ge=1, description="memory for request bodies in one process, MiB; beyond it 503")


class AuditConfig(Section):
    """The audit log: who did what, for which purpose."""

    enabled: bool = Field(True, description="keep the log, in the folder audit of the service's state")
    purpose_required: bool = Field(False, description="refuse searches that state no purpose (header Reid-Purpose, or given at login)")
    sync_s: float = Field(
        0.1,
        ge=0,
        le=60,
        description="searches are brought to the disk at most so much later, seconds; changes at once, before their answer",
    )
    file_mb: int = Field(64, ge=1, description="a file of the log is followed by a new one at this size, MiB; the chain goes on")


class AccessLogConfig(Section):
    """The access log: a line for each request. Beside the audit log, which is kept in any case, it tells of every route and of times."""

    path: WrittenPath | None = Field(
        None,
        description="file to which a JSON object is appended for each request; replicas of one machine may share it, and one that is moved "
        "away (logrotate) is begun anew; null: none is kept",
    )
    texts: bool = Field(False, description="also the texts that were searched for, which may say what somebody looks like")


class TlsConfig(Section):
    """TLS: certificate and key of the service."""

    certificate: LocalPath | None = Field(None, description="PEM file of the certificate, those that signed it after it; null: no TLS")
    key: LocalPath | None = Field(None, description="PEM file of its private key, without a password")

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together; give both, or neither")
        return self
