"""What an actor does to the process that Ray gives it."""

import sys
import tempfile

import pytest

from reid_ray.caption.actors.caption_actor import CaptionActor
from reid_ray.caption.actors.configured_engine import has_one_core
from reid_ray.caption.actors.engine_actor import GPU_SWITCH_S, PassPlace
from reid_ray.caption.config import CaptionerConfig
from reid_ray.caption.ledger.attempt_board import AttemptBoard
from reid_ray.caption.ledger.config import LedgerConfig
from reid_ray.caption.ledger.write_ahead_log import open_ledger


class Silent:
    """An engine that nobody asks."""

    def chat(self, conversations, keys):
        raise NotImplementedError


@pytest.mark.parametrize(("num_gpus", "set_to"), [(0, []), (0.5, [GPU_SWITCH_S]), (1, [GPU_SWITCH_S])])
def test_threads_take_turns_more_often_beside_a_gpu_alone(tmp_path, monkeypatch, num_gpus, set_to):
    intervals = []
    monkeypatch.setattr(sys, "setswitchinterval", intervals.append)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # of the record of what is in flight
    config = CaptionerConfig(pool={"num_gpus": num_gpus})
    with open_ledger(tmp_path / "out") as ledger:
        place = PassPlace(ledger, AttemptBoard(), LedgerConfig())
        CaptionActor({"name": "main", "revision": "r", "max_pixels": 100}, config, place=place, engine=Silent())
    assert intervals == set_to


@pytest.mark.parametrize(
    ("section", "one"),
    [
        ({}, True),
        ({"pool": {"num_cpus": 2}}, False),
        ({"pool": {"num_gpus": 0.5}}, False),
        ({"engine": {"own_process": True}}, False),
        ({"engine": {"prepare_processes": 1}}, False),
    ],
)
def test_an_engine_takes_turns_with_what_prepares_for_it_where_both_have_one_core(section, one):
    assert has_one_core(CaptionerConfig.model_validate(section)) == one
