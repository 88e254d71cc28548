"""What the serve job says of where it is: of every interface also how others reach it."""

import contextlib
import gc
import socket
import threading

import pytest

from reid_ray.serve import job
from reid_ray.serve.job import Service, reached_by_others, run_until_stopped


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "0:0:0:0:0:0:0:0"])
def test_on_every_interface_others_are_told_a_name_and_that_an_address_does(host):
    said = reached_by_others("http", host, 8000)
    assert f"every interface of this machine ({host})" in said
    assert f"http://{socket.gethostname()}:8000/" in said
    assert "its address" in said
    assert "certificate" in reached_by_others("https", host, 8443)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "192.168.0.4", "search.example"])
def test_an_address_or_a_name_says_itself_who_reaches_it(host):
    assert reached_by_others("http", host, 8000) is None


@pytest.mark.parametrize(("host", "lines"), [("0.0.0.0", 2), ("127.0.0.1", 1)])
def test_it_is_said_below_the_address_for_this_machine(host, lines, monkeypatch, capsys):
    stopped = threading.Event()
    stopped.set()
    monkeypatch.setattr(job, "_stop_signals", lambda: contextlib.nullcontext(stopped))
    run_until_stopped(Service("http://127.0.0.1:1", contextlib.ExitStack(), reached_by_others("http", host, 1)))
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "serve: open http://127.0.0.1:1/ in a browser; Ctrl-C stops it"
    assert len(said) == lines + 1


def test_while_it_serves_the_collector_leaves_alone_what_was_there_before(monkeypatch):
    left_alone = []

    class Stopped:
        def wait(self, _):
            left_alone.append(gc.get_freeze_count())
            return True

    monkeypatch.setattr(job, "_stop_signals", lambda: contextlib.nullcontext(Stopped()))
    before = gc.get_freeze_count()
    run_until_stopped(Service("http://127.0.0.1:1", contextlib.ExitStack()))
    assert left_alone[0] > before + 10_000
    assert gc.get_freeze_count() <= before
