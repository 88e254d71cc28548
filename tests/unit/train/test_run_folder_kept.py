"""What an interrupted preparation has finished is kept for the same command; after a mistake of the user's nothing is left."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from reid_ray.config.base import load_config
from reid_ray.errors import DataError
from reid_ray.storage import JobOutput
from reid_ray.train.dual.config import TrainJob
from reid_ray.train.recipe import DATA
from reid_ray.train.run import _run_folder


@pytest.mark.parametrize(
    ("error", "prepared", "kept"), [(KeyboardInterrupt, True, True), (KeyboardInterrupt, False, False), (DataError, True, False)]
)
def test_a_run_folder_is_kept_if_something_is_prepared_in_it_and_the_data_are_not_at_fault(tmp_path, error, prepared, kept):
    values = ["images.path=x", "captions.paths=[x]", f"output.path={tmp_path / 'model'}", "workers.count=1"]
    recipe = SimpleNamespace(job="train", config=load_config(TrainJob, None, values))
    with pytest.raises(error), _run_folder(recipe, JobOutput("train", tmp_path / "model", recipe.config)) as (folder, _):
        if prepared:
            (folder / DATA).mkdir()
        raise error("now")
    assert folder.exists() == kept
