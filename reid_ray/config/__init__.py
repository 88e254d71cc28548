"""Job configurations: one frozen, validated model per job, one file per job. Imports no engine."""

from reid_ray.config.base import Section, fingerprint, load_config, parse_overrides

__all__ = ["Section", "fingerprint", "load_config", "parse_overrides"]
