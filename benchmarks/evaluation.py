"""Exact ranking next to fast-reid's Cython and Python rankings, a torch argsort and a short numpy one, on the same features.

    python benchmarks/evaluation.py --out benchmarks/results/evaluation-DATE.json [--quick] [--only ranking|re-ranking|parquet]

fast-reid (the wheel fastreid 1.4.0, without its dependencies) and Cython are fetched into a temporary folder, where its
rank_cy.pyx is compiled; nothing of it stays. "ranking" starts from a score matrix and uses one thread; "whole job" starts from
features and uses all cores. "re-ranking" is k-reciprocal re-ranking of 10,000 items beside fast-reid's copy of the authors' code,
fast-reid's distances included. Times are taken turn by turn; memory is what the process grows by at most. The last row ranks a data set
of MSMT17's size, read from Parquet, in a process of its own.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from benchmarks.harness import Report, Timing, peak_extra_bytes, run_benchmark, time_turns
from reid_ray.records import EMBEDDINGS
from reid_ray.retrieval.metrics import GroundTruth, QueryResults, unit_rows
from reid_ray.retrieval.ranking.exact import rank_queries, rank_scores
from reid_ray.retrieval.ranking.k_reciprocal import Reranker
from reid_ray.storage import TableWriter

MAX_RANK = 10
Result = tuple[float, np.ndarray]  # mAP, CMC@1..10


@dataclass(frozen=True)
class Task:
    """Features of synthetic people: a centre per person plus noise, image to image, six cameras."""

    name: str
    query_QD: np.ndarray
    gallery_GD: np.ndarray
    truth: GroundTruth

    @classmethod
    def draw(cls, queries: int, gallery: int, people: int, *, dim: int = 512, noise: float = 2.5) -> Task:
        """Noise 2.5 gives a model of middling quality: matches near the top and far down, so that no method is spared work."""
        rng = np.random.default_rng(0)
        centre_PD = rng.standard_normal((people, dim), dtype=np.float32)
        gallery_person, query_person = rng.integers(0, people, gallery), rng.integers(0, people, queries)
        features = [
            unit_rows(centre_PD[person] + noise * rng.standard_normal((len(person), dim), dtype=np.float32), what="drawn features")
            for person in (query_person, gallery_person)
        ]
        cameras = rng.integers(0, 6, queries), rng.integers(0, 6, gallery)
        truth = GroundTruth.image_to_image(query_person, gallery_person, query_camera_Q=cameras[0], gallery_camera_G=cameras[1])
        return cls(f"{queries} x {gallery}", features[0], features[1], truth)

    def part(self, queries: int) -> Task:
        """The first so many queries, for methods too slow for all of them."""
        truth = GroundTruth.image_to_image(
            self.truth.query_person_Q[:queries],
            self.truth.gallery_person_G,
            query_camera_Q=_known(self.truth.query_camera_Q)[:queries],
            gallery_camera_G=_known(self.truth.gallery_camera_G),
        )
        return Task(f"{queries} x {len(self.gallery_GD)}", self.query_QD[:queries], self.gallery_GD, truth)

    def labels(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Query persons, gallery persons, query cameras, gallery cameras: the order that fast-reid takes."""
        truth = self.truth
        return truth.query_person_Q, truth.gallery_person_G, _known(truth.query_camera_Q), _known(truth.gallery_camera_G)


