"""A rehearsal: the jobs that a configuration needs, itself and what scores it, one after the other in a scratch folder, on one Ray.

Knows order, places and verdicts; what stands before what is chain.py's, what becomes smaller is sizes.py's. A job that fails ends those
that read its output, and no others.
"""

from __future__ import annotations

import contextlib
import os
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from reid_ray.config.base import Section
from reid_ray.config.common import RayConfig
from reid_ray.errors import ConfigError, DataError, ReidRayError, reason_of
from reid_ray.jobs import JOBS, named
from reid_ray.rehearse.chain import Act, Command, planned_where_possible
from reid_ray.rehearse.own_inputs import excerpts
from reid_ray.rehearse.published import write_clothes, write_crops, write_footage, write_published
from reid_ray.rehearse.questions import ask_service
from reid_ray.rehearse.stand_ins import stand_in
from reid_ray.rehearse.verdicts import FAILED, NOT_REACHED, OK, KeptVerdicts, Verdict, head, number_of, smaller_in_words
from reid_ray.runtime import ray_session
from reid_ray.scratch import scratch_folder
from reid_ray.serve.config import ServeJob
from reid_ray.setup.requirements import require_engines
from reid_ray.storage import Counts
from reid_ray.terminal.own_lines import say, standard_error

_CROPS = 6  # identities in a folder of crops


def rehearse(wanted: Sequence[Command], *, report: Path | None = None) -> list[Verdict]:
    """Rehearse commands; prints the table, and returns it.

    Args:
        wanted: jobs with their configurations, files by absolute paths or shipped names.
        report: JSON file to write the table to.

    Raises:
        ReidRayError: a configuration cannot be rehearsed, or a job of the rehearsal failed; after the others have run.
    """
    kept, home = KeptVerdicts(report), Path.cwd()
    with scratch_folder() as scratch, _working_directory(scratch) as root, contextlib.ExitStack() as stack:
        acts, refused = planned_where_possible(wanted, root, home=home)
        if len(refused) == len(wanted):
            raise ConfigError(next(iter(refused.values())))
        if any("ray" in type(act.config).model_fields for act in acts):
            stack.enter_context(ray_session(RayConfig(address="local")))
        verdicts = {command: Verdict(command.name, command.overrides, command.job, FAILED, said) for command, said in refused.items()}
        for number, act in enumerate(acts, start=1):
            say(f"\n[{number}/{len(acts)}] {act.command}")
            verdicts[act.command] = _verdict(act, verdicts, root)
            say(verdicts[act.command].line())
            kept.write(list(verdicts.values()), left=len(acts) - number)
    done = list(verdicts.values())
    say(smaller_in_words(done))
    say("\n".join(["", head(), *(each.line() for each in done)]))
    failed = [each for each in done if each.verdict != OK]
    say(f"{len(done) - len(failed)} of {len(done)} ok, {kept.seconds:.0f} s")
    if failed:
        raise DataError(
            f"{failed[0].configuration}: the rehearsal of {failed[0].job} failed ({failed[0].said}); {len(failed)} did not pass"
        )
    return done


@contextlib.contextmanager
def _working_directory(folder: Path) -> Iterator[Path]:
    """The process, and a Ray that it starts, stand in `folder`; yields it with links resolved, as outputs are."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield Path(os.path.realpath(folder))
    finally:
        os.chdir(before)


def _verdict(act: Act, earlier: dict[Command, Verdict], root: Path) -> Verdict:
    command, job = act.command, JOBS[act.command.job]
    facts: dict[str, Any] = {
        "configuration": command.name,
        "overrides": command.overrides,
        "job": command.job,
        "changes": tuple(str(change).replace(f"{root}/", "./") for change in act.changes),
    }
    missing = [before for before in act.before if earlier[before].verdict != OK]
    if missing:
        return Verdict(**facts, verdict=NOT_REACHED, said=f"needs {missing[0]}")
    clock = time.perf_counter()
    try:
        facts["stand_ins"] = tuple(_stand_ins(act, root))
        require_engines(command.job, job.engines)
        manifest = RUNS.get(command.job, _run)(act)
    except ReidRayError as error:
        return Verdict(**facts, verdict=FAILED, said=str(error), seconds=time.perf_counter() - clock)
    except Exception as error:  # noqa: BLE001 - told in the table, so that the other configurations are rehearsed too
        traceback.print_exc(file=standard_error())
        return Verdict(**facts, verdict=FAILED, said=reason_of(error), seconds=time.perf_counter() - clock)
    counts = Counts.of(manifest["counts"])
    return Verdict(
        **facts,
        verdict=OK,
        said=number_of(command.job, manifest),
        read=counts.read,
        written=counts.written,
        left_out=sum(counts.left_out.values()),
        failed=sum(counts.failed.values()),
        seconds=time.perf_counter() - clock,
    )


def _run(act: Act) -> dict[str, Any]:
    return _run_config(act.command.job, act.config)


def run_apart(act: Act) -> dict[str, Any]:
    """Run a job in a process of its own: vLLM does not start in one in which other jobs have imported their engines."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(_run_config, act.command.job, act.config).result()


def _run_config(job: str, config: Section) -> dict[str, Any]:
    manifest: dict[str, Any] = named(JOBS[job].run)(config)
    return manifest


def _ask(act: Act) -> dict[str, Any]:
    assert isinstance(act.config, ServeJob)
    return ask_service(act.config)


def _migrate(act: Act) -> dict[str, Any]:
    files = _run(act)
    migrated = sum(files["migrated"].values())
    return {"counts": {"read": migrated + files["current"], "written": migrated, "failed": {}, "left_out": {}}}


def _demonstrate(act: Act) -> dict[str, Any]:
    report = _run(act)
    first, last = report["stages"][0], report["evaluation"]
    unused = {name: sum((Counter(stage[f"{name}_by_reason"]) for stage in report["stages"]), Counter()) for name in ("failed", "left_out")}
    return {"counts": {"read": first["read"], "written": first["written"], **unused}, "facts": last}


# Jobs that do not return a manifest, do not end by themselves, or start an engine in their own process, as functions that fit here.
RUNS: dict[str, Callable[[Act], dict[str, Any]]] = {"serve": _ask, "migrate": _migrate, "demo": _demonstrate, "captioner": run_apart}


def _stand_ins(act: Act, root: Path) -> Iterator[str]:
    for name in act.models:
        yield f"{name} is a tiny {stand_in(name, root / name)}"
    for source, folder in act.data_sets:
        if not folder.exists():
            write_published(source, folder)
        yield f"{os.path.relpath(folder, root)} holds synthetic people in the layout {source.format}"
    for folder in act.crops:
        if not folder.exists():
            write_crops(folder, identities=_CROPS)
        yield f"{os.path.relpath(folder, root)} holds crops of synthetic people"
    for folder in act.clothes:
        if not folder.exists():
            write_clothes(folder)
        yield f"{os.path.relpath(folder, root)} holds garments of synthetic people"
    for folder in act.footage:
        if not folder.exists():
            write_footage(folder, frames=folder.name == "frames")
        yield f"{os.path.relpath(folder, root)} holds synthetic people who walk past two cameras"
    yield from excerpts(act.own)
