"""`reid-ray setup`: what pip cannot get is a sentence with pip's reason and a remedy; what is there is left as it is."""

import subprocess
import sys
import sysconfig

import pytest

from reid_ray.errors import ResourceError
from reid_ray.setup import preparation
from reid_ray.setup.pins import constraints_file, pin_of
from reid_ray.setup.requirements import Installed


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_process_that_installs_the_hook_can_import_torchvision(root, tmp_path):
    # -S: no .pth file is read, as in an environment that has none yet. `reid-ray setup` then loads models with transformers.
    packages = sysconfig.get_paths()["purelib"]
    code = f"""
import sys
from pathlib import Path
sys.path += [{str(tmp_path)!r}, {packages!r}]
sys.path.insert(0, {str(root)!r})
from reid_ray.setup.torchvision_cpu import HOOK_NAME, install
assert HOOK_NAME not in sys.modules
install(Path({str(tmp_path)!r}))
import torchvision
"""
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
