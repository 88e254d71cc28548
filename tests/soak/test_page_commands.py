"""Every command of docs/commands.md that says that it needs nothing is run, in the page's order, each on what those above it wrote.

They run as they stand but for their size: SMALL adds overrides that make people fewer and trainings shorter.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from commands_in_pages import ROOT, commands_of

from reid_ray.config.reference import JOBS
from reid_ray.records import IMAGES
from reid_ray.storage import read_table

SMALL = {
    "synthesize": ["people.identities=60", "people.images_per_identity=3"],
    "caption": ["images.synthetic.identities=8"],
    "calibrate": ["people.identities=60", "rewrites=24"],
    "plan": ["sample=12"],
    "captioner": ["training.sight_steps=8", "training.steps=8"],
    "train_parser": ["training.steps=8", "test_images=8"],
    "train_verifier": ["images.synthetic.identities=400", "fit.epochs=1"],
    "train_editor": ["schedule.max_steps=4"],
    "train": ["schedule.max_steps=6"],
    "tune": ["schedule.max_steps=4"],
}
PAGE = [command for command in commands_of(ROOT / "docs" / "commands.md") if not command.needs]
SHOWN = [command for command in PAGE if command.job in JOBS and JOBS[command.job].command is None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder from which jobs/ can be seen, as it is in a checkout; COMMANDS_FOLDER keeps it from one run to the next."""
    kept = os.environ.get("COMMANDS_FOLDER")
    place = tmp_path_factory.mktemp("commands") if kept is None else Path(kept)
    if not (place / "jobs").exists():
        (place / "jobs").symlink_to(ROOT / "jobs")
    return place


def _started(command, folder):
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]]),
        "HF_HUB_OFFLINE": "1",
    }
    words = [sys.executable, f"jobs/{command.job}.py", *command.words[2:], *SMALL.get(command.job, [])]
    return subprocess.Popen(words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.parametrize("command", SHOWN, ids=str)
def test_a_command_runs_on_what_those_above_it_wrote(command, folder):
    process = _started(command, folder)
    if command.job == "serve":
        _ask(process, folder)
    said, _ = process.communicate(timeout=1200)
    assert process.returncode == 0, said[-3000:]


def _ask(process, folder):
    """The two questions of the page, by the programs that it shows; then Ctrl-C."""
    port = 8000
    for _ in range(180):
        try:
            if httpx.get(f"http://127.0.0.1:{port}/v1/ready", timeout=5).status_code == 200:
                break
        except httpx.HTTPError:
            assert process.poll() is None, process.stdout.read()[-3000:]
        time.sleep(1)
    picture = read_table(folder / "runs" / "synthetic" / "images", IMAGES)["image"][0].as_py()
    (folder / "crop.jpg").write_bytes(picture)
    asked = [command for command in PAGE if command.words[0] == "curl"]
    assert len(asked) == 2
    if shutil.which("curl"):
        for command in asked:
            done = subprocess.run(command.words, cwd=folder, capture_output=True, text=True, timeout=60, check=True)
            assert '"hits"' in done.stdout, done.stdout
    process.send_signal(signal.SIGINT)
