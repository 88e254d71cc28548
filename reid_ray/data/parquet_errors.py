"""What pyarrow raises on a Parquet file that is cut, damaged or none at all, as one sentence that names the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from reid_ray.data.regular_files import raise_if_system
from reid_ray.errors import DataError


@contextmanager
def reading_parquet(origin: str) -> Iterator[None]:
    """Around everything that reads the file `origin`.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        yield
    except pa.ArrowMemoryError as error:
        raise DataError(f"{origin}: cannot be read in the memory that is left, or is damaged ({error}); write it again") from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise_if_system(error)
        raise DataError(f"{origin}: is not a readable Parquet file ({error}); write it again") from None
