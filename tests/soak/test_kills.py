"""Kills in long series: what the short form of each kill test shows once, tens of times and at random moments."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow


def total_of(root, tmp_path, *command, kills, held):
    """The last row, over all jobs, of a harness's report after so many kills, of which none costs more than the two actors `held`.

    The share of the work that is done twice says how little is done between two kills on a busy machine, so a kill is judged by itself.
    """
    out = tmp_path / "kills.json"
    done = subprocess.run(
        [sys.executable, *command, "--kills", str(kills), "--state", str(tmp_path / "state"), "--out", str(out)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=1700,
        check=False,
    )
    assert out.exists(), done.stdout[-3000:] + done.stderr[-3000:]
    report = json.loads(out.read_text())
    assert [claim for claim in report["claims"] if not claim["holds"] and not claim["name"].startswith("share of ")] == []
    total = report["rows"][-1]
    made = sum(count for name, count in total.items() if name.endswith(" kills"))
    assert made >= kills
    assert total["asked"] - total["needed"] <= held * made
    return total


@pytest.mark.parametrize(("engine", "kills", "every_s", "held"), [("scripted", 30, 8, 2 * 32), ("vllm", 8, 30, 2 * 64)])
def test_no_kill_at_a_random_moment_loses_doubles_or_ages_a_row(root, tmp_path, engine, kills, every_s, held):
    total = total_of(root, tmp_path, "benchmarks/caption_kills.py", "--engine", engine, "--every", str(every_s), kills=kills, held=held)
    assert [total[name] for name in ("lost", "duplicated", "stale", "other_text", "quarantined")] == [0, 0, 0, 0, 0]


@pytest.mark.parametrize(("editor", "kills"), [("scripted", 24), ("tiny", 6)])
def test_no_kill_at_a_random_moment_loses_doubles_or_ages_an_edit(root, tmp_path, editor, kills):
    total = total_of(root, tmp_path, "benchmarks/edit_kills.py", "--editor", editor, kills=kills, held=2 * 2 * 8)
    assert [total[name] for name in ("lost", "duplicated", "stale", "other_content", "quarantined")] == [0, 0, 0, 0, 0]


DRIVER = """
import os
import sys
from pathlib import Path

sys.path[:0] = [{tests!r}, {shared!r}]
import ray
from test_caption_ledger import LoggedEngine, job, run_caption


class OneBroken(LoggedEngine):
    # Fails at every request where Ray gave it GPU 0; notes each of its processes that is asked, with the GPU.

    asked_here = False

    def chat(self, conversations, keys):
        gpu = os.environ["CUDA_VISIBLE_DEVICES"]
        if not self.asked_here:
            self.asked_here = True
            with self.log.with_suffix(".gpus").open("a") as log:
                log.write(gpu + "\\n")
        if gpu == "0":
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return super().chat(conversations, keys)


ray.cloudpickle.register_pickle_by_value(sys.modules["__main__"])
ray.init(address="local", num_cpus=6, num_gpus=2, include_dashboard=False, object_store_memory=100 << 20)
sections = "{{one: %s, two: %s}}" % (("{{sampling: {{seed: 1}}, pool: {{replicas: 2, num_gpus: 1, batch_size: 4}}}}",) * 2)
sections = sections.replace("seed: 1", "seed: 2", 1)
manifest = run_caption(job(Path({folder!r}), Path({out!r}), "captioners=" + sections), engine=OneBroken(Path({log!r}), pause_s=0.1))
print("rows by", manifest["counts"], len(manifest["facts"]["ledger"]["broken_actors"]))
"""


def test_a_broken_gpu_is_found_once_and_asked_nothing_in_later_rounds_and_passes(root, tmp_path):
    sys.path[:0] = [str(root / "tests" / "ray"), str(root / "tests" / "shared")]
    from test_caption_ledger import crops

    places = {"tests": str(root / "tests" / "ray"), "shared": str(root / "tests" / "shared"), "out": str(tmp_path / "out")}
    driver = DRIVER.format(folder=str(crops(tmp_path / "crops", range(60))), log=str(tmp_path / "log"), **places)
    (tmp_path / "driver.py").write_text(driver)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "driver.py")],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "rows by {'read': 120, 'written': 120, 'failed': {}} 1" in done.stdout
    assert "an actor is broken, its rows go to others: its engine died 4 times" in done.stdout
    assert (tmp_path / "log.gpus").read_text().split().count("0") == 4
