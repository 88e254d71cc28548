"""What a test holds of a refusal: its kind, that it is one sentence, and what it must name for its reader to act. Not its wording."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def refused(kind: type[Exception] | tuple[type[Exception], ...], *names: str) -> Iterator[pytest.ExceptionInfo]:
    """The block ends in an error of this kind, on one line, that names all of `names`: the file, the field, the number, the remedy."""
    with pytest.raises(kind) as caught:
        yield caught
    said = str(caught.value)
    assert "\n" not in said.strip(), said
    assert [name for name in names if name not in said] == [], said
