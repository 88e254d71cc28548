"""Collision-free, portable file naming: one rule from an image_id to a path that any file system holds and no other exported image has.

An image_id that is such a path is its own name. Any other (a long URL, `../x`, a NUL, one that differs from an earlier name in case or in
Unicode's composition alone, one that would be the folder of an earlier file) gets what is readable of it and a digest:
i~6f1c0d2e9a4b7788.jpg. The id behind such a name travels with the data (image_names.py), so that the job ingest gives it back.
"""

from __future__ import annotations

import re
import unicodedata
from hashlib import blake2b

from reid_ray.data.images import is_image_name

# ext4, NTFS and APFS take 255 bytes a part; the rest is room for the .json of a WebDataset sample. macOS takes 1,024 bytes a path.
_PART_BYTES, _PATH_BYTES = 250, 1000
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.IGNORECASE)
_READABLE = 40  # characters of a made name that recall its image_id


class Names:
    """The names of one export, relative to one folder, with forward slashes.

    Holds 8 bytes of a digest per name and folder instead of the name: some 80 bytes of memory each, 0.3 GB at 4 million images. Two
    digests that are equal by chance only give an image a made name.

    Args:
        flat: names have no folders, as where a layout keeps all images in one.
        keys: what is left of the suffix must be unique by itself and without a dot, as WebDataset's keys are.
    """

    def __init__(self, *, flat: bool = False, keys: bool = False) -> None:
        self._flat, self._keys = flat, keys
        self._files: set[int] = set()
        self._folders: set[int] = set()

    def name_of(self, image_id: str, suffix: str) -> str:
        """The name of an image, which is its image_id wherever that can be; taken from now on.

        Args:
            image_id: each image's own; the same one again gets another name.
            suffix: of the file (jpg), for an image_id that does not end in one of an image.
        """
        own = image_id if is_image_name(image_id) else f"{image_id}.{suffix}"
        if self._flat:
            own = own.rpartition("/")[2]
        if self.take(own):
            return own
        number = 0
        while not self.take(made := _made(image_id, own, suffix, number)):
            number += 1
        return made

    def take(self, name: str) -> bool:
        """Take a name that is possible and free; whether it was."""
        key = name.rpartition(".")[0] if self._keys else name
        if not is_possible(name) or (self._keys and "." in key):
            return False
        parts = _folded(key).split("/")
        folders = [_digest("/".join(parts[:depth])) for depth in range(1, len(parts))]
        file = _digest("/".join(parts))
        if file in self._files or file in self._folders or not self._files.isdisjoint(folders):
            return False
        self._files.add(file)
        self._folders.update(folders)
        return True


def is_possible(name: str) -> bool:
    """Whether a relative path names a visible file below its folder on any file system that people keep data sets on."""
    try:
        length = len(name.encode())
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return length <= _PATH_BYTES and all(map(_is_possible_part, name.split("/")))


def _is_possible_part(part: str) -> bool:
    return bool(
        part
        and not part.startswith(".")  # also . and ..; the readers leave hidden files out
        and not any(unicodedata.category(letter) == "Cc" for letter in part)
        and "\\" not in part
        and len(part.encode()) <= _PART_BYTES
        and not _DEVICE.fullmatch(part)
    )


def _made(image_id: str, own: str, suffix: str, number: int) -> str:
    stem, _, ending = own.rpartition("/")[2].rpartition(".")
    readable = re.sub(r"[^A-Za-z0-9_-]+", "_", stem)[:_READABLE].strip("_-") or "image"
    identity = f"{image_id}\0{number}" if number else image_id
    digest = blake2b(identity.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return f"{readable}~{digest}.{ending.lower() if is_image_name(f'x.{ending}') else suffix}"


def _folded(name: str) -> str:
    """What is the same in two names that differ in case or in composed characters alone."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


def _digest(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
