"""From a folder of crops to a search that answers, each command in a process of its own as a user would type it: seconds a stage.

    python benchmarks/first_search.py --out first_search.json

`reid-ray search` in one process, once for all and once more, beside index by Ray's actors and serve as two commands. 530 crops: drawn
people, or the first 530 of the folder that REID_RAY_CROPS names. A stage ends with a line that the command says.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.harness import Report, run_benchmark
from reid_ray.config.common import SyntheticConfig
from reid_ray.data.images import is_image_name
from reid_ray.data.synthetic.people import SyntheticPeople

ROOT = Path(__file__).resolve().parents[1]
CROPS, QUICK_CROPS = 530, 60
GOAL_S = 60.0
# Stage -> what a line says that ends it.
SEARCH = {"start, encoder": r"^index: [1-9]\d*/", "embed, index": "^index: read", "service": "^search: "}
AGAIN = {"look for what was made": "^index: .* kept", "service": "^search: "}
INDEX = {"Ray, actors, embed, index": "^index: read"}
SERVE = {"service": "^serve: open"}


def write_crops(folder: Path, count: int) -> str:
    """Fill a folder with crops; returns what they are."""
    folder.mkdir()
    given = os.environ.get("REID_RAY_CROPS")
    if given is not None:
        names = sorted(path for path in Path(given).rglob("*") if is_image_name(path.name))
        for number, path in enumerate(islice(names, count)):
            (folder / f"{number:04d}{path.suffix}").write_bytes(path.read_bytes())
        return "real"
    people = SyntheticPeople(SyntheticConfig(identities=-(-count // 5), images_per_identity=5, seed=20))
    for number, data in enumerate(people.image_table(0, count)["image"].to_pylist()):
        (folder / f"{number:04d}.jpg").write_bytes(data)
    return "drawn"


def stages_of(words: Sequence[str], ends: Mapping[str, str]) -> dict[str, float]:
    """Seconds of each stage of a command, which is stopped, or waited for, after the last one.

    Raises:
        RuntimeError: it ends before, with what it said.
    """
    started = before = time.perf_counter()
    command = [sys.executable, *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    seconds: dict[str, float] = {}
    said = []
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        left = list(ends.items())
        for line in process.stdout:
            said.append(line)
            if left and re.search(left[0][1], line):
                now = time.perf_counter()
                seconds[left.pop(0)[0]] = now - before
                before = now
                if not left:
                    process.send_signal(signal.SIGINT)
    if left:
        raise RuntimeError(f"{' '.join(words)} ended before {left[0][0]}: {''.join(said)}")
    return {**seconds, "all": before - started}


def run(report: Report, quick: bool) -> None:
    """Fill the report."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        count = QUICK_CROPS if quick else CROPS
        kind = write_crops(folder / "crops", count)
        search = ["jobs/search.py", str(folder / "crops"), "--out", str(folder / "gallery"), "serve.serve.port=0"]
        index = ["jobs/index.py", "--config", "retrieval/index_folder.yaml", f"images.path={folder / 'crops'}"]
        index += ["encoder=builtin:tiny-encoder", f"output.path={folder / 'by_ray'}", "ray.execution=ray"]
        serve = ["jobs/serve.py", "--config", "serve/serve.yaml", f"index={folder / 'by_ray'}", "serve.port=0"]
        runs = {
            "reid-ray search": (search, SEARCH),
            "the same again": (search, AGAIN),
            "index by Ray": (index, INDEX),
            "serve": (serve, SERVE),
        }
        for name, (words, ends) in runs.items():
            for stage, seconds in stages_of(words, ends).items():
                report.row(command=name, stage=stage, crops=count, of=kind, seconds=round(seconds, 2))
        first = next(row["seconds"] for row in report.rows if row["stage"] == "all")
        report.claim("seconds from the command to a search that answers", first, "<=", GOAL_S)


if __name__ == "__main__":
    sys.exit(run_benchmark(__doc__ or "", run))
