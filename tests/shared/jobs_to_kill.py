"""What kill_points.py runs: whole jobs that replace their own output, on a handful of synthetic people."""

import contextlib
import io
import os
import shutil
from pathlib import Path

from reid_ray.data.export.config import ExportJob
from reid_ray.data.export.job import run_export
from reid_ray.data.ingest.config import IngestJob
from reid_ray.data.ingest.job import run_ingest
from reid_ray.data.lint.config import LintJob
from reid_ray.data.lint.job import run_lint
from reid_ray.data.synthetic.config import SynthesizeJob
from reid_ray.data.synthetic.job import run_synthesize
from reid_ray.storage import read_manifest
from reid_ray.storage.listing import differences, read_mark

PEOPLE = {"identities": 2, "images_per_identity": 2, "height": 32, "width": 16, "val_share": 0, "test_share": 0}


def synthesize(folder, number):
    run_synthesize(config(SynthesizeJob, folder, people={**PEOPLE, "seed": number}))


def ingest(folder, number):
    run_ingest(config(IngestJob, folder, source=crops(folder, number), load={"processes": 0}))


def lint(folder, number):
    run_lint(config(LintJob, folder, source=crops(folder, number), load={"processes": 0}))


def export(folder, number):
    tables = Path(os.environ["REID_KILL_TABLES"])
    run_export(config(ExportJob, folder, tables=str(tables), format="webdataset", kinds=["human"] * number, processes=0))


def crops(folder, number):
    return {"format": "folder", "path": str(folder / "crops"), "name": f"crops{number}"}


def config(model, folder, **values):
    return model.model_validate({**values, "output": {"path": str(folder / "out"), "if_exists": "replace"}})


def quietly(job, folder, number):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        globals()[job](folder, number)


def before(folder, *, job):
    (folder / "crops").mkdir()
    (folder / "crops" / "a.jpg").write_bytes(b"no picture")
    shutil.copy(Path(os.environ["REID_KILL_TABLES"]) / "picture.jpg", folder / "crops" / "b.jpg")
    (folder / ".out.x.12345678.partial").mkdir()
    quietly(job, folder, 1)


def run(folder, *, job):
    quietly(job, folder, 2)


def after(folder, *, job):
    older = state(folder / "out")
    quietly(job, folder, 3)
    left = sorted({entry.name for entry in folder.iterdir()} - {"out", "crops", ".out.x.12345678.partial"})
    return {"whole": older, "again": state(folder / "out"), "left": left, "crops": len(list((folder / "crops").iterdir()))}


def state(out):
    """Number of the run whose whole result is there, None if none is."""
    mark = read_mark(out)
    if not (mark and mark["whole"]) or list(differences(out)):
        return None
    made = read_manifest(out)["config"]
    if "people" in made:
        return made["people"]["seed"]
    return len(made["kinds"]) if "kinds" in made else int(made["source"]["name"].removeprefix("crops"))
