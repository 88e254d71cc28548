"""The loop of the kill harnesses, over jobs that are counters."""

import json
import time
from collections import Counter

import pytest

from benchmarks.caption_engines import kill_loop
from benchmarks.caption_engines.kill_loop import EVENTS, GaveUpError, KillLoop, append, read_events


class CountingJob:
    """Comes to its end after so many looks; a kill costs it those that it has had."""

    def __init__(self, name, looks):
        self.name, self.looks, self.looked = name, looks, 0
        self.did = Counter()

    def start(self):
        self.did["start"] += 1

    def finished(self):
        if self.looks is None:
            raise GaveUpError(f"{self.name}: it does not end")
        self.looked += 1
        return self.looked > self.looks

    def kill(self, kind):
        self.did[kind] += 1
        return kind != "nobody"

    def asked(self):
        return 7

    def committed(self):
        return self.looked

    def stop(self):
        self.did["stop"] += 1

    def remove(self):
        self.did["remove"] += 1


@pytest.fixture
def run(tmp_path, monkeypatch):
    """run(kills, looks of each job) -> (those jobs that were begun, the events)."""
    monkeypatch.setattr(kill_loop, "_LOOK_S", 0)

    def run(kills, *looks, kinds=("actor", "driver"), every_s=0, for_s=60, in_turn=True):
        jobs, left, mended = [], list(looks), []

        def begin(name):
            jobs.append(CountingJob(name, left.pop(0)))
            return jobs[-1]

        loop = KillLoop(tmp_path, kills, kinds, every_s, time.time() + for_s, in_turn=in_turn)
        loop.run("job", begin=begin, mend=lambda: mended.append(1), compare=lambda name: {"lost": 0, "of": name})
        events = read_events(tmp_path / EVENTS)
        assert len(mended) == sum(job.did[kind] for job in jobs for kind in kinds), "what is gone is brought back before each kill"
        return jobs, events

    return run


def told(events, what):
    return [event for event in events if event["event"] == what]


def test_jobs_are_killed_in_turn_until_it_is_enough_and_the_last_is_seen_to_its_end(run):
    jobs, events = run(5, 6, 60)
    assert [event["kind"] for event in told(events, "kill")] == ["actor", "driver", "actor", "driver", "actor"]
    assert [event["job"] for event in told(events, "end")] == [job.name for job in jobs] == [event["of"] for event in told(events, "end")]
    assert [job.did["start"] for job in jobs] == [job.did["remove"] for job in jobs] == [1, 1]
    assert {event["asked"] for event in events} == {7}


def test_in_turn_each_kill_finds_more_on_disk_than_the_one_before(run):
    _, events = run(5, 60)
    blocks = [event["blocks"] for event in told(events, "kill")]
    assert blocks == sorted(set(blocks))


@pytest.mark.slow
def test_a_kill_that_finds_nobody_counts_nowhere(run):
    _, events = run(3, 20, 10**9, kinds=("nobody",), for_s=0.2)
    assert told(events, "kill") == []


def test_kills_drawn_at_random_are_of_every_kind(run):
    _, events = run(60, 500, in_turn=False)
    assert set(Counter(event["kind"] for event in told(events, "kill"))) == {"actor", "driver"}


def test_the_same_command_goes_on_with_the_job_that_was_killed_last(run, tmp_path):
    append(tmp_path / EVENTS, event="kill", job="job-before", kind="driver", asked=1, blocks=1)
    jobs, events = run(1, 3)
    assert [job.name for job in jobs] == ["job-before"]
    assert len(told(events, "kill")) == 1
    assert [event["job"] for event in told(events, "end")] == ["job-before"]


def test_where_enough_were_killed_and_the_last_job_ended_nothing_begins(run, tmp_path):
    append(tmp_path / EVENTS, event="kill", job="job-before", kind="driver", asked=1, blocks=1)
    append(tmp_path / EVENTS, event="end", job="job-before")
    assert run(1)[0] == []


def test_a_file_named_enough_ends_the_killing(run, tmp_path):
    (tmp_path / "enough").touch()
    append(tmp_path / EVENTS, event="kill", job="job-before", kind="driver", asked=1, blocks=1)
    _, events = run(50, 3)
    assert len(told(events, "kill")) == 1


@pytest.mark.slow
def test_when_its_time_is_up_the_job_is_stopped_and_goes_on_with_the_next_call(run):
    jobs, events = run(1, 10**9, every_s=1e-9, for_s=0.2)
    assert jobs[0].did["stop"] == 1
    assert [event["event"] for event in events] == ["kill"]


def test_a_job_that_never_ends_is_told_of_and_stopped(run):
    jobs, events = run(3, None)
    assert json.loads(json.dumps(events))[-1]["said"].endswith("it does not end")
    assert jobs[0].did["stop"] == 1
