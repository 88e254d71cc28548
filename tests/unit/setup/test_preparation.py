"""`reid-ray setup`: what pip cannot get is a sentence with pip's reason and a remedy; what is there is left as it is."""

import pytest

from reid_ray.errors import ResourceError
from reid_ray.setup import preparation
from reid_ray.setup.pins import constraints_file, pin_of
from reid_ray.setup.requirements import Installed


def test_what_pip_cannot_get_is_a_sentence_with_its_reason_and_the_remedy():
    with pytest.raises(ResourceError) as error:
        preparation._pip("install", "--no-index", "--no-deps", "reid-ray-no-such-package==1", remedy="let pip reach an index")
    said = str(error.value)
    assert "No matching distribution" in said
    assert said.endswith("let pip reach an index, and run reid-ray setup again")
    assert "\n" not in said


def test_without_engines_nothing_is_done(monkeypatch, capsys):
    monkeypatch.setattr(preparation, "installed", lambda: Installed(frozenset(), {}, hook=False))
    with pytest.raises(ResourceError, match="extra cpu, or gpu"):
        preparation.set_up()
    assert capsys.readouterr().out == ""


def test_pins_are_read_from_the_file_that_pip_gets():
    lines = constraints_file("cpu").read_text().splitlines()
    assert f"torch=={pin_of('torch', 'cpu')}" in lines
    assert all(line.count("==") == 1 for line in lines)
