"""What an edit run loses, doubles or lets go stale when its processes are killed at random moments.

An edit job (two actors on a Ray of two nodes, drawing three times where the verifier says so, and a language model's words for every
picture that stands) is run again and again; at random moments one of an edit actor, the driver or the second node's raylet is ended with
SIGKILL. A dead driver is started again with the same command; a dead node comes back. When a job has come to its end, its three tables are
compared, row by row, with those of an undisturbed run. With --editor scripted, pictures are filled with the reference's colour, in batches
that take time and no core; with --editor tiny they are drawn by the editor that ships. Verifier and language model are scripted: what an
edit's verdict and words are depends on the picture and the request alone.

    python benchmarks/edit_kills.py --out benchmarks/results/edit_kills-DATE.json --kills 50 --state /tmp/edit_kills
    python benchmarks/edit_kills.py --editor tiny --kills 12 --state /tmp/edit_kills_tiny --out benchmarks/results/edit_kills_tiny-DATE.json
    python benchmarks/edit_kills.py --quick --out build/bench/edit_kills.json

What happened is appended to the state folder as it happens: the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.caption_engines.kill_loop import EVENTS, KillLoop, read_events
from benchmarks.caption_engines.kill_places import Places
from benchmarks.caption_kills import Life, TwoNodes, title
from benchmarks.edit_engines.scripted_parts import LotVerifier, RuleWriter, logged_editor
from benchmarks.edit_engines.small_world import edit_config, write_world
from benchmarks.harness import Report, run_benchmark
from reid_ray.config.common import SyntheticConfig
from reid_ray.data.images import decode_image
from reid_ray.edit.config import EditJob
from reid_ray.edit.job import run_edit
from reid_ray.records import CAPTIONS, EDITS, IMAGES
from reid_ray.storage import read_table

KINDS = ("edit actor", "driver", "raylet of the second node")
ACTORS = ("EditActor", "DescribeActor")
UNDISTURBED = "undisturbed"
TABLES = {
    "images": (IMAGES, "image_id", ("image_sha256", "person_id", "split", "synthetic")),
    "captions": (CAPTIONS, "caption_id", ("image_id", "text", "instruction_id", "kind", "person_id")),
    "edits": (EDITS, "edit_id", ("image_id", "status", "reason", "tries", "seed", "slots", "person_id")),
}


def job_config(state: Path, name: str, address: str | None) -> EditJob:
    """The job of a state folder; always the same but for its output."""
    setting = json.loads((state / "setting.json").read_text())
    values: dict[str, Any] = {
        "editor.pool": json.dumps({"replicas": 2, "batch_size": 8, "num_cpus": 1}),
        "editor.drawing.batch_size": 8,
        "rewriter.share": 1.0,
        "rewriter.pool.batch_size": 32,
        "changes.per_image": 2,
        "images.readers": 1,
        "page_edits": 0,
        "ledger.group_rows": 16,
        "ledger.group_seconds": 1,
        "output.if_exists": "reuse",
        "ray.address": address or "null",
    }
    if setting["editor"] == "tiny":
        values["editor.model"] = "builtin:tiny-editor"
    return edit_config(state / "world", state / name, **{key.replace(".", "__"): value for key, value in values.items()})


class EditLife(Life):
    """One job from its first start to its end, over as many drivers as it takes."""

    def start(self) -> None:
        """Start a driver; always the same command."""
        command = [sys.executable, __file__, "--drive", str(self._state), self.name, self._nodes.address]
        with open(self._state / f"{self.name}.log", "ab") as log:
            self._driver = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def kill(self, kind: str) -> bool:
        """End a process of this kind, if there is one."""
        if kind != "edit actor":
            return super().kill(kind)
        actors = [each for each in psutil.Process().children(recursive=True) if any(name in title(each) for name in ACTORS)]
        if actors:
            random.choice(actors).kill()
        return bool(actors)


def compared(reference: Path, disturbed: Path, *, exact: bool = True) -> dict[str, int]:
    """Rows of a finished run against those of the undisturbed one, over its three tables.

    Args:
        reference: output of the undisturbed run.
        disturbed: that of the other.
        exact: pictures are the same to the last bit, as what is scripted draws them. Those of a network are within a grey level, for
            other edits stood beside them (docs/equalities.md); a caption, whose name follows its picture's bytes, then goes by its edit.
    """
    total: Counter[str] = Counter({"rows": 0, "lost": 0, "duplicated": 0, "stale": 0, "other_content": 0, "quarantined": 0})
    for folder, (schema, name, columns) in TABLES.items():
        rows, others = (_table(place / folder, schema, exact=exact) for place in (disturbed, reference))
        key = name if exact or folder != "captions" else "image_id"
        expected = {row[key]: row for row in others}
        found = Counter(row[key] for row in rows)
        total["rows"] += len(rows)
        total["lost"] += len(set(expected) - set(found))
        total["duplicated"] += sum(found.values()) - len(found)
        total["stale"] += len(set(found) - set(expected))
        total["other_content"] += sum(_differs(row, expected[row[key]], columns) for row in rows if row[key] in expected)
        total["quarantined"] += sum("quarantined" in str(row.get("reason")) for row in rows)
    return dict(total)


def _table(folder: Path, schema: Any, *, exact: bool) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_table(folder, schema).to_pylist()
    if not exact and {"image", "image_sha256"} <= set(schema.names):
        for row in rows:
            row["image_sha256"] = np.asarray(decode_image(row["image"])).astype(np.int16)
    return rows


def _differs(row: dict[str, Any], expected: dict[str, Any], columns: Sequence[str]) -> bool:
    for name in columns:
        if isinstance(row[name], np.ndarray):
            if row[name].shape != expected[name].shape or np.abs(row[name] - expected[name]).max() > 1:
                return True
        elif row[name] != expected[name]:
            return True
    return False


def run_kills(state: Path, kills: int, people: int, *, every_s: float, editor: str, for_s: float = math.inf, in_turn: bool = False) -> None:
    """Kill until the state folder tells of `kills` kills, and see the last job to its end; see KillLoop.

    Args:
        state: where everything is kept.
        kills: how many in all, those of earlier calls included.
        people: of whom a job edits two pictures each, twice.
        every_s: a kill comes at a random moment of so many seconds after the last, whatever has been done.
        editor: scripted or tiny; a state folder keeps the one it began with.
        for_s: stops after so many seconds.
        in_turn: one kind after the other, each time when something new is on disk; else drawn at random.
    """
    loop = KillLoop(state, kills, KINDS, every_s, time.time() + for_s, in_turn=in_turn)
    nodes, places = TwoNodes(), Places(state, None)

    def compare(name: str) -> dict[str, Any]:
        needed = json.loads((state / "undisturbed.json").read_text())["asked"]
        return {"needed": needed, **compared(state / UNDISTURBED, state / name, exact=editor == "scripted")}

    try:
        _prepare(places, people, nodes, editor)
        loop.run(editor, begin=lambda name: EditLife(places, name, nodes), mend=nodes.mend, compare=compare)
    finally:
        nodes.close()


def _prepare(places: Places, people: int, nodes: TwoNodes, editor: str) -> None:
    """The world, and what an undisturbed run makes of it."""
    state = places.state
    if (state / "undisturbed.json").exists():
        return
    state.mkdir(parents=True, exist_ok=True)
    (state / "setting.json").write_text(json.dumps({"editor": editor}))
    if not (state / "world").exists():
        write_world(state / "world", SyntheticConfig(identities=people, images_per_identity=2, val_share=0, test_share=0.1, seed=4))
    life = EditLife(places, UNDISTURBED, nodes)
    life.start()
    clock = time.time()
    while not life.finished():
        time.sleep(0.2)
    (state / "undisturbed.json").write_text(json.dumps({"asked": life.asked(), "seconds": time.time() - clock}))


def _drive(state: Path, name: str, address: str) -> None:
    setting = json.loads((state / "setting.json").read_text())
    config = job_config(state, name, address)
    editor = logged_editor(setting["editor"], config.editor, str(state / f"{name}.asked"))
    verifier = LotVerifier(never=0.3, levels=None if setting["editor"] == "scripted" else 32)
    run_edit(config, editor=editor, verifier=verifier, engine=RuleWriter())


def tell(report: Report, state: Path) -> None:
    """Rows and claims of what the state folder tells. A job that was never seen to its end counts nowhere."""
    events = read_events(state / EVENTS)
    ends = [event for event in events if event["event"] == "end"]
    ended = {event["job"] for event in ends}
    kills = [event for event in events if event["event"] == "kill" and event["job"] in ended]
    names = ("rows", "lost", "duplicated", "stale", "other_content", "quarantined", "asked", "needed")
    total: Counter[str] = Counter()
    for end in ends:
        during = Counter(event["kind"] for event in kills if event["job"] == end["job"])
        counts = {name: end[name] for name in names}
        counts["drivers failed"] = sum(event["event"] == "driver failed" and event["job"] == end["job"] for event in events)
        total.update(counts)
        report.row(job=end["job"], **{f"{kind} kills": during[kind] for kind in KINDS}, **counts)
    of_kind = Counter(event["kind"] for event in kills)
    report.row(job="all", **{f"{kind} kills": of_kind[kind] for kind in KINDS}, **total)
    for name in ("lost", "duplicated", "stale", "other_content", "quarantined"):
        report.claim(f"rows {name} over {len(kills)} kills in {len(ends)} jobs", total[name], "<=", 0)
    report.claim("share of drawings done twice", total["asked"] / max(1, total["needed"]) - 1, "<=", 0.5)
    gave_up = [event for event in events if event["event"] == "gave up"]
    for event in gave_up:
        report.row(job="gave up", said=event["said"])
    report.claim("jobs that came to no end, however often they were started", len(gave_up), "<=", 0)


def main() -> int:
    if sys.argv[1:2] == ["--drive"]:
        _drive(Path(sys.argv[2]), *sys.argv[3:])
        return 0
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--people", type=int, default=120)
    parser.add_argument("--every", type=float, default=12)
    parser.add_argument("--for", dest="for_s", type=float, default=math.inf, help="seconds after which it stops where it is")
    parser.add_argument("--state", type=Path)
    parser.add_argument("--editor", choices=("scripted", "tiny"), default="scripted")
    mine, others = parser.parse_known_args()

    def run(report: Report, quick: bool) -> None:
        tiny = mine.editor == "tiny"  # it draws for minutes: a kill comes when something new was drawn
        with tempfile.TemporaryDirectory(prefix="kills") as folder:
            state = mine.state or Path(folder)
            if quick:
                run_kills(state, len(KINDS), 40, every_s=2, editor=mine.editor, in_turn=True)
            elif mine.kills:
                run_kills(state, mine.kills, mine.people, every_s=mine.every, editor=mine.editor, for_s=mine.for_s, in_turn=tiny)
            tell(report, state)

    return run_benchmark(__doc__ or "", run, others)


if __name__ == "__main__":
    sys.exit(main())
