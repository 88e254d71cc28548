"""What kill_points.py runs: the migration of an output of format 0."""

import shutil
from pathlib import Path

from reid_ray.migrate.config import MigrateJob
from reid_ray.migrate.file_upgrades import versioned_files
from reid_ray.migrate.job import run_migrate
from reid_ray.storage import place as places
from reid_ray.storage.listing import MARK, differences, read_mark

COUNT_FROM_START = True
GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "96cb249" / "people"


def before(folder, *, exchange):
    if not exchange:
        places.exchange = lambda one, other: False  # a file system that cannot
    shutil.copytree(GOLDEN, folder / "outputs")


def migrate(folder, **_):
    run_migrate(MigrateJob(path=str(folder / "outputs")))


def after(folder, **_):
    dead = state(folder / "outputs")
    run_migrate(MigrateJob(path=str(folder / "outputs")))
    return {"dead": dead, "again": state(folder / "outputs"), "beside": sorted(entry.name for entry in folder.iterdir())}


def state(out):
    """Old if every file is as it was, new if every one is of today's format and listed; None if nothing is there; torn otherwise."""
    if not out.exists():
        return None
    files = {
        file.relative_to(out).as_posix(): file.read_bytes() for file in out.rglob("*") if file.is_file() and not file.name.startswith(MARK)
    }
    if files == {file.relative_to(GOLDEN).as_posix(): file.read_bytes() for file in GOLDEN.rglob("*") if file.is_file()}:
        return "old"
    mark = read_mark(out)
    whole = mark is not None and mark["whole"] and not list(differences(out))
    return "new" if whole and not any(dated.older for dated in versioned_files(out)) else "torn"