class FastReid:
    """fast-reid's own functions, from its wheel, compiled in `scratch`."""

    def __init__(self, scratch: Path) -> None:
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        wheels, tools, build = scratch / "wheels", scratch / "tools", scratch / "build"
        _run([*pip, "download", "--no-deps", "--dest", str(wheels), "fastreid==1.4.0"])
        _run([*pip, "install", "--no-deps", "--target", str(tools), "cython==3.3.1"])
        with zipfile.ZipFile(next(wheels.glob("fastreid-*.whl"))) as wheel:
            wheel.extractall(scratch / "source")
        build.mkdir()
        evaluation = scratch / "source" / "fastreid" / "evaluation"
        source = build / "rank_cy.pyx"
        source.write_bytes((evaluation / "rank_cylib" / "rank_cy.pyx").read_bytes())
        paths = os.pathsep.join([str(tools), sysconfig.get_paths()["purelib"]])
        numpy_folder = str(Path(np.__file__).parents[1])
        environment = {**os.environ, "PYTHONPATH": paths}
        _run([sys.executable, "-m", "cython", "-3", "-I", numpy_folder, str(source)], env=environment)
        includes = [f"-I{sysconfig.get_paths()['include']}", f"-I{np.get_include()}"]
        library = build / ("rank_cy" + sysconfig.get_config_var("EXT_SUFFIX"))
        _run(["gcc", "-O3", "-march=native", "-shared", "-fPIC", "-w", *includes, str(build / "rank_cy.c"), "-o", str(library)])
        sys.path[:0] = [str(build), str(scratch / "source")]
        self._cython = importlib.import_module("rank_cy").evaluate_cy
        self._distance = importlib.import_module("fastreid.utils.compute_dist").build_dist
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns that its Cython code is missing; that is compiled above
            self._python = _module(evaluation / "rank.py").eval_market1501
        self._re_ranking = _module(evaluation / "rerank.py").re_ranking

    def cython(self, distance_QG: np.ndarray, task: Task) -> Result:
        """The compiled ranking."""
        cmc, ap, _ = self._cython(distance_QG, *task.labels(), MAX_RANK)
        return float(np.mean(ap, dtype=np.float64)), cmc

    def python(self, distance_QG: np.ndarray, task: Task) -> Result:
        """The ranking it falls back to."""
        cmc, ap, _ = self._python(distance_QG, *task.labels(), MAX_RANK)
        return float(np.mean(ap)), cmc

    def reranked(self, task: Task) -> np.ndarray:
        """Re-ranked distances [Q, G] from features; the roots are because its Euclidean distances are squared already."""
        query, gallery = torch.from_numpy(task.query_QD), torch.from_numpy(task.gallery_GD)
        pairs = (query, gallery), (query, query), (gallery, gallery)
        squared = (self._distance(one, other, metric="euclidean") for one, other in pairs)
        return self._re_ranking(*(np.sqrt(np.maximum(each, 0, out=each), out=each) for each in squared), k1=20, k2=6, lambda_value=0.3)

    def whole(self, task: Task) -> Result:
        """Cosine distances, then the compiled ranking: what its evaluator does."""
        return self.cython(self._distance(torch.from_numpy(task.query_QD), torch.from_numpy(task.gallery_GD), metric="cosine"), task)


def ours_ranking(score_QG: np.ndarray, task: Task) -> Result:
    return _result(rank_scores(score_QG, task.truth, threads=1).results)


def ours_whole(task: Task) -> Result:
    query_QD, gallery_GD = unit_rows(task.query_QD, what="queries"), unit_rows(task.gallery_GD, what="gallery")
    return _result(rank_queries(query_QD, gallery_GD, task.truth).results)


def torch_argsort(score_QG: np.ndarray, task: Task) -> Result:
    """The plain way in torch: sort everything, then accumulate."""
    order_QG = torch.from_numpy(score_QG).argsort(dim=1, descending=True).numpy()
    query_person, gallery_person, query_camera, gallery_camera = task.labels()
    first, ap = [], []
    for q, order_G in enumerate(order_QG):
        match_G = gallery_person[order_G] == query_person[q]
        match_N = match_G[~(match_G & (gallery_camera[order_G] == query_camera[q]))]
        rank_P = np.flatnonzero(match_N) + 1
        if len(rank_P):
            first.append(rank_P[0])
            ap.append(np.mean(np.arange(1, len(rank_P) + 1) / rank_P))
    return float(np.mean(ap)), np.array([(np.array(first) <= k).mean() for k in range(1, MAX_RANK + 1)])


