"""A service on Ray Serve that is searched and changed while its processes are killed: what fails beyond one retry, and what is wrong.

    python benchmarks/serving_kills.py --out benchmarks/results/serving_kills-DATE.json [--quick] [--kills 100] [--encoders 2]

Two replicas of a tiny encoder with random weights, or of searchers alone beside encoders. Clients search for a picture by itself and look
at the first hit: it must be that picture's item with that picture, unless the item was deleted or erased by then; and what a change was
told to be done must show in every search that begins a second later. Meanwhile one client adds, deletes and erases, has the gallery
compacted (a new generation), and SIGKILL goes to a replica, to an encoder where there are any, to the keeper of turns, to Ray Serve's
controller and, where requests come through it (--ingress proxy), to its proxy, one after the other, two seconds after the service was
whole again; how long that took is told. Changes end when the last kill is over, or later. A search is tried once more where the connection
breaks, or the answer is the proxy's; the second try waits until the port answers, and that wait is told.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import httpx
import numpy as np
from PIL import Image

from benchmarks.harness import Report, run_benchmark
from benchmarks.serving import QUESTIONS, TOWERS
from reid_ray.config.common import RayConfig
from reid_ray.errors import ReidRayError
from reid_ray.gallery.config import GalleryConfig
from reid_ray.gallery.gallery_writer import create_gallery
from reid_ray.model.dual.config import ModelConfig
from reid_ray.model.dual.dual_encoder import build_dual_encoder
from reid_ray.runtime import ray_session
from reid_ray.serve.client import SearchClient
from reid_ray.serve.config import ServeJob
from reid_ray.serve.job import start_service

ITEMS, CLIENTS = 60, 4
KILLED = {  # by what the class of their actor ends with
    "replica": ":Replica",
    "encoder": ":Encoder",
    "keeper of turns": "GenerationTurns",
    "proxy": "ProxyActor",
    "controller": "ServeController",
}
_ROUND = ("replica", "encoder", "keeper of turns", "replica", "proxy", "encoder", "replica", "keeper of turns", "replica", "controller")
_SEEN_S = 1.0  # how long a replica may miss a change
_WAIT_S = 60.0  # for a port that answers again
_LOST_S = 20.0  # after which what is not found was lost, not late
_WHOLE_S = 180.0  # for all that was there before a kill


@dataclass
class World:
    """What is so, and what was seen. `gone` has when a removal was answered, `there` when an addition was."""

    there: dict[str, float] = field(default_factory=dict)
    gone: dict[str, float] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)
    waits_s: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    late_s: list[float] = field(default_factory=list)
    whole_s: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in KILLED})
    lock: threading.Lock = field(default_factory=threading.Lock)
    ended: threading.Event = field(default_factory=threading.Event)
    kills_over: threading.Event = field(default_factory=threading.Event)

    def count(self, what: str, by: int = 1) -> None:
        """Note that something happened."""
        with self.lock:
            self.seen[what] += by


def picture(item: str) -> bytes:
    """An item's picture, which no other has."""
    rng = np.random.default_rng(int(item))
    made = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (8, 4, 3), np.uint8).repeat(16, 0).repeat(16, 1)).save(made, "PNG")
    return made.getvalue()


def search(world: World, url: str, rng: random.Random) -> None:
    """Search for items by their pictures until the end."""
    http = httpx.Client(base_url=url, timeout=30, trust_env=False)
    while not world.ended.is_set():
        with world.lock:
            known = [each for each, since in world.there.items() if time.monotonic() - since > _SEEN_S]
        if not known:
            time.sleep(0.05)
            continue
        item, began = rng.choice(known), time.monotonic()
        reply = _asked(world, http, item)
        if reply is None:
            continue
        world.count("searches")
        hits = reply.json()["hits"]
        with world.lock:
            removed = item in world.gone
            wrong = [hit["item_id"] for hit in hits if began - world.gone.get(hit["item_id"], began) > _SEEN_S]
        if wrong:
            world.failures.append(f"{wrong[0]} was found {began - world.gone[wrong[0]]:.1f} s after its removal was answered")
        if not removed and (not hits or hits[0]["item_id"] != item) and item not in world.gone:
            _see_how_late(world, http, item)
    http.close()


