"""What a caption run loses, doubles or lets go stale when its processes are killed at random moments.

A captioning job (the tiny multimodal model through vLLM, two actors or --actors on a Ray of two nodes) is run again and again; at random
moments one of a caption actor, the driver or the second node's raylet is ended with SIGKILL. A dead driver is started again with the
same command; a dead node comes back. When a job has come to its end, its table is compared, row by row, with that of an undisturbed run.
The engine is vLLM itself, with a line in a log for every question, from which the share of work done twice is counted. With --engine
scripted, answers are drawn from the question's name instead, after steps that take time and no core (caption_engines/scripted_gpu.py):
an actor then starts in a tenth of the time, so that an hour holds more kills of everything around the engine. With --broken, one actor
of each driver has an engine that fails at every request, as a broken GPU does: its rows must come from the others. With --s3, images,
ledger and output lie in a bucket of an S3 server on this machine (caption_engines/kill_places.py).

    python benchmarks/caption_kills.py --out benchmarks/results/caption_kills-DATE.json --kills 100 --state /tmp/kills
    python benchmarks/caption_kills.py --out benchmarks/results/caption_kills_many-DATE.json --engine scripted --actors 16 --broken \
        --images 20000 --kills 200 --every 30 --state /tmp/kills
    python benchmarks/caption_kills.py --out benchmarks/results/caption_kills_s3-DATE.json --engine scripted --actors 16 --broken \
        --images 10000 --kills 50 --every 20 --weights 6 1 1 --s3
    python benchmarks/caption_kills.py --quick --out build/bench/caption_kills.json

What happened is appended to the state folder as it happens: the same command goes on where it stopped, with --kills 0 it writes the
table of what was done so far, and a file named "enough" in that folder tells it to kill no more and see the last job to its end. With
--for it stops where it is after so many seconds (the driver's end then is no kill that counts). Of several --state folders the first is
worked in, and what all of them tell is summed. What an S3 server holds ends with its process; --s3 ENDPOINT takes one that runs already.
--weights says how often each of the three is killed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from benchmarks.caption_engines.kill_loop import EVENTS, GaveUpError, KillLoop, append, read_events
from benchmarks.caption_engines.kill_places import Places, S3Server
from benchmarks.caption_engines.logged_engine import EngineToBe, Setting
from benchmarks.harness import Report, run_benchmark
from reid_ray.caption.config import CaptionJob
from reid_ray.caption.job import run_caption
from reid_ray.config.base import load_config
from reid_ray.config.common import SyntheticConfig
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.records import CAPTIONS, IMAGES
from reid_ray.storage import TableWriter, read_table

KINDS = ("caption actor", "driver", "raylet of the second node")
ACTOR = "CaptionActor"
UNDISTURBED = "undisturbed"
COMPARED = ("caption_id", "image_id", "image_sha256", "kind", "text", "status", "instruction_id", "prompt_fingerprint", "model", "revision")
MOST_FAILURES = 5  # of a job's drivers, one after the other with nothing new on disk


def job_config(state: Path, name: str, address: str | None, setting: Setting) -> CaptionJob:
    pool = {"replicas": setting.actors, "batch_size": 16} | ({} if setting.actors == 2 else {"num_cpus": 0.1})
    places = Places(state, setting.endpoint)
    greedy = {"instructions": ["static", "dynamic"], "pool": pool}
    values = {
        "images.source": "parquet",
        "images.path": places.of("images"),
        "images.readers": 1,
        "captioners": json.dumps({"main": greedy}),
        "rewriter.share": 0,
        "output.path": places.of(name),
        "output.if_exists": "reuse",
        "ray.address": address or "null",
    }
    return load_config(CaptionJob, None, [f"{key}={value}" for key, value in values.items()])


class TwoNodes:
    """A Ray of this machine with a head and a second node."""

    def __init__(self) -> None:
        os.environ.setdefault("RAY_raylet_start_wait_time_s", "60")
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "include_dashboard": False, **node_arguments()})
        self.address: str = self._cluster.address
        self._second: Any = None
        self.mend()

    def mend(self) -> None:
        """Bring the second node back if it is gone; where the machine is too busy for it to start, later."""
        if self._second is None:
            try:
                self._second = self._cluster.add_node(num_cpus=2, **node_arguments())
            except Exception as error:  # noqa: BLE001
                print(f"the second node did not start: {str(error).splitlines()[0]}", flush=True)

    def kill_raylet(self) -> bool:
        """SIGKILL to the second node's raylet."""
        if self._second is None:
            return False
        from ray._private import ray_constants

        os.kill(self._second.all_processes[ray_constants.PROCESS_TYPE_RAYLET][0].process.pid, signal.SIGKILL)
        self._cluster.remove_node(self._second, allow_graceful=False)
        self._second = None
        return True

    def close(self) -> None:
        """Stop both nodes."""
        self._cluster.shutdown()


