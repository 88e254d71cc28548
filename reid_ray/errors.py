"""The errors a user can cause. Each message names the file or field at fault and the remedy, in one sentence."""

from __future__ import annotations


class ReidRayError(Exception):
    """Base of every error that a user can mend; jobs print its message without a traceback and exit with 2."""


class ConfigError(ReidRayError):
    """A configuration is unknown, contradictory or out of range. Names the dotted key."""


class DataError(ReidRayError):
    """An input file or table cannot be used at all. Rows at fault are counted instead, never raised."""


class ResourceError(ReidRayError):
    """The cluster cannot give what the job asks for. Names what is missing, before any actor starts."""
