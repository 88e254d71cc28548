"""The list of files in an output's mark: what lacks is noticed, and what somebody changed is not removed by it."""

from __future__ import annotations

from reid_ray.config import Section
from reid_ray.storage import JobOutput
from reid_ray.storage.listing import remove_listed


class Config(Section):
    pass


def made(path):
    with JobOutput("test", path, Config(), if_exists="reuse") as out:
        for name in ("rows", "more"):
            (out.folder / name).write_text(name)
    return path


def test_a_result_of_which_a_file_is_gone_or_cut_off_is_not_kept_and_one_with_a_file_more_is(tmp_path):
    def kept() -> bool:
        return JobOutput("test", path, Config(), if_exists="reuse").finished() is not None

    path = made(tmp_path / "out")
    (path / "notes.txt").write_text("mine")
    assert kept()
    (path / "rows").write_text("ro")
    assert not kept()
    (path / "rows").unlink()
    assert not kept()


def test_a_list_removes_what_it_names_and_leaves_a_file_that_was_edited_since(tmp_path):
    whole, edited = made(tmp_path / "whole"), made(tmp_path / "edited")
    (edited / "rows").write_text("edited by somebody")
    assert remove_listed(whole)
    assert not whole.exists()
    assert not remove_listed(edited)
    assert (edited / "rows").read_text() == "edited by somebody"
    assert not (edited / "more").exists()
