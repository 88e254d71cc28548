"""Where a machine keeps its copies of a store's segments: for one process alone, or for all readers of the machine where somebody said so.

A folder of TMPDIR that this user alone can read goes with the process, or when the next one finds it dead. With REID_RAY_GALLERY_COPIES, a
folder's path, copies are shared and outlast their readers: the next reader removes what its generation does not hold.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reid_ray.scratch import scratch_folder

VARIABLE = "REID_RAY_GALLERY_COPIES"


@contextmanager
def open_copies(address: str, *, private: bool) -> Iterator[Path]:
    """The folder for copies of a gallery's segments.

    Args:
        address: the gallery's.
        private: not shared with anybody: a writer's, or where what lies at the store is what is looked at.
    """
    shared = os.environ.get(VARIABLE)
    if private or not shared:
        with scratch_folder() as folder:
            yield folder
        return
    folder = Path(shared) / hashlib.sha256(address.encode()).hexdigest()[:16]
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    yield folder
