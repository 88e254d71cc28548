"""Kills of caption runs in long series: what the short form of each kill test shows once, tens of times and at random moments."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from kill_series import total_of

pytestmark = pytest.mark.slow

# What a driver's actors hold that dies is all made again: of sixteen, up to thrice 32 requests each, and both captions of an image.
SERIES = {
    "two actors": (["--engine", "scripted", "--every", "8"], 30, 2 * 32, 600),
    "two of vLLM": (["--engine", "vllm", "--every", "30"], 8, 2 * 64, 900),
    "sixteen, one of them broken": (
        ["--engine", "scripted", "--actors", "16", "--broken", "--images", "4000", "--every", "20", "--weights", "6", "1", "1"],
        40,
        16 * 32,
        1400,
    ),
}


@pytest.mark.parametrize(("options", "kills", "held", "limit_s"), SERIES.values(), ids=SERIES)
def test_no_kill_at_a_random_moment_loses_doubles_or_ages_a_row(root, tmp_path, options, kills, held, limit_s):
    total = total_of(root, tmp_path, "benchmarks/caption_kills.py", *options, kills=kills, held=held, limit_s=limit_s)
    assert [total[name] for name in ("lost", "duplicated", "stale", "other_text", "quarantined")] == [0, 0, 0, 0, 0]


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
counts = {{name: manifest["counts"][name] for name in ("read", "written", "failed")}}
print("rows by", counts, len(manifest["facts"]["ledger"]["broken_actors"]))
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
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "rows by {'read': 120, 'written': 120, 'failed': {}} 1" in done.stdout
    assert "an actor is broken, its rows go to others: its engine died 4 times" in done.stdout
    assert (tmp_path / "log.gpus").read_text().split().count("0") == 4
