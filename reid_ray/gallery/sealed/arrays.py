"""Arrays in .npy files: mapped, or from bytes, one at a time in a process.

NumPy reads a header by Python's parser, which several threads must not enter at once: CPython 3.11 counts its depth in one place for all
(SystemError: AST constructor recursion depth mismatch).
"""

from __future__ import annotations

import os
import threading
from io import BytesIO
from pathlib import Path

import numpy as np

_EMPTY = 128  # bytes of a file that holds no number
_parsing = threading.Lock()


def mapped_array(path: Path) -> np.ndarray:
    """An array of a file, mapped; an empty one cannot be, and is read.

    Raises:
        OSError, ValueError: it cannot be read, or is none.
    """
    with _parsing:
        array: np.ndarray = np.load(path, mmap_mode="r") if os.path.getsize(path) > _EMPTY else np.load(path)
    return np.asarray(array)  # elements of np.memmap take five times as long to read


def array_of_bytes(data: bytes) -> np.ndarray:
    """An array of the bytes of a file.

    Raises:
        ValueError: they are none.
    """
    with _parsing:
        array: np.ndarray = np.load(BytesIO(data))
    return array
