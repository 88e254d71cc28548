"""What processes beside an engine send and receive is what it was, what ends one is said, and none outlives whoever started them."""

from __future__ import annotations

import multiprocessing
import multiprocessing.pool
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from refusals import refused

from reid_ray.caption.engines import render_processes
from reid_ray.caption.engines.render_processes import RenderProcessError, RenderProcesses, receive, send

STARTER = """
import multiprocessing, time
from reid_ray.caption.engines.process_guard import guard_what_is_started
from reid_ray.caption.engines.render_processes import RenderProcesses
if __name__ == "__main__":
    guard_what_is_started()
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


class Breaks:
    """A renderer that raises what is no refusal, in words that quote the caption."""

    def __init__(self, *_) -> None:
        pass

    def render(self, conversation):
        raise RuntimeError(f"no kernel for {conversation[0]['content']}")


def test_what_vllm_raises_beside_a_refusal_is_told_without_the_texts_it_quotes(monkeypatch, capfd):
    for name, stand_in in (("front_of", lambda _: None), ("rejections", lambda: (ValueError,)), ("Rendering", Breaks)):
        monkeypatch.setattr(render_processes, name, stand_in)
    ours, theirs = multiprocessing.Pipe()
    serving = multiprocessing.pool.ThreadPool(1)
    served = serving.apply_async(render_processes._serve, [theirs])
    process = object.__new__(render_processes._RenderProcess)
    process.connection = ours
    process.send((None, None))
    assert process.receive() is None
    process.send([{"role": "user", "content": "a tall man in a red coat"}])
    with pytest.raises(RenderProcessError) as raised:
        process.receive()
    assert str(raised.value) == "RuntimeError: no kernel for ..."
    assert served.get(10) is None
    assert capfd.readouterr().err == ""
    serving.terminate()


class NoConfig:
    """What cannot be read again."""

    def __reduce__(self):
        return int, ("none",)


@pytest.mark.slow  # processes start
@pytest.mark.parametrize("gone", [True, False])
def test_a_process_that_cannot_begin_says_why_or_how_it_ended(gone):
    processes = RenderProcesses(1)
    child = multiprocessing.active_children()[-1]
    if gone:
        child.kill()
        child.join(20)
    with refused(RenderProcessError, "exit code -9" if gone else "ValueError"):
        processes.begin(NoConfig(), None)
    processes.close()
    child.join(20)
    assert not child.is_alive()


@pytest.mark.slow  # processes start
@pytest.mark.parametrize("hangs", [False, True])
def test_none_outlives_the_process_that_started_them_when_that_is_killed(tmp_path, hangs):
    script = tmp_path / "starter.py"
    script.write_text(STARTER)
    starter = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    pids = [int(pid) for pid in starter.stdout.readline().split()]
    children = [Path(f"/proc/{pid}") for pid in pids]
    assert len(children) == 2
    assert all(child.exists() for child in children)
    for pid in pids if hangs else ():
        os.kill(pid, signal.SIGSTOP)  # it never learns that its pipe is closed
    starter.kill()
    starter.wait()
    deadline = time.monotonic() + 30
    while any(child.exists() for child in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(child.exists() for child in children)