def _see_how_late(world: World, http: httpx.Client, item: str) -> None:
    """Search for an item that was missed, until it is found: it was added lately, or is lost."""
    with world.lock:
        since = world.there.get(item)
    while since is not None and item not in world.gone and not world.ended.is_set():
        reply = _asked(world, http, item)
        hits = [] if reply is None else reply.json()["hits"]
        if hits and hits[0]["item_id"] == item:
            world.late_s.append(time.monotonic() - since)
            return
        if time.monotonic() - since > _LOST_S:
            world.failures.append(f"{item} is not the first hit of its own picture")
            return


def _asked(world: World, http: httpx.Client, item: str) -> httpx.Response | None:
    """The answer of a search, tried once more; None where both failed."""
    for attempt in (1, 2):
        try:
            reply = http.post("/v1/search/upload", files={"image": picture(item)}, data={"question": '{"k": 5}'})
        except httpx.TransportError as error:
            why = type(error).__name__
        else:
            if reply.status_code == 200:
                return reply
            why = f"{reply.status_code} {reply.text[:80]}"
        if attempt == 1:
            world.count("searches tried once more")
            world.count(f"once more: {why}")
            began = time.monotonic()
            _wait_for_port(http, began + _WAIT_S)
            with world.lock:
                world.waits_s.append(time.monotonic() - began)
        else:
            world.count("searches failed after one more try")
            with world.lock:
                world.seen[f"failed: {why}"] += 1
    return None


