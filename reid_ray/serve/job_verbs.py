"""The verbs of `reid-ray service` that start jobs (adding, compacting) and look after them.

Knows words, files and bars; the calls are client.py's, the command line service_command.py's, the other verbs service_verbs.py's.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from reid_ray.errors import ConfigError, DataError
from reid_ray.progress import progress_bar
from reid_ray.serve.client import SearchClient
from reid_ray.serve.client_answers import JobState
from reid_ray.serve.sent_pictures import known_items, pictures_at, portions
from reid_ray.terminal.counted import counted
from reid_ray.terminal.own_lines import say, say_json

_LOOK_EVERY_S = 1.0
_SHOWN = 20


def add_verb(asked: argparse.Namespace, client: SearchClient) -> None:
    """`add`."""
    before = _column_names(client)
    if asked.paths[0].suffix == ".parquet":
        if len(asked.paths) > 1 or asked.items is not None:
            raise ConfigError("PATH: a table is added alone; its columns say what is known")
        ended = [_awaited(client, client.add_table(asked.paths[0], caption=asked.caption), "rows", asked)]
    else:
        ended = list(_portions_added(asked, client))
    _tell(ended, asked)
    if not (asked.json or asked.no_wait) and (came := [name for name in _column_names(client) if name not in before]):
        say(f"  the gallery has new columns: {', '.join(came)}")


def _column_names(client: SearchClient) -> list[str]:
    return [each["name"] for each in client.info()["columns"]]


def _portions_added(asked: argparse.Namespace, client: SearchClient) -> Iterator[JobState]:
    files = dict(pictures_at(asked.paths))
    if not files:
        raise DataError(f"{asked.paths[0]}: holds no picture; name pictures, folders of them, or a Parquet table")
    known = known_items(asked.items, files) if asked.items is not None else None
    if known is not None and (left := len(files) - len(known)) and not asked.json:
        say(f"service: {counted(left, 'picture')} not added, for {asked.items} has no line of them")
    with progress_bar("add", len(files), unit="img") as bar:
        before = 0
        for portion in portions(files):
            items = None if known is None else [known[name] for name in portion if name in known]
            if items == []:
                continue
            state = client.add(portion, items=items, caption=asked.caption)
            if asked.no_wait:
                yield state
                continue

            def show(job: JobState, start: int = before) -> None:
                bar.update(start + job["counts"]["done"] - bar.n)
                bar.set_postfix_str(f"added {job['counts']['added']:,}, refused {job['counts']['refused']:,}")

            state = client.finished(state, progress=show, every_s=_LOOK_EVERY_S)
            before += len(portion)
            yield state
            if state["state"] != "done":
                return


def _awaited(client: SearchClient, job: JobState, unit: str, asked: argparse.Namespace) -> JobState:
    if asked.no_wait:
        return job
    with progress_bar(job["kind"], job["counts"]["total"], unit=unit) as bar:
        return client.finished(job, progress=lambda each: bar.update(each["counts"]["done"] - bar.n), every_s=_LOOK_EVERY_S)


def _tell(jobs: Sequence[JobState], asked: argparse.Namespace) -> None:
    if asked.json:
        say_json(jobs)
    elif asked.no_wait:
        say("service: " + ", ".join(f"job {each['job_id']}" for each in jobs) + " -> `reid-ray service job ID` says how far it is")
    else:
        added, refused = (sum(each["counts"][name] for each in jobs) for name in ("added", "refused"))
        say(f"service: {counted(added, 'item')} added, {refused:,} refused -> {asked.url}")
        for each in [row for job in jobs for row in job["refused"]][:_SHOWN]:
            say(f"  {each['file']}: {each['reason']}")
    for job in jobs:
        if job["state"] in ("failed", "cancelled"):
            raise DataError(f"job {job['job_id']}: {job['state']}{': ' + job['detail'] if job['detail'] else ''}")


def jobs_verb(asked: argparse.Namespace, client: SearchClient) -> None:
    """`jobs`."""
    found = client.jobs(most=asked.limit)
    if asked.json:
        return say_json(found)
    for job in found:
        say(_job_in_words(job))
    if not found:
        say("no jobs")


def job_verb(asked: argparse.Namespace, client: SearchClient) -> None:
    """`job`."""
    job = client.job(asked.job)
    if asked.wait:
        asked.no_wait = False
        job = _awaited(client, job, "rows", asked)
        return _tell([job], asked)
    say_json(job) if asked.json else say(_job_in_words(job))
    return None


def cancel_verb(asked: argparse.Namespace, client: SearchClient) -> None:
    """`cancel`."""
    say(_job_in_words(client.cancel(asked.job)))


def compact_verb(asked: argparse.Namespace, client: SearchClient) -> None:
    """`compact`."""
    job = client.compact()
    asked.no_wait = False
    job = _awaited(client, job, "rows", asked)
    if job["state"] != "done":
        raise DataError(f"job {job['job_id']}: {job['state']}{': ' + job['detail'] if job['detail'] else ''}")
    say(f"service: compacted, generation {job['generation']} -> {asked.url}")


def _job_in_words(job: JobState) -> str:
    counts = job["counts"]
    total = f" of {counts['total']:,}" if counts["total"] is not None else ""
    why = f": {job['detail']}" if job["detail"] else ""
    return (
        f"{job['job_id']}  {job['kind']}  {job['state']}  {counts['done']:,}{total}, added {counts['added']:,}, "
        f"refused {counts['refused']:,}, by {job['by']}, {job['asked'][:19]}Z{why}"
    )
