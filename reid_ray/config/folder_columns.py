"""Options that say what is known of the images of a folder, from their paths or from a table beside them; shared by all jobs that read one.

Knows their words and what contradicts what; not folders or tables (reid_ray.data.labels reads them).
"""

from __future__ import annotations

import re
import warnings
from typing import Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator, model_validator

from reid_ray.config.base import Section
from reid_ray.config.paths import PathOrAddress
from reid_ray.own_columns import SPOKEN_FOR
from reid_ray.records import IMAGES

IDENTITY = ("person_id", "camera_id", "split")  # columns of IMAGES that a path or a table may say
EPOCHS = {"epoch_s": 1, "epoch_ms": 1_000}  # time_format: a number of seconds or milliseconds since 1970, and how many make a second


class FolderColumnsConfig(Section):
    """What is known of images: from their paths, or from a table beside them."""

    pattern: str | None = Field(
        None,
        description="folder only: regular expression, searched in each image's path below the folder; its named groups become columns: "
        "person_id and camera_id (whole numbers), split, camera (a camera's name, which camera_id then numbers), time, frame, track, and "
        r"any of your own, as texts, as in (?P<zone>[^/]+)/(?P<camera>gate.)_(?P<time>\d{8}T\d{6})",
    )
    table: PathOrAddress | None = Field(
        None,
        description="folder only: CSV, TSV or Parquet file with a row for each image: its path below the folder or its file's name, and "
        "columns, which are carried; names as in pattern",
    )
    table_key: str | None = Field(
        None, description="column of table that names the image; null takes image_id, image, path, file, file_name, filename or name"
    )
    table_encoding: str | None = Field(
        None, description="of a CSV file, such as latin-1 or utf-16, with or without a mark at its beginning; null: utf-8"
    )
    time_format: str | None = Field(
        None, description="how the column time is written, for Python's strptime; or epoch_s, epoch_ms; null: ISO 8601"
    )
    time_zone: str | None = Field(
        None, description="zone of times that do not say theirs, such as Europe/Berlin or UTC; null: such a time is refused"
    )
    own: list[str] | None = Field(
        None, description="which columns beside those of the IMAGES schema are carried into embeddings and galleries; null: all, []: none"
    )

    @field_validator("pattern")
    @classmethod
    def _groups_can_be_columns(cls, pattern: str | None) -> str | None:
        if pattern is None:
            return None
        try:
            with warnings.catch_warnings(action="ignore"):  # of sets in sets, which Python may read otherwise one day
                groups = list(re.compile(pattern).groupindex)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"is no regular expression: {error}") from None
        if not groups:
            raise ValueError(r"must name groups, as in (?P<person_id>\d+) or (?P<zone>[^/]+), for each becomes a column; it names none")
        if clash := [name for name in groups if name in (SPOKEN_FOR | set(IMAGES.names)) - set(IDENTITY)]:
            raise ValueError(f"names the group {', '.join(clash)}, which means something else in the tables; rename it")
        return pattern

    @field_validator("table_encoding")
    @classmethod
    def _is_an_encoding(cls, name: str | None) -> str | None:
        try:
            "".encode(name or "utf-8")
        except (LookupError, ValueError):
            raise ValueError("is no encoding that Python knows, such as utf-8 or latin-1") from None
        return name

    @field_validator("time_zone")
    @classmethod
    def _is_a_zone(cls, name: str | None) -> str | None:
        try:
            _ = name and ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("is no time zone of the IANA data base, such as Europe/Berlin or UTC") from None
        return name

    @field_validator("time_format")
    @classmethod
    def _is_a_format(cls, words: str | None) -> str | None:
        if words is not None and words not in EPOCHS and "%" not in words:
            raise ValueError(f"is neither {', '.join(EPOCHS)} nor a format of strptime, such as %Y%m%d_%H%M%S")
        return words

    @model_validator(mode="after")
    def _options_go_with_a_table(self) -> Self:
        fields = type(self).model_fields  # a manifest states every key, so what is as by default is not given
        given = [name for name in ("table_encoding", "table_key") if getattr(self, name) != fields[name].default]
        if self.table is None and given:
            raise ValueError(f"{given[0]} is given, but no table; drop it, or give the table")
        return self


FOLDER_ONLY = ("pattern", "table", "table_key", "table_encoding", "time_format")
