"""What a job says of the columns of a user's own: in its last line, and in its manifest. None of them goes, or stays, in silence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reid_ray.storage import JobOutput
from reid_ray.terminal.counted import counted

_TOLD = {  # of one, of several
    "images_without_row": ("image without a row of the table", "images without a row of the table"),
    "rows_without_image": ("row without an image", "rows without an image"),
    "rows_not_whole": ("row of the table that is not as wide as its header", "rows of the table that are not as wide as its header"),
}
_SHOWN = 8


def note_own(out: JobOutput, names: Sequence[str], told: Mapping[str, int], *, carried: bool = True) -> None:
    """Put them into a job's manifest, if there are any.

    Args:
        out: the job's output.
        names: of the columns.
        told: how far a table beside a folder is of its images.
        carried: the job hands them on; else they stay with the images.
    """
    if names:
        out.facts["own_columns" if carried else "own_columns_left"] = list(names)
    if told:
        out.facts["table"] = dict(told)


def own_in_words(names: Sequence[str], told: Mapping[str, int], *, carried: bool = True) -> str:
    """As in: "; columns zone, time carried; 3 images without a row of the table". Empty where there is nothing to say."""
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    words = [f"columns {shown} {'carried' if carried else 'stay with the images'}"] if names else []
    words += [counted(told[name], *said) for name, said in _TOLD.items() if told.get(name)]
    return "".join(f"; {each}" for each in words)
