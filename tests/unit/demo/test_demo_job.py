"""The demo: the next one replaces its own two files, not files of the same names of somebody else."""

import json

import pytest

from reid_ray.demo.job import refuse_foreign_report
from reid_ray.errors import DataError


@pytest.mark.parametrize(
    "there",
    [{"report.json": '{"quarter": 3}'}, {"report.json": "notes"}, {"sheet.png": "holiday"}, {"report.json": "[]", "sheet.png": "x"}],
)
def test_a_report_or_picture_of_somebody_else_is_refused_by_name(there, tmp_path):
    for name, text in there.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match="|".join(there)):
        refuse_foreign_report(tmp_path)
    assert {entry.name: entry.read_text() for entry in tmp_path.iterdir()} == there


def test_an_earlier_demos_report_and_an_empty_or_missing_folder_are_no_obstacle(tmp_path):
    refuse_foreign_report(tmp_path)
    refuse_foreign_report(tmp_path / "new")
    (tmp_path / "report.json").write_text(json.dumps({"stages": [], "evaluation": {}, "service": {}, "environment": {}}))
    (tmp_path / "sheet.png").write_text("x")
    refuse_foreign_report(tmp_path)
