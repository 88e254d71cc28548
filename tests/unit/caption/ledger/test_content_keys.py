"""Identity: the same generation has the same id, any other another one."""

from __future__ import annotations

import pytest

from reid_ray.caption.config import SamplingConfig
from reid_ray.caption.ledger.content_keys import caption_id, derived_seed, digest, falls_in_share, prompt_fingerprint, rewrite_id

BASE = {"image_id": "a.jpg", "image_sha256": "00", "instruction_id": "static", "model": "m", "revision": "r", "prompt": "p"}


def test_a_caption_id_changes_with_each_of_its_parts_and_with_nothing_else():
    ids = {caption_id(**BASE)} | {caption_id(**{**BASE, name: BASE[name] + "x"}) for name in BASE}
    assert len(ids) == 1 + len(BASE)
    assert caption_id(**BASE) == caption_id(**BASE)
    assert caption_id(**{**BASE, "image_sha256": None}) not in ids


def test_parts_cannot_be_shifted_into_one_another():
    assert digest("ab", "c") != digest("a", "bc")
    assert digest("1") != digest(1)


def test_the_prompt_fingerprint_covers_instruction_and_every_sampling_value():
    sampling = SamplingConfig()
    other = {"temperature": 0.5, "top_p": 0.5, "repetition_penalty": 1.5, "max_tokens": 7, "seed": 1}
    other |= {"structure": {"regex": "x"}, "extra": {"top_k": 3}}
    changed = [SamplingConfig.model_validate({name: value}) for name, value in other.items()]
    assert len(changed) == len(SamplingConfig.model_fields)
    prints = {prompt_fingerprint("x", one) for one in [sampling, *changed]} | {prompt_fingerprint("y", sampling)}
    assert len(prints) == len(changed) + 2


def test_rewrites_of_one_caption_differ_by_number():
    ids = {rewrite_id(parent_id="c", number=number, model="m", revision="r", prompt="p") for number in range(10)}
    assert len(ids) == 10
    assert caption_id(**BASE) not in ids


@pytest.mark.slow
def test_shares_are_near_what_is_asked_and_nested():
    keys = [str(key) for key in range(20_000)]
    chosen = {share: {key for key in keys if falls_in_share(key, share)} for share in (0.0, 0.1, 0.5, 1.0)}
    assert not chosen[0.0]
    assert len(chosen[1.0]) == len(keys)
    assert abs(len(chosen[0.1]) - 2000) < 200
    assert chosen[0.1] < chosen[0.5] < chosen[1.0]


def test_seeds_are_valid_and_differ_by_request():
    seeds = {derived_seed(0, "caption", number) for number in range(5000)} | {derived_seed(1, "caption", 0)}
    assert len(seeds) == 5001
    assert all(0 <= seed < 2**31 for seed in seeds)
