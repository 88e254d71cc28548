import os

import pytest

from reid_ray.config.paths import named_places
from reid_ray.config.source import SourceConfig
from reid_ray.config.train import TrainJob

HOME = {"~/crops": "crops", "~": "", "/data/~/x": None, "builtin:tiny": None, "s3://bucket/~x": None, "openai/clip": None}


@pytest.mark.parametrize(("text", "below_home"), HOME.items())
def test_a_tilde_at_the_start_of_a_place_is_home(text, below_home, monkeypatch):
    monkeypatch.setenv("HOME", "/home/her")
    wanted = text if below_home is None else os.path.join("/home/her", below_home).rstrip("/")
    assert SourceConfig(format="folder", path=text).path == wanted


def test_places_are_found_by_their_fields_in_lists_and_sections_and_texts_are_not_places():
    config = TrainJob.model_validate(
        {"images": {"path": "i", "train_split": "train"}, "captions": {"paths": ["a", "b"]}, "output": {"path": "o"}}
    )
    places = named_places(config, without=frozenset({"output"}))
    assert places.items() >= {"images.path": "i", "captions.paths.0": "a", "captions.paths.1": "b"}.items()
    assert not {"train", "o"} & set(places.values())
