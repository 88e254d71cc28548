"""What kill_points.py runs: a caption run's ledger that commits, merges and commits again."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from reid_ray.caption.ledger.write_ahead_log import LEDGER, open_ledger

COUNT_FROM_START = True


def rows(*numbers, run="r"):
    made = []
    for number in numbers:
        row = {}
        for field in LEDGER:
            if field.nullable:
                row[field.name] = None
            elif pa.types.is_string(field.type):
                row[field.name] = f"{number}"
            elif pa.types.is_fixed_size_binary(field.type):
                row[field.name] = b"%016d" % number
            elif pa.types.is_floating(field.type):
                row[field.name] = float(number)
            elif pa.types.is_boolean(field.type):
                row[field.name] = False
            else:
                row[field.name] = number
        made.append({**row, "run": run})
    return pa.Table.from_pylist(made, LEDGER)


def before(folder):
    with open_ledger(folder / "out") as ledger:
        for number in (1, 2, 3):
            ledger.commit(f"old{number}", rows(number))


def write(folder):
    with open_ledger(folder / "out") as ledger:
        for number in (4, 5):
            ledger.commit(f"new{number}", rows(number))
            (folder / f"acknowledged-{number}").touch()
        ledger.compact()
        ledger.commit("new6", rows(6))
        (folder / "acknowledged-6").touch()
        ledger.compact()


def after(folder):
    said = {1, 2, 3} | {int(file.name.rpartition("-")[2]) for file in folder.glob("acknowledged-*")}
    with open_ledger(folder / "out") as ledger:
        found = held(ledger.row_files())
        ledger.compact()
        merged = held(ledger.row_files())
        hidden = [file.name for file in Path(ledger.folder).rglob(".*")]
    return {"lost": sorted(said - found), "lost_in_merging": sorted(found - merged), "hidden": hidden}


def held(files):
    return {int(key) for file in files for key in pq.read_table(file, schema=LEDGER)["key"].to_pylist()}
