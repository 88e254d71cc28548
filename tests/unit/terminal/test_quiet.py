"""A job's terminal holds the job's own lines and nothing else, whichever way a library writes; the rest is in the log."""

import os
import subprocess
import sys
import time

import pytest
from screen import run_on

from reid_ray.cli.run_job import run_job
from reid_ray.data.synthetic.config import SynthesizeJob
from reid_ray.progress import progress_bar
from reid_ray.terminal.own_lines import say

JOB = """
import atexit, ctypes, logging, os, subprocess, sys, threading, time, warnings
from reid_ray.cli.run_job import run_job
from reid_ray.data.synthetic.config import SynthesizeJob
from reid_ray.progress import progress_bar
from reid_ray.terminal.own_lines import say

atexit.register(lambda: os.write(2, b"theirs: exit\\n"))
early = logging.StreamHandler()
logging.getLogger("early").addHandler(early)
logging.getLogger("early").propagate = False

def chatter():
    print("theirs: print")
    print("theirs: print to stderr", file=sys.stderr)
    logging.warning("theirs: logging")
    logging.getLogger("early").warning("theirs: a handler that was there before")
    warnings.warn("theirs: warning")
    os.write(1, b"theirs: descriptor 1\\n")
    os.write(2, b"theirs: descriptor 2\\n")
    libc = ctypes.CDLL(None)
    libc.puts(b"theirs: C")
    libc.fflush(None)
    subprocess.run([sys.executable, "-c", "print('theirs: child')"], check=True)
    thread = threading.Thread(target=lambda: print("theirs: thread"))
    thread.start()
    thread.join()
    os.write(2, b"theirs: half a line")

def run(config):
    say("begins")
    with progress_bar("work", 3) as bar:
        for _ in range(3):
            chatter()
            bar.update()
    say("done")
    {end}

sys.exit(run_job("", SynthesizeJob, run, ["output.path=" + sys.argv[1]]))
"""
WAYS = [
    "print",
    "print to stderr",
    "logging",
    "a handler",
    "warning",
    "descriptor 1",
    "descriptor 2",
    "C",
    "child",
    "thread",
    "half a line",
]


@pytest.fixture
def job(tmp_path):
    def write(end="pass"):
        script = tmp_path / "job.py"
        script.write_text(JOB.replace("{end}", end))
        return script

    return write


@pytest.mark.parametrize("kind", ["terminal", "file"])
@pytest.mark.parametrize(
    ("end", "code"), [("pass", 0), ("raise OSError(28, 'No space left on device')", 2), ("raise ValueError('bug')", 1)]
)
@pytest.mark.slow
def test_only_our_own_lines_are_seen_and_the_log_holds_the_rest(kind, end, code, job, tmp_path):
    screen = run_on(kind, job(end), tmp_path / "out", folder=tmp_path, timeout=60)
    last = f"what libraries printed is in {screen.log}\n"
    assert (screen.code, screen.seen) == (code, screen.said + last)
    assert "begins\n" in screen.said
    assert "done\n" in screen.said
    assert ("Traceback" in screen.said) is (code == 1)
    assert ("error: " in screen.said) is (code == 2)
    assert ("\rwork" in screen.said) is (kind == "terminal")
    _wait_for(lambda: "theirs: exit" in screen.log.read_text())
    kept = screen.log.read_text()
    assert [way for way in WAYS if f"theirs: {way}" not in kept] == []


@pytest.mark.slow
def test_a_job_whose_libraries_keep_silent_leaves_no_log_and_names_none(tmp_path):
    script = tmp_path / "job.py"
    script.write_text(JOB.replace("            chatter()\n", "").replace("atexit.register", "str").replace("{end}", "pass"))
    screen = run_on("file", script, tmp_path / "out", folder=tmp_path)
    assert (screen.code, screen.seen, screen.log) == (0, screen.said, None)
    _wait_for(lambda: list((tmp_path / "logs").iterdir()) == [])


def _run(script, tmp_path, **variables):
    command, environment = [sys.executable, script, tmp_path / "out"], {**os.environ, **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.slow
def test_everything_is_shown_where_asked_or_where_no_log_can_be_kept(job, tmp_path):
    (tmp_path / "file").touch()
    asked, cannot = (_run(job(), tmp_path, REID_RAY_LOGS=value) for value in ("show", str(tmp_path / "file")))
    for done in (asked, cannot):
        assert done.returncode == 0
        assert "done\n" in done.stdout
        assert "theirs: child" in done.stdout
        assert "theirs: logging" in done.stderr
    assert str(tmp_path / "file") not in asked.stderr
    assert cannot.stderr.count(str(tmp_path / "file")) == 1


@pytest.mark.slow
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("logs", ["show", None])
def test_a_job_that_is_started_with_a_stream_closed_does_its_work(closed, logs, job, tmp_path):
    end = "pathlib.Path(config.output.path).write_text('result'); chatter()"
    command = f'"{sys.executable}" "{job("import pathlib; " + end)}" "{tmp_path}/out" {closed}'
    environment = {**os.environ, "REID_RAY_LOGS": logs or str(tmp_path / "logs")}
    done = subprocess.run(command, shell=True, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out").read_text() == "result"
    if logs is None:
        assert "theirs" not in done.stdout + done.stderr


@pytest.mark.slow
def test_without_a_variable_the_log_is_among_the_users_state(job, tmp_path):
    done = _run(job(), tmp_path, REID_RAY_LOGS="", XDG_STATE_HOME=str(tmp_path / "state"))
    (log,) = (tmp_path / "state" / "reid_ray" / "logs").iterdir()
    assert done.stdout.endswith(f" {log}\n")
    done = _run(job(), tmp_path, REID_RAY_LOGS="", XDG_STATE_HOME="", HOME=str(tmp_path))
    (log,) = (tmp_path / ".local" / "state" / "reid_ray" / "logs").iterdir()
    assert done.stdout.endswith(f" {log}\n")


@pytest.mark.slow
def test_a_crash_of_the_whole_process_is_seen(job, tmp_path):
    screen = run_on("file", job("os.abort()"), tmp_path / "out", folder=tmp_path)
    assert screen.code == -6
    assert "Fatal Python error: Aborted" in screen.seen


@pytest.mark.slow
def test_a_process_that_outlives_the_job_may_go_on_printing_and_does_not_keep_it(job, tmp_path):
    code = "import time; time.sleep(4); print('theirs: late', flush=True); open('{mark}', 'w')".format(mark=tmp_path / "mark")
    end = f"subprocess.Popen([sys.executable, '-c', {code!r}])"
    screen = run_on("file", job(end), tmp_path / "out", folder=tmp_path)
    assert screen.code == 0
    assert not (tmp_path / "mark").exists()
    _wait_for(lambda: (tmp_path / "mark").exists() and "theirs: late" in screen.log.read_text())


def _wait_for(happened):
    for _ in range(200):
        if happened():
            return
        time.sleep(0.05)
    raise AssertionError("it does not happen")


def test_a_job_that_python_calls_leaves_its_streams_as_they_are(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("REID_RAY_LOGS", str(tmp_path / "logs"))

    def run(config):
        say("ours")
        print("theirs")
        with progress_bar("work", 1) as bar:
            bar.update()

    assert run_job("", SynthesizeJob, run, [f"output.path={tmp_path}/out"]) == 0
    seen = capsys.readouterr()
    assert seen.out == "ours\ntheirs\n"
    assert "work: 1/1" in seen.err
    assert not (tmp_path / "logs").exists()