def node_arguments() -> dict[str, int]:
    """Of either node. A raylet that is not told its agents' ports waits 15 s for them, less than they take to start on a busy machine."""
    sockets = [socket.socket() for _ in range(4)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    names = ("metrics_agent_port", "metrics_export_port", "runtime_env_agent_port", "dashboard_agent_listen_port")
    return {"object_store_memory": 150 << 20, **dict(zip(names, ports, strict=True))}


class Life:
    """One job from its first start to its end, over as many drivers as it takes."""

    def __init__(self, places: Places, name: str, nodes: TwoNodes) -> None:
        self._places, self._state, self.name, self._nodes = places, places.state, name, nodes
        self._failures: list[int] = []  # blocks on disk when a driver failed, one after the other
        self.log = self._state / f"{name}.asked"
        self._driver: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start a driver; always the same command."""
        command = [sys.executable, __file__, "--drive", str(self._state), self.name, self._nodes.address]
        with open(self._state / f"{self.name}.log", "ab") as log:
            self._driver = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def finished(self) -> bool:
        """Whether the driver came to its end. One that ended in an error is started again, as its user would, and counted.

        Raises:
            GaveUpError: drivers fail one after the other.
        """
        code = self._running.poll()
        if code not in (None, 0):
            said = (self._state / f"{self.name}.log").read_text(errors="replace").strip().splitlines()[-1:]
            append(self._state / EVENTS, event="driver failed", job=self.name, code=code, said=said)
            self._failures.append(self.committed())
            if self._failures[-MOST_FAILURES:] == [self._failures[-1]] * MOST_FAILURES:
                raise GaveUpError(f"{self.name}: {MOST_FAILURES} drivers failed, the last one: {' '.join(said)}")
            self.start()
        return code == 0

    def kill(self, kind: str) -> bool:
        """End a process of this kind, if there is one."""
        if kind == "driver":
            os.killpg(self._running.pid, signal.SIGKILL)
            self._running.wait()
            self.start()
            return True
        if kind == "caption actor":
            actors = [process for process in psutil.Process().children(recursive=True) if ACTOR in title(process)]
            for actor in random.sample(actors, len(actors)):
                with contextlib.suppress(psutil.NoSuchProcess):  # it may end by itself meanwhile
                    actor.kill()
                    return True
            return False
        return self._nodes.kill_raylet()

    def asked(self) -> int:
        """Questions put to engines so far."""
        return sum(map(int, self.log.read_text().split())) if self.log.exists() else 0

    def committed(self) -> int:
        """Batches on disk."""
        return self._places.blocks(self.name)

    def stop(self) -> None:
        """End the driver if it runs."""
        if self._driver is not None and self._driver.poll() is None:
            os.killpg(self._driver.pid, signal.SIGKILL)
            self._driver.wait()

    def remove(self) -> None:
        """Remove output and ledger of the job."""
        self._places.remove(self.name)

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._driver is not None
        return self._driver


def title(process: psutil.Process) -> str:
    """A process's command line; nothing of one that has just ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def compared(places: Places, disturbed: str) -> dict[str, int]:
    """Rows of a finished run against those of the undisturbed one."""
    expected = {row["caption_id"]: row for row in read_table(places.captions(UNDISTURBED), CAPTIONS).to_pylist()}
    rows = read_table(places.captions(disturbed), CAPTIONS).to_pylist()
    found = Counter(row["caption_id"] for row in rows)
    differing = [row for row in rows if row["caption_id"] in expected and any(row[n] != expected[row["caption_id"]][n] for n in COMPARED)]
    return {
        "rows": len(rows),
        "lost": len(set(expected) - set(found)),
        "duplicated": sum(found.values()) - len(found),
        "stale": len(set(found) - set(expected)),
        "other_text": len(differing),
        "quarantined": sum("quarantined" in str(row["reason"]) for row in rows),
    }


def run_kills(
    state: Path,
    kills: int,
    images: int,
    *,
    setting: Setting,
    every_s: float,
    for_s: float = math.inf,
    weights: Sequence[float] | None = None,
    in_turn: bool = False,
) -> None:
    """Kill until the state folder tells of `kills` kills, and see the last job to its end; see KillLoop.

    Args:
        state: where everything is kept.
        kills: how many in all, those of earlier calls included.
        images: in a job.
        setting: which engines, in how many actors; a state folder keeps the one it began with.
        every_s: a kill comes at a random moment of so many seconds after the last.
        for_s: stops after so many seconds.
        weights: of KINDS, where they are drawn.
        in_turn: one of KINDS after the other; else drawn at random.
    """
    loop = KillLoop(state, kills, KINDS, every_s, time.time() + for_s, weights, in_turn)
    places = Places(state, setting.endpoint)
    places.give_credentials()
    nodes = TwoNodes()

    def compare(name: str) -> dict[str, Any]:
        needed = json.loads((state / "undisturbed.json").read_text())["asked"]
        return {"needed": needed, **compared(places, name)}

    try:
        prepare(places, images, nodes, setting)
        loop.run(setting.engine, begin=lambda name: Life(places, name, nodes), mend=nodes.mend, compare=compare)
    finally:
        nodes.close()


def prepare(places: Places, images: int, nodes: TwoNodes, setting: Setting) -> None:
    """Images, and what an undisturbed run makes of them."""
    state = places.state
    if (state / "undisturbed.json").exists():
        return
    state.mkdir(parents=True, exist_ok=True)
    (state / "setting.json").write_text(json.dumps(asdict(setting)))
    people = SyntheticPeople(SyntheticConfig(identities=images, images_per_identity=1))
    if not (state / "images").exists():
        with TableWriter(state / "images", IMAGES, rows_per_part=32) as writer:
            for start in range(0, images, 32):
                writer.append(people.image_table(start, min(start + 32, images)))
    places.put("images")
    life = Life(places, UNDISTURBED, nodes)
    life.start()
    clock = time.time()
    while not life.finished():
        time.sleep(0.2)
    (state / "undisturbed.json").write_text(json.dumps({"asked": life.asked(), "seconds": time.time() - clock}))


def tell(report: Report, states: Sequence[Path]) -> None:
    """Rows and claims of what the state folders tell. A job that was never seen to its end counts nowhere."""
    events = [event for state in states for event in read_events(state / EVENTS)]
    ends = [event for event in events if event["event"] == "end"]
    ended = {event["job"] for event in ends}
    kills = [event for event in events if event["event"] == "kill" and event["job"] in ended]
    total: Counter[str] = Counter()
    for end in ends:
        during = Counter(event["kind"] for event in kills if event["job"] == end["job"])
        counts = {name: end[name] for name in ("rows", "lost", "duplicated", "stale", "other_text", "quarantined", "asked", "needed")}
        total.update(counts)
        counts["drivers failed"] = sum(event["event"] == "driver failed" and event["job"] == end["job"] for event in events)
        total["drivers failed"] += counts["drivers failed"]
        report.row(job=end["job"], **{f"{kind} kills": during[kind] for kind in KINDS}, **counts)
    of_kind = Counter(event["kind"] for event in kills)
    report.row(job="all", **{f"{kind} kills": of_kind[kind] for kind in KINDS}, **total)
    for name in ("lost", "duplicated", "stale", "other_text", "quarantined"):
        report.claim(f"rows {name} over {len(kills)} kills in {len(ends)} jobs", total[name], "<=", 0)
    goal = 0.5 if Setting.of(states[0]).engine == "vllm" else 0.1
    report.claim("share of engine work done twice", total["asked"] / max(1, total["needed"]) - 1, "<=", goal)
    gave_up = [event for event in events if event["event"] == "gave up"]
    for event in gave_up:
        report.row(job="gave up", said=event["said"])
    report.claim("jobs that came to no end, however often they were started", len(gave_up), "<=", 0)


def main() -> int:
    if sys.argv[1:2] == ["--drive"]:
        state, name, address = Path(sys.argv[2]), *sys.argv[3:]
        setting = Setting.of(state)
        broken = state / f"{name}.broken" if setting.broken and name != UNDISTURBED else None
        run_caption(job_config(state, name, address, setting), engine=EngineToBe(state / f"{name}.asked", setting, broken))
        return 0
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--images", type=int, default=320)
    parser.add_argument("--every", type=float, default=40)
    parser.add_argument("--for", type=float, default=math.inf, dest="for_s")
    parser.add_argument("--state", type=Path, nargs="+")
    parser.add_argument("--weights", type=float, nargs=len(KINDS))
    parser.add_argument("--s3", nargs="?", const="")
    parser.add_argument("--engine", choices=("vllm", "scripted"), default="vllm")
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--broken", action="store_true")
    mine, others = parser.parse_known_args()

    def run(report: Report, quick: bool) -> None:
        with tempfile.TemporaryDirectory(prefix="kills") as folder, contextlib.ExitStack() as stack:
            states = mine.state or [Path(folder)]
            endpoint = mine.s3 or (None if mine.s3 is None else stack.enter_context(S3Server()).endpoint)
            setting = Setting(mine.engine, mine.actors, mine.broken, endpoint)
            if quick:
                run_kills(states[0], len(KINDS), 320, setting=setting, every_s=2, in_turn=True)
            elif mine.kills:
                every = {"every_s": mine.every, "for_s": mine.for_s, "weights": mine.weights}
                run_kills(states[0], mine.kills, mine.images, setting=setting, **every)
            tell(report, states)

    return run_benchmark(__doc__ or "", run, others)


if __name__ == "__main__":
    sys.exit(main())
