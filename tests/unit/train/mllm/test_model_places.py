"""A model of a relative path is found by workers that stand elsewhere; names that are no folders stay names."""

from reid_ray.config.base import load_config
from reid_ray.train.mllm.config import TuneJob
from reid_ray.train.mllm.job import with_absolute_models

PAIRS = ["images.path=images", "captions.paths=[captions]", "output.path=out"]


def test_a_folder_is_named_in_full_and_a_hub_name_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "mine").mkdir(parents=True)
    config = load_config(TuneJob, None, [*PAIRS, "model.base=models/mine", "model.processor=Qwen/Qwen2.5-VL-7B-Instruct"])
    model = with_absolute_models(config).model
    assert (model.base, model.processor, model.adapter) == (str(tmp_path / "models" / "mine"), "Qwen/Qwen2.5-VL-7B-Instruct", None)
    named = load_config(TuneJob, None, [*PAIRS, "model.base=builtin:tiny-mllm"])
    assert with_absolute_models(named) == named
