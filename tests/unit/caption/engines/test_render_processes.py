"""What processes beside an engine send and receive is what it was, and none of them outlives the process that started them."""

from __future__ import annotations

import multiprocessing
import multiprocessing.pool
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from reid_ray.caption.engines.render_processes import receive, send

STARTER = """
import multiprocessing, time
from reid_ray.caption.engines.render_processes import RenderProcesses
if __name__ == "__main__":
    processes = RenderProcesses(2)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    time.sleep(60)
"""
TENSORS = {
    "half": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3),
    "turned": torch.arange(6.0).reshape(2, 3).T,
    "number": torch.tensor(7),
    "empty": torch.empty((0, 4), dtype=torch.float16),
    "flags": torch.tensor([True, False]),
    "large": torch.arange(200_000, dtype=torch.float32),
}


def test_tensors_arrive_as_they_were_sent_with_what_is_around_them():
    ours, theirs = multiprocessing.Pipe()
    sent = {"tensors": list(TENSORS.values()), "words": ("a", 1), "none": None}
    reader = multiprocessing.pool.ThreadPool(1)
    arriving = reader.apply_async(receive, [theirs])
    send(ours, sent)
    arrived = arriving.get(10)
    assert {name: value for name, value in arrived.items() if name != "tensors"} == {"words": ("a", 1), "none": None}
    for before, after in zip(sent["tensors"], arrived["tensors"], strict=True):
        assert after.dtype == before.dtype
        assert torch.equal(after, before)
        after.zero_()  # its memory may be written to, and is its own
    assert TENSORS["number"] == 7
    reader.terminate()


def test_whoever_receives_from_a_process_that_is_gone_is_told():
    ours, theirs = multiprocessing.Pipe()
    theirs.close()
    with pytest.raises(EOFError):
        receive(ours)


@pytest.mark.slow  # processes start
def test_none_outlives_the_process_that_started_them_when_that_is_killed(tmp_path):
    script = tmp_path / "starter.py"
    script.write_text(STARTER)
    starter = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    children = [Path(f"/proc/{pid}") for pid in starter.stdout.readline().split()]
    assert len(children) == 2
    assert all(child.exists() for child in children)
    starter.kill()
    starter.wait()
    deadline = time.monotonic() + 30
    while any(child.exists() for child in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(child.exists() for child in children)