def torch_whole(task: Task) -> Result:
    return torch_argsort((torch.from_numpy(task.query_QD) @ torch.from_numpy(task.gallery_GD).T).numpy(), task)


def numpy_positives(score_QG: np.ndarray, task: Task) -> Result:
    """The short way in numpy: rank only the matches, by comparing the row with each of them."""
    query_person, gallery_person, query_camera, gallery_camera = task.labels()
    first, ap = [], []
    for q, score_G in enumerate(score_QG):
        same_G = gallery_person == query_person[q]
        removed_G = same_G & (gallery_camera == query_camera[q])
        left_N, match_P = score_G[~removed_G], np.sort(score_G[same_G & ~removed_G])[::-1]
        rank_P = np.array([1 + np.count_nonzero(left_N > score) for score in match_P])
        if len(rank_P):
            first.append(rank_P[0])
            ap.append(np.mean(np.arange(1, len(rank_P) + 1) / rank_P))
    return float(np.mean(ap)), np.array([(np.array(first) <= k).mean() for k in range(1, MAX_RANK + 1)])


def compare_ranking(report: Report, task: Task, rival: FastReid, *, repeats: int, slow_queries: int) -> None:
    """From a matrix of scores to metrics, on one thread."""
    score_QG = task.query_QD @ task.gallery_GD.T
    distance_QG = -score_QG  # same order, bit for bit, as fast-reid ranks by distance
    torch.set_num_threads(1)
    ours_ranking(score_QG[:16], task.part(16))  # compiles
    methods: dict[str, Callable[[], Result]] = {
        "reid_ray": lambda: ours_ranking(score_QG, task),
        "fastreid cython": lambda: rival.cython(distance_QG, task),
        "numpy positives": lambda: numpy_positives(score_QG, task),
    }
    _measure(report, task, "ranking", 1, methods, repeats=repeats)
    part = task.part(slow_queries)
    slow: dict[str, Callable[[], Result]] = {
        "reid_ray": lambda: ours_ranking(score_QG[:slow_queries], part),
        "torch argsort": lambda: torch_argsort(score_QG[:slow_queries], part),
        "fastreid python": lambda: rival.python(distance_QG[:slow_queries], part),
    }
    _measure(report, part, "ranking", 1, slow, repeats=2)


def compare_whole_job(report: Report, task: Task, rival: FastReid, *, repeats: int, slow_queries: int) -> None:
    """From features to metrics on all cores."""
    cores = len(os.sched_getaffinity(0))
    part = task.part(slow_queries)
    torch.set_num_threads(cores)
    whole: dict[str, Callable[[], Result]] = {"reid_ray": lambda: ours_whole(task), "fastreid cython": lambda: rival.whole(task)}
    ours_whole(task)
    _measure(report, task, "whole job", cores, whole, repeats=repeats)
    _measure(
        report, part, "whole job", cores, {"reid_ray": lambda: ours_whole(part), "torch argsort": lambda: torch_whole(part)}, repeats=2
    )


