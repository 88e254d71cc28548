"""Weights are chosen on persons that were not trained on, in a data set whose val split shows training persons too."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from refusals import refused

from reid_ray.config.common import SyntheticConfig
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.errors import DataError
from reid_ray.records import SEEN_FILE
from reid_ray.storage import Counts
from reid_ray.train.mllm.config import TuneJob
from reid_ray.train.mllm.job import MllmRecipe
from reid_ray.train.recipe import DATA


@pytest.fixture
def like_msmt17(tmp_path) -> Path:
    """Its val list holds further pictures of the persons of its train list."""
    people = SyntheticPeople(SyntheticConfig(identities=20, images_per_identity=4, val_share=0, test_share=0.3))
    for name, table in (("images", people.image_table()), ("captions", people.caption_table())):
        split = [
            "val" if was == "train" and image.endswith("_00.jpg") else was
            for was, image in zip(table["split"].to_pylist(), table["image_id"].to_pylist(), strict=True)
        ]
        assert {"train", "val", "test"} == set(split)
        pq.write_table(table.set_column(table.column_names.index("split"), "split", pa.array(split)), tmp_path / f"{name}.parquet")
    return tmp_path


def job(folder: Path, **images: object) -> TuneJob:
    return TuneJob.model_validate(
        {
            "images": {"path": f"{folder}/images.parquet", **images},
            "captions": {"paths": [f"{folder}/captions.parquet"]},
            "batches": {"size": 8, "samples_per_identity": 2},
            "workers": {"count": 1},
            "output": {"path": f"{folder}/out"},
        }
    )


@pytest.mark.slow
def test_a_val_split_of_training_persons_is_refused_and_held_out_persons_choose_instead(like_msmt17):
    with refused(DataError, "images.val_split", "'val'", "unseen", "val_share"):
        MllmRecipe(job(like_msmt17)).prepare(like_msmt17, Counts())
    for seed in (0, 1):
        folder = like_msmt17 / f"run{seed}"
        folder.mkdir()
        recipe = MllmRecipe(job(like_msmt17, val_split=None, val_share=0.3, val_seed=seed))
        facts = recipe.prepare(folder, Counts())
        assert recipe.selection.split == "held_out"
        assert facts["validation_queries"] > 0
        seen = [row for row in pq.read_table(folder / DATA / SEEN_FILE).to_pylist() if row["person_id"] is not None]  # texts are rows, too
        train, val = ({row["person_id"] for row in seen if row["role"] == role} for role in ("train", "val"))
        assert train
        assert val
        assert not train & val
        of_split = pq.read_table(like_msmt17 / "images.parquet", filters=[("split", "==", "train")])["person_id"].to_pylist()
        assert train | val == set(of_split)


def test_the_recipes_for_msmt17_hold_identities_out(root):
    from reid_ray.config.base import load_config

    for name in ("tune_qwen25vl_7b.yaml", "tune_qwen3vl_8b.yaml", "tune_llava15_7b.yaml"):
        images = load_config(TuneJob, root / "jobs" / "configs" / "train" / name, []).images
        assert "msmt17" in images.path
        assert (images.val_split, images.watched) == (None, "held_out")
