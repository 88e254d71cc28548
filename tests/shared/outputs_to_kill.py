"""What kill_points.py runs: a job that replaces its own output, beside files and outputs of others."""

from pathlib import Path

from reid_ray.config import Section
from reid_ray.storage import JobOutput
from reid_ray.storage import place as places
from reid_ray.storage.listing import differences, read_mark


class Config(Section):
    number: int = 0


OTHERS = {"photo.jpg": "mine", ".out.x.12345678.partial/file": "a neighbour's", "out.x/file": "another's", ".out.lockx": "mine, too"}


def before(folder, *, first, exchange):
    if not exchange:
        places.exchange = lambda one, other: False  # a file system that cannot
    for name, text in OTHERS.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    if not first:
        write(folder, number=1)


def write(folder, *, number=2, fail=False, **_):
    with JobOutput("test", folder / "out", Config(number=number), if_exists="replace") as out:
        for name in ("a", "b/c", "b/d/e"):
            (out.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (out.folder / name).write_text(f"{name} of {number}")
        if fail:
            raise KeyboardInterrupt


def after(folder, **_):
    found = {"dead": state(folder / "out"), "others": others_are_whole(folder)}
    try:
        write(folder, number=3, fail=True)  # a later run that comes to nothing leaves what there was
    except KeyboardInterrupt:
        found["restored"] = state(folder / "out")
    found["left_by_failure"] = left(folder)
    write(folder, number=4)
    return {**found, "again": state(folder / "out"), "left": left(folder), "others_again": others_are_whole(folder)}


def state(out: Path):
    """Number of the run whose whole result is there; None if nothing is; 'torn' otherwise."""
    if not out.exists():
        return None
    mark = read_mark(out)
    if mark is None or not mark["whole"] or list(differences(out)):
        return "torn"
    numbers = {(out / name).read_text().rpartition(" ")[2] for name in ("a", "b/c", "b/d/e")}
    return int(numbers.pop()) if len(numbers) == 1 else "torn"


def others_are_whole(folder):
    return all((folder / name).read_text() == text for name, text in OTHERS.items())


def left(folder):
    """What lies beside the output that is neither it nor of others."""
    return sorted({entry.name for entry in folder.iterdir()} - {"out"} - {name.partition("/")[0] for name in OTHERS})