def compare_reranking(report: Report, rival: FastReid, *, quick: bool) -> None:
    """From features to re-ranked distances, both on all cores that their libraries take."""
    queries, gallery = (200, 1_800) if quick else (2_000, 8_000)
    task = Task.draw(queries, gallery, people=gallery // 20, dim=256)
    Reranker(task.query_QD[:64], task.gallery_GD[:64]).distances()  # compiles
    methods: dict[str, Callable[[], np.ndarray]] = {
        "reid_ray": lambda: Reranker(task.query_QD, task.gallery_GD).distances(),
        "fastreid re_ranking": lambda: rival.reranked(task),
    }
    found: dict[str, np.ndarray] = {}
    seconds: dict[str, float] = {}
    memory: dict[str, int] = {}
    for name, run in methods.items():  # once each: the rival takes minutes

        def keep(name: str = name, run: Callable[[], np.ndarray] = run) -> None:
            found[name] = run()

        started = time.perf_counter()
        memory[name] = peak_extra_bytes(keep)
        seconds[name] = time.perf_counter() - started
    off_QG = np.abs(found["reid_ray"] - found["fastreid re_ranking"])
    mean_aps = [rank_scores(-distance_QG, task.truth).results.mean_ap() for distance_QG in found.values()]
    for name, mean_ap in zip(methods, mean_aps, strict=True):
        report.row(
            task=task.name,
            job="re-ranking",
            method=name,
            threads=len(os.sched_getaffinity(0)),
            repeats=1,
            seconds_min=round(seconds[name], 5),
            times_ours=round(seconds[name] / seconds["reid_ray"], 2),
            peak_extra_bytes=memory[name],
            map=round(mean_ap, 7),
            differs_by=float(np.quantile(off_QG, 0.999)),
        )
    claim = f"{task.name}, re-ranking"
    # A tie of two distances in float32 may fall either way and change a neighbourhood: all but a thousandth must be equal.
    report.claim(f"{claim}: distances equal fastreid's, 99.9 % of them", float(np.quantile(off_QG, 0.999)), "<=", 1e-6)
    report.claim(f"{claim}: mAP equals fastreid's", abs(mean_aps[0] - mean_aps[1]), "<=", 1e-5)
    report.claim(f"{claim}: share of fastreid's memory", round(memory["reid_ray"] / memory["fastreid re_ranking"], 4), "<=", 0.5)
    report.claim(f"{claim}: memory, bytes", memory["reid_ray"], "<=", 1e9)


def rank_msmt17_size(report: Report, scratch: Path, *, quick: bool) -> None:
    """The evaluate job on embeddings in Parquet, 11,659 queries and 82,161 images of 512 dimensions, in a process of its own."""
    queries, gallery = (1_000, 8_000) if quick else (11_659, 82_161)
    task = Task.draw(queries, gallery, people=gallery // 27)
    query_person, gallery_person, query_camera, gallery_camera = task.labels()
    for name, vector_ND, person, camera in (
        ("query", task.query_QD, query_person, query_camera),
        ("gallery", task.gallery_GD, gallery_person, gallery_camera),
    ):
        _write_embeddings(scratch / name, name, vector_ND, person, camera)
    mean_ap = rank_queries(task.query_QD, task.gallery_GD, task.truth).results.mean_ap()
    job = [sys.executable, "jobs/evaluate.py", "protocol=image_to_image", "split=null", f"output.path={scratch / 'scored'}"]
    job += [f"query_embeddings={scratch / 'query'}", f"gallery_embeddings={scratch / 'gallery'}"]
    started = time.perf_counter()
    process = subprocess.Popen(job, cwd=Path(__file__).resolve().parents[1], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        raise RuntimeError(f"jobs/evaluate.py ended with status {status}")
    peak = usage.ru_maxrss << 10
    result = json.loads((scratch / "scored" / "result.json").read_text(encoding="utf-8"))
    report.row(
        task=f"{queries} x {gallery}",
        job="jobs/evaluate.py from Parquet",
        method="reid_ray",
        threads=len(os.sched_getaffinity(0)),
        repeats=1,
        seconds_min=round(seconds, 2),
        seconds_median=round(seconds, 2),
        seconds_max=round(seconds, 2),
        cpu_seconds_min=round(usage.ru_utime + usage.ru_stime, 2),
        peak_process_bytes=peak,
        map=round(result["map"], 7),
        r1=round(result["r1"], 7),
        differs_by=abs(result["map"] - mean_ap),
    )
    report.claim(f"{queries} x {gallery} from Parquet: peak memory of the whole process, bytes", peak, "<=", 2e9)
    report.claim(f"{queries} x {gallery} from Parquet: mAP equals ranking in this process", abs(result["map"] - mean_ap), "<=", 1e-6)


def _write_embeddings(folder: Path, name: str, vector_ND: np.ndarray, person: np.ndarray, camera: np.ndarray) -> None:
    with TableWriter(folder, EMBEDDINGS, rows_per_part=10_000) as writer:
        for start in range(0, len(vector_ND), 5_000):
            rows = slice(start, start + 5_000)
            block_ND = vector_ND[rows]
            offsets = np.arange(0, block_ND.size + 1, block_ND.shape[1], dtype=np.int32)
            ids = [f"{name}-{n}" for n in range(start, start + len(block_ND))]
            columns = {
                "item_id": ids,
                "image_id": ids,
                "kind": ["image"] * len(ids),
                "status": ["ok"] * len(ids),
                "embedding": pa.ListArray.from_arrays(offsets, block_ND.ravel()),
                "person_id": person[rows],
                "camera_id": camera[rows],
            }
            writer.append(pa.table(columns))


def _measure(report: Report, task: Task, job: str, threads: int, methods: dict[str, Callable[[], Result]], *, repeats: int) -> None:
    results = {name: run() for name, run in methods.items()}
    memory = {name: peak_extra_bytes(run) for name, run in methods.items()}
    timings = time_turns(methods, repeats=repeats)
    mean_ap, cmc = results["reid_ray"]
    ours: Timing = timings["reid_ray"]
    for name, (other_ap, other_cmc) in results.items():
        off = max(abs(other_ap - mean_ap), float(np.abs(np.asarray(other_cmc, dtype=np.float64) - cmc).max()))
        times = timings[name].best_s / ours.best_s
        report.row(
            task=task.name,
            job=job,
            method=name,
            threads=threads,
            **timings[name].row(),
            times_ours=round(times, 2),
            cpu_times_ours=round(timings[name].best_cpu_s / ours.best_cpu_s, 2),
            peak_extra_bytes=memory[name],
            map=round(other_ap, 7),
            r1=round(float(other_cmc[0]), 7),
            differs_by=off,
        )
        if name == "reid_ray":
            continue
        report.claim(f"{task.name}, {job}: mAP and CMC equal {name}'s", off, "<=", 1e-6)
        if name == "fastreid cython":
            report.claim(f"{task.name}, {job}: times faster than {name}", round(times, 2), ">=", 10)
            report.claim(f"{task.name}, {job}: share of {name}'s memory", round(memory["reid_ray"] / memory[name], 4), "<=", 0.1)


def _result(results: QueryResults) -> Result:
    return results.mean_ap(), results.cmc(MAX_RANK)


def _known(camera: np.ndarray | None) -> np.ndarray:
    if camera is None:
        raise ValueError("this benchmark ranks image to image, which needs cameras")
    return camera


def _module(file: Path) -> Any:
    """A file of Python as a module, without its package."""
    spec = importlib.util.spec_from_file_location(f"fastreid_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise RuntimeError(f"{file} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _run(command: list[str], env: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, timeout=600)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:6])} ... failed: {done.stderr[-2000:]}")


def run(report: Report, quick: bool, *, only: str | None) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        if only in (None, "ranking", "re-ranking"):
            rival = FastReid(Path(scratch))
        if only in (None, "ranking"):
            sizes = [(400, 15_913, 900), (200, 100_000, 5000)] if quick else [(3368, 15_913, 900), (2000, 100_000, 5000)]
            for queries, gallery, people in sizes:
                task = Task.draw(queries, gallery, people)
                for compare in (compare_ranking, compare_whole_job):
                    compare(report, task, rival, repeats=3 if quick else 7, slow_queries=50 if quick else 200)
        if only in (None, "re-ranking"):
            compare_reranking(report, rival, quick=quick)
        if only in (None, "parquet"):
            rank_msmt17_size(report, Path(scratch), quick=quick)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--only", choices=["ranking", "re-ranking", "parquet"])
    own, rest = parser.parse_known_args()
    sys.exit(run_benchmark(str(__doc__), functools.partial(run, only=own.only), rest))