def _wait_for_port(http: httpx.Client, end: float) -> None:
    while time.monotonic() < end:
        try:
            if http.get("/v1/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)


def change(world: World, url: str, changes: int, swaps: int, rng: random.Random) -> None:
    """Add, delete, erase and compact, one after the other, by the client and its patience."""
    with SearchClient(url, patience_s=120) as client:
        number = ITEMS
        for at in itertools.count():
            if at >= changes and world.kills_over.is_set():
                break
            kind = rng.choice(("add", "delete", "erase"))
            with world.lock:
                known = list(world.there)
            try:
                if kind == "add" or len(known) < ITEMS // 2:
                    _add(world, client, [f"{number}"])
                    number += 1
                    kind = "add"
                else:
                    item = rng.choice(known)
                    with world.lock:
                        del world.there[item]
                    if kind == "delete":
                        client.delete([item])
                    else:
                        client.erase([item], request=f"r-{at}", now=at % 10 == 0)
                    with world.lock:
                        world.gone[item] = time.monotonic()
                world.count(kind)
                if at % max(1, changes // swaps) == 0:
                    client.finished(client.compact())
                    world.count("generations asked for")
            except ReidRayError as error:
                world.count("changes failed")
                world.failures.append(f"{kind}: {error}")
    world.ended.set()


def _add(world: World, client: SearchClient, items: list[str]) -> None:
    rows = [{"file": f"{item}.png", "item_id": item} for item in items]
    done = client.finished(client.add({f"{item}.png": picture(item) for item in items}, items=rows))
    if done["state"] != "done" or done["counts"]["added"] != len(items):
        world.failures.append(f"add: {json.dumps(done)[:300]}")
        return
    with world.lock:
        world.there.update(dict.fromkeys(items, time.monotonic()))


def kill(world: World, url: str, every_s: float, kinds: Sequence[str]) -> None:
    """SIGKILL to one kind of process after the other, each when the service is whole again: two that die together may be all there were."""
    with httpx.Client(base_url=url, timeout=5, trust_env=False) as http:
        for kind in kinds:
            if world.ended.wait(every_s):
                return
            if not (pids := _pids(kind)):  # it was not whole in time, which was told
                continue
            killed, began = random.choice(pids), time.monotonic()
            os.kill(killed, signal.SIGKILL)
            world.count(f"kills of a {kind}")
            while not world.ended.is_set() and not _is_whole(kind, len(pids), killed, http):
                if time.monotonic() - began > _WHOLE_S:
                    world.failures.append(f"not whole {_WHOLE_S:.0f} s after the kill of a {kind}")
                    break
                time.sleep(0.2)
            world.whole_s[kind].append(time.monotonic() - began)
    world.kills_over.set()


def _pids(kind: str) -> list[int]:
    import ray

    actors = [each for each in ray._private.state.actors().values() if each["State"] == "ALIVE"]
    return [each["Pid"] for each in actors if each["ActorClassName"].endswith(KILLED[kind])]


def _is_whole(kind: str, count: int, killed: int, http: httpx.Client) -> bool:
    """Whether there are as many of its kind as before, Ray Serve calls all of them well, and the port answers."""
    from ray import serve

    pids = _pids(kind)
    if killed in pids or len(pids) < count:
        return False
    try:
        status = serve.status()
        states = [str(each.status.value) for app in status.applications.values() for each in app.deployments.values()]
        states += [str(state.value) for state in status.proxies.values()]
        return bool(states) and set(states) == {"HEALTHY"} and http.get("/v1/ready").status_code == 200
    except Exception:  # noqa: BLE001 - whatever it ends with to ask a controller that starts
        return False


def run(report: Report, quick: bool, *, changes: int, swaps: int, kills: int, ingress: str, encoders: int) -> None:
    """One service, from its start to its end."""
    if quick:
        changes, swaps, kills = 30, 5, 8
    every_s = 2.0
    left_out = {*([] if ingress == "proxy" else ["proxy"]), *([] if encoders else ["encoder"])}
    kinds = list(itertools.islice((kind for kind in itertools.cycle(_ROUND) if kind not in left_out), kills))
    world = World()
    with tempfile.TemporaryDirectory(prefix="serving_kills") as temporary, ray_session(RayConfig(address="local")):
        folder = Path(temporary)
        texts = [str(each["text"]) for each in QUESTIONS]
        shape = ModelConfig.model_validate({"image_height": 128, "image_width": 64, "scratch": TOWERS["tiny"]})
        encoder = build_dual_encoder(shape, texts)
        encoder.save(folder / "model", {})
        config = GalleryConfig(segment_rows=64, merge_rows=64)
        create_gallery(folder / "gallery", dim=encoder.dim, encoder=encoder.fingerprint, config=config)
        job: dict[str, Any] = {"index": str(folder / "gallery"), "encoder": str(folder / "model"), "runs_on": "ray"}
        job |= {"serve": {"port": 0, "ingress": ingress}, "access": {"searches_per_s": None}, "searcher": {"replicas": 2, "num_cpus": 0.4}}
        job |= {"encoders": {"replicas": encoders, "num_cpus": 0.1}}
        with start_service(ServeJob.model_validate(job)) as service:
            with SearchClient(service.url) as client:
                _add(world, client, [f"{number}" for number in range(ITEMS)])
            started = time.monotonic()
            threads = [threading.Thread(target=search, args=(world, service.url, random.Random(seed))) for seed in range(CLIENTS)]
            threads += [threading.Thread(target=change, args=(world, service.url, changes, swaps, random.Random(99)))]
            threads += [threading.Thread(target=kill, args=(world, service.url, every_s, kinds))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            seconds = time.monotonic() - started
            with SearchClient(service.url) as client:
                left = {each["item_id"] for each in client.items()}
                wrong = [
                    item
                    for item in left
                    if not _is_picture(client.thumbnail_bytes({"item_id": item, "thumbnail": f"v1/thumbnails?id={item}"}), item)
                ]
                audit = client.verify_audit()
    report.row(seconds=round(seconds, 1), **dict(sorted(world.seen.items())))
    report.row(waits_s=[round(each, 1) for each in sorted(world.waits_s)[-20:]], failures=world.failures[:20], audit=str(audit)[:200])
    for kind, found in world.whole_s.items():
        if found:
            report.row(killed=kind, times=len(found), whole_after_s=round(float(np.median(found)), 1), at_most_s=round(max(found), 1))
    report.claim("searches that failed beyond one retry", world.seen["searches failed after one more try"], "<=", 0)
    report.claim("changes that failed, wrong hits, items lost or back", len(world.failures) + len(left ^ set(world.there)), "<=", 0)
    report.row(missed_after_a_second=len(world.late_s), found_at_last_after_s=round(max(world.late_s, default=0.0), 2))
    report.claim("searches that missed what was added over a second before", len(world.late_s), "<=", 0)
    report.claim("items with another's picture in the end", len(wrong), "<=", 0)


def _is_picture(thumbnail: bytes, item: str) -> bool:
    shown = np.asarray(Image.open(io.BytesIO(thumbnail)).convert("RGB").resize((4, 8)), float)
    meant = np.asarray(Image.open(io.BytesIO(picture(item))).convert("RGB").resize((4, 8)), float)
    return float(np.abs(shown - meant).mean()) < 20


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    for option, number in (("--changes", 1_000), ("--swaps", 100), ("--kills", 100)):
        parser.add_argument(option, type=int, default=number)
    parser.add_argument("--ingress", choices=("direct", "proxy"), default="direct")
    parser.add_argument("--encoders", type=int, default=0)
    own, rest = parser.parse_known_args()
    sys.exit(run_benchmark(__doc__ or "", partial(run, **vars(own)), rest))
