"""Times as file names and tables write them -> moments in UTC. Knows texts and zones; not columns or files."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from reid_ray.config.folder_columns import EPOCHS
from reid_ray.data.containers.values import shown

_BEGIN = datetime(1970, 1, 1, tzinfo=UTC)


class NoZoneError(ValueError):
    """A time that does not say its zone, where the configuration does not, either: so it is with every other."""


class TimeReader:
    """Reads times.

    Args:
        how: a format of strptime, epoch_s or epoch_ms; None: ISO 8601, such as 2026-03-01T08:15:00+01:00, 20260301T081500Z or
            2026-03-01 08:15.
        zone: of times that do not say theirs. Of the hour that comes twice in autumn the first one is meant, and the hour
            that is skipped in spring is no time.
    """

    def __init__(self, how: str | None, zone: str | None) -> None:
        self._how, self._zone = how, None if zone is None else ZoneInfo(zone)

    def read(self, text: str) -> datetime:
        """The moment, in UTC.

        Raises:
            NoZoneError: it does not say its zone, and no zone is given.
            ValueError: it is no time; names it.
        """
        try:
            found = self._parsed(text.strip())
        except (ValueError, OverflowError):
            wanted = "a time in ISO 8601" if self._how is None else f"a time as in {self._how}"
            raise ValueError(f"time is {shown(text)}, not {wanted}") from None
        if found.tzinfo is None and self._zone is None:
            raise NoZoneError(f"time {shown(text)} does not say its zone; set time_zone, such as Europe/Berlin or UTC")
        try:
            moment = (found if found.tzinfo else found.replace(tzinfo=self._zone)).astimezone(UTC)
            skipped = found.tzinfo is None and moment.astimezone(self._zone).replace(tzinfo=None) != found
        except OverflowError:
            raise ValueError(f"time is {shown(text)}, which no calendar has in UTC") from None
        if skipped:
            raise ValueError(f"time is {shown(text)}, an hour that the clocks of {self._zone} skip; is it the camera's time_zone?")
        return moment

    def _parsed(self, text: str) -> datetime:
        if self._how is None:
            return datetime.fromisoformat(text)
        if self._how in EPOCHS:
            return _BEGIN + timedelta(seconds=float(text) / EPOCHS[self._how])
        return datetime.strptime(text, self._how)
