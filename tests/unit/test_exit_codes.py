"""How a job ends: exit code, last words, and what is cleaned up, shown on a process of its own."""

import os
import signal
import subprocess
import sys
import time

import httpx
import pytest

from reid_ray.cli.run_job import run_job
from reid_ray.data.synthetic.config import SynthesizeJob
from reid_ray.errors import DataError
from reid_ray.exit_codes import exit_code_of

JOB = """
import sys, time
from pathlib import Path
from reid_ray.cli.run_job import run_job
from reid_ray.data.synthetic.config import SynthesizeJob
from reid_ray.terminal.own_lines import say

def run(config):
    part = Path(config.output.path)
    part.mkdir()
    try:
        {body}
    finally:
        part.rmdir()

sys.exit(run_job("", SynthesizeJob, run, ["output.path=" + sys.argv[1]]))
"""


def _start(tmp_path, body, **options):
    command = [sys.executable, "-c", JOB.format(body=body), str(tmp_path / "out")]
    options.setdefault("env", {**os.environ, "REID_RAY_LOGS": str(tmp_path / "logs")})
    options.setdefault("preexec_fn", _default_signals)  # whoever runs the tests may ignore some, and a child inherits that
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def _default_signals():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _wait_for(path):
    for _ in range(600):
        if path.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} does not appear")


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM"), (signal.SIGHUP, 129, "the end of its terminal")],
)
@pytest.mark.slow
def test_a_signal_unwinds_the_job_and_ends_it_with_its_own_code(tmp_path, number, code, words):
    job = _start(tmp_path, "time.sleep(60)")
    _wait_for(tmp_path / "out")
    job.send_signal(number)
    _, said = job.communicate(timeout=30)
    assert (job.returncode, (tmp_path / "out").exists()) == (code, False)
    assert f"stopped by {words}" in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_signal_that_is_ignored_stays_ignored(tmp_path):
    job = _start(tmp_path, "time.sleep(3)", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    _wait_for(tmp_path / "out")
    job.send_signal(signal.SIGHUP)
    job.communicate(timeout=30)
    assert job.returncode == 0


@pytest.mark.parametrize(
    ("body", "code", "said", "traceback"),
    [
        ("say('done')", 0, "", False),
        ("raise OSError(28, 'No space left on device')", 2, "error: output.path {out}: the disk is full", False),
        ("raise PermissionError(13, 'Permission denied', '/x/y')", 2, "error: /x/y: permission denied", False),
        ("raise ValueError('bug')", 1, "ValueError: bug", True),
    ],
)
@pytest.mark.slow
def test_the_exit_code_tells_what_a_user_can_mend_from_a_fault(tmp_path, body, code, said, traceback):
    job = _start(tmp_path, body)
    _, words = job.communicate(timeout=30)
    assert job.returncode == code
    assert said.format(out=tmp_path / "out") in words
    assert ("Traceback" in words) is traceback


@pytest.mark.parametrize("logs", [None, "show"])
@pytest.mark.parametrize(("target", "words"), [("closed", "standard output"), ("/dev/full", "disk is full")])
@pytest.mark.slow
def test_an_output_that_nobody_reads_or_that_is_full_is_one_sentence(tmp_path, target, words, logs):
    command = [sys.executable, "-c", JOB.format(body="say('x' * 10)"), str(tmp_path / "out")]
    if target == "closed":
        reader, writer = os.pipe()
        os.close(reader)
    else:
        writer = os.open(target, os.O_WRONLY)
    # As it is where nobody asks: Python keeps back what is printed until the very end.
    environment = {**os.environ, "PYTHONUNBUFFERED": "", "REID_RAY_LOGS": logs or str(tmp_path / "logs")}
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, env=environment, text=True, timeout=60, check=False)
    os.close(writer)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_error_that_names_its_remedy_is_said_as_it_is(capsys):
    def work():
        raise DataError("/t: cannot be read; write it again")

    assert exit_code_of(work) == 2
    assert capsys.readouterr().err == "error: /t: cannot be read; write it again\n"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.slow
def test_a_second_signal_ends_a_job_that_cleans_up_for_too_long(tmp_path):
    body = "try:\n            time.sleep(60)\n        finally:\n            (part / 'cleaning').touch(); time.sleep(60)"
    job = _start(tmp_path, body)
    _wait_for(tmp_path / "out")
    job.send_signal(signal.SIGTERM)
    _wait_for(tmp_path / "out" / "cleaning")
    job.send_signal(signal.SIGTERM)
    job.communicate(timeout=30)
    assert job.returncode == -signal.SIGTERM


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_service_that_is_told_to_stop_is_done(number):
    code = """
import contextlib, sys
from reid_ray.exit_codes import exit_code_of
from reid_ray.serve.job import Service, run_until_stopped
sys.exit(exit_code_of(lambda: run_until_stopped(Service("http://127.0.0.1:1", contextlib.ExitStack()))))
"""
    job = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, preexec_fn=_default_signals)  # noqa: PLW1509 - no thread here
    assert "open http://127.0.0.1:1/" in job.stdout.readline()
    job.send_signal(number)
    assert job.communicate(timeout=30)[0] == "serve: stopping\n"
    assert job.returncode == 0


@pytest.mark.slow
def test_a_service_that_is_stopped_before_it_answers_has_not_served():
    code = """
import sys, time
from reid_ray.exit_codes import exit_code_of
from reid_ray.serve.job import _wait_until_ready
from reid_ray.serve.process.doorway import Doorway
from reid_ray.serve.process.http_thread import bound_socket, running_server

def serve():
    with bound_socket("127.0.0.1", 0) as listening, running_server(Doorway(), listening):
        port = listening.getsockname()[1]
        print(port, flush=True)
        _wait_until_ready(f"http://127.0.0.1:{port}", time.monotonic() + 60)

sys.exit(exit_code_of(serve))
"""
    job = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, preexec_fn=_default_signals)  # noqa: PLW1509 - no thread here
    port = int(job.stdout.readline())
    assert httpx.get(f"http://127.0.0.1:{port}/v1/live").status_code == 200
    job.send_signal(signal.SIGINT)
    job.communicate(timeout=30)
    assert job.returncode == 130
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/v1/live")


def test_an_unknown_option_ends_with_2_and_the_usage(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        run_job("", SynthesizeJob, lambda config: None, ["--outptu", "x"])
    assert caught.value.code == 2
    assert "usage: " in capsys.readouterr().err
