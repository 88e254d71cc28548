"""A run that died between the two renames of a commit: the older result comes back before anything else happens."""

from __future__ import annotations

import os

import pytest
from refusals import refused

from reid_ray.config import Section
from reid_ray.errors import DataError
from reid_ray.storage import JobOutput, read_manifest


class Config(Section):
    number: int = 1


def died_between_renames(path):
    """Leave a result as such a run does: away from its place, with its whole mark."""
    with JobOutput("test", path, Config()) as out:
        (out.folder / "rows").write_text("older")
    os.rename(path, path.parent / f".{path.name}.0123abcd.old")


def test_the_older_result_is_back_before_the_next_run_works(tmp_path, capsys):
    died_between_renames(tmp_path / "out")
    with pytest.raises(RuntimeError), JobOutput("test", tmp_path / "out", Config(number=2), if_exists="replace"):
        assert (tmp_path / "out" / "rows").read_text() == "older"
        raise RuntimeError  # so that this run gives nothing
    assert read_manifest(tmp_path / "out")["config"] == {"number": 1}
    assert "is restored" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_it_is_not_taken_for_free_space_by_a_run_that_must_not_replace(tmp_path):
    died_between_renames(tmp_path / "out")
    with refused(DataError, "output.if_exists"), JobOutput("test", tmp_path / "out", Config(number=2)):
        pass
    assert (tmp_path / "out" / "rows").read_text() == "older"
