"""What the layouts of the job export share: a row that has no place, and files that never overwrite each other or leave the folder.

Knows rows and files; not one layout. The layouts are in layouts.py, json_layouts.py and reid_layouts.py, the rule for names in
file_naming.py.
"""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from reid_ray.data.containers.image_names import NameList
from reid_ray.data.export.config import ExportJob
from reid_ray.data.export.file_naming import Names
from reid_ray.data.image_records import Caption, ImageRecord

_MAGIC = {b"\xff\xd8\xff": "jpg", b"\x89PNG": "png", b"RIFF": "webp", b"GIF8": "gif", b"BM": "bmp", b"II*\0": "tif", b"MM\0*": "tif"}
# What a file system may have against a name that others take.
_NAME_FAULTS = {
    errno.EEXIST: "repeated_name",
    errno.ENOTDIR: "repeated_name",
    errno.EISDIR: "repeated_name",
    errno.ENAMETOOLONG: "name_too_long",
    errno.EINVAL: "name_not_possible",
    errno.EILSEQ: "name_not_possible",
}


class CannotExpressError(Exception):
    """A row that the layout has no place for; `reason` is the code to count by."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Writer(ABC):
    """What the layouts share: counts of captions, and image files that never overwrite each other or leave the folder."""

    flat = keys = False  # see file_naming.Names
    composed = False  # whether texts that ask with their image have a place
    marks_synthetic = False  # whether the layout says that an editor made a picture

    def __init__(self, folder: Path, config: ExportJob) -> None:
        self.folder, self.config = folder, config
        self.captions = 0
        self.left_out: Counter[str] = Counter()
        self.names = Names(flat=self.flat, keys=self.keys)
        self._name_list = NameList(folder)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        """Close files."""
        self._name_list.close()

    def finish(self) -> None:  # noqa: B027 - most layouts have nothing left to write
        """Write what can be written only when all images are known."""

    @abstractmethod
    def add(self, record: ImageRecord, data: bytes, captions: Sequence[Caption]) -> None:
        """Write one image with its captions.

        Raises:
            CannotExpressError: the layout has no place for it.
        """

    def write_image(self, path: str, data: bytes, *, name: str, image_id: str, person_id: int | None = None) -> None:
        """Write an image file below the folder.

        Args:
            path: of the file, relative to the folder.
            data: its content.
            name: the image_id that the layout's reader makes of this file.
            image_id: the one that it has, which the job ingest gives back.
            person_id: the one that it has, if the layout's reader makes another of this file.

        Raises:
            CannotExpressError: repeated_name, name_too_long or name_not_possible: what the file system says of the name.
        """
        file = self.folder / path
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("xb") as stream:
                stream.write(data)
        except OSError as error:
            if error.errno not in _NAME_FAULTS:
                raise
            raise CannotExpressError(_NAME_FAULTS[error.errno]) from None
        self._name_list.add(name, image_id, person_id)


def suffix_of(data: bytes) -> str:
    """The suffix that the first bytes of an image file call for; img if they are of no known kind."""
    return next((suffix for magic, suffix in _MAGIC.items() if data.startswith(magic)), "img")
