"""What the layouts of the job export share: a row that has no place, and files that never overwrite each other or leave the folder.

Knows rows and files; not one layout. The layouts are in export_layouts.py and export_reid.py.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from reid_ray.config.export import ExportJob
from reid_ray.data.formats.json_captions import is_safe_name
from reid_ray.data.formats.records import Caption, ImageRecord
from reid_ray.data.store import is_image_name

_MAGIC = {b"\xff\xd8\xff": "jpg", b"\x89PNG": "png", b"RIFF": "webp", b"GIF8": "gif", b"BM": "bmp", b"II*\0": "tif", b"MM\0*": "tif"}


class CannotExpressError(Exception):
    """A row that the layout has no place for; `reason` is the code to count by."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Writer:
    """What the layouts share: counts of captions, and image files that never overwrite each other or leave the folder."""

    def __init__(self, folder: Path, config: ExportJob) -> None:
        self.folder, self.config = folder, config
        self.captions = 0
        self.left_out: Counter[str] = Counter()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        """Close files; nothing to do for layouts without open ones."""

    def add(self, record: ImageRecord, data: bytes, captions: Sequence[Caption]) -> None:
        """Write one image with its captions.

        Raises:
            CannotExpressError: the layout has no place for it.
        """
        raise NotImplementedError

    def write_image(self, name: str, data: bytes) -> None:
        """Write an image file below the folder.

        Raises:
            CannotExpressError: repeated_name.
        """
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("xb") as file:
                file.write(data)
        except FileExistsError:
            raise CannotExpressError("repeated_name") from None


def suffix_of(data: bytes) -> str:
    """The suffix that the first bytes of an image file call for; img if they are of no known kind."""
    return next((suffix for magic, suffix in _MAGIC.items() if data.startswith(magic)), "img")


def safe_path(image_id: str, data: bytes) -> str:
    """The image_id as a path below a folder: itself where it is one, else with everything suspicious replaced."""
    path = image_id if is_image_name(image_id) else f"{image_id}.{suffix_of(data)}"
    return path if is_safe_name(path) else re.sub(r"[^A-Za-z0-9._-]+", "_", path.replace("..", "_")).lstrip("._") or "image"
