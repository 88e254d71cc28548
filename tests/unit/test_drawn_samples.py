"""Samples that are drawn for the editor that ships: what they show, and which things may stand for one another."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.diverse.drawn_samples import NAMES, SAMPLE_COLUMNS, THING_COLUMNS, WEIGHTS, draw_samples, people_of, texts_of
from benchmarks.diverse.sample_store import SampleStore
from reid_ray.attributes.parser import read_attributes
from reid_ray.data.synthetic.sentences import SLOTS
from reid_ray.data.synthetic.traits import ATTRIBUTES
from reid_ray.model.dual.tokenizer import train_tokenizer
from reid_ray.model.editor.editor_folder import EditorShape
from reid_ray.train.editor.config import EditorObjective
from reid_ray.train.editor.edit_samples import UNKNOWN

SHAPE = EditorShape("inpaint", 32, 32, 32, 48, 0.25, 2, 2, 8, 1.5)


@pytest.fixture(scope="module")
def people():
    return people_of(3, height=64, identities=500, cameras=2)


@pytest.fixture(scope="module")
def tokenizer(people):
    return train_tokenizer(texts_of(people, 300), vocab_size=600, context=SHAPE.context)


@pytest.fixture(scope="module")
def drawn(people, tokenizer):
    return draw_samples(people, 40, 100, shape=SHAPE, tokenizer=tokenizer, seed=0)


@pytest.mark.slow
def test_a_prompt_says_nothing_of_the_looks_of_what_is_redrawn(drawn, tokenizer):
    for token_T, thing_K in zip(drawn.token, drawn.thing, strict=True):
        slots = {
            slot for thing in thing_K[thing_K >= 0] for slot in SLOTS if slot in WEIGHTS and drawn.value[thing][NAMES.index(slot)] >= 0
        }
        said = read_attributes(tokenizer.decode(token_T, skip_special_tokens=True))
        assert not [each for each in said.things if each.slot in slots and {"color", "pattern"} & set(each.said)]


@pytest.mark.slow
def test_a_thing_has_the_truth_of_its_slot_and_of_no_other(people, drawn):
    truth = people.attributes(40, 100)
    told = [{name: ATTRIBUTES[name][code] for name, code in zip(NAMES, value, strict=True) if code != UNKNOWN} for value in drawn.value]
    assert len(told) > 150
    assert all(any(each.items() <= attributes.items() for attributes in truth) for each in told)
    assert {tuple(each) for each in told} <= {SLOTS[slot] for slot in WEIGHTS}


def test_things_look_alike_where_their_values_are_and_the_other_shot_shows_the_same_thing(drawn):
    alike = drawn.look[:, None] == drawn.look[None]
    assert np.array_equal(alike, (drawn.value[:, None] == drawn.value[None]).all(axis=2))
    assert (drawn.look[drawn.other] == drawn.look).all()
    assert np.array_equal(drawn.other[drawn.other], np.arange(len(drawn.other)))
    kinds = [NAMES.index(slot) for slot in WEIGHTS]
    bare = np.where(np.isin(np.arange(len(NAMES)), kinds) & (drawn.value >= 0), 0, drawn.value)
    assert np.array_equal(drawn.surface[:, None] == drawn.surface[None], (bare[:, None] == bare[None]).all(axis=2))


def test_what_is_redrawn_is_hidden(drawn):
    assert (drawn.mask >= drawn.segment.any(axis=1)).all()
    assert (drawn.segment.any(axis=(2, 3)) == (drawn.thing >= 0)).all()


@pytest.mark.slow
def test_batches_take_references_that_look_as_the_things_do(people, tokenizer, drawn):
    store = SampleStore("cpu")
    for each in (drawn, draw_samples(people, 200, 260, shape=SHAPE, tokenizer=tokenizer, seed=0)):
        store.add(each)
    store.settle()
    assert set(store._columns) == {*SAMPLE_COLUMNS, *THING_COLUMNS}
    thing = torch.arange(len(store._columns["look"]))[:, None]
    lots = torch.rand(thing.shape, generator=torch.Generator().manual_seed(0))
    for which, column in ((0.2, "look"), (0.5, "look"), (0.99, "surface")):
        found = store._references(thing, torch.full(thing.shape, which), lots)
        assert torch.equal(store._columns[column][found], store._columns[column][thing])
    assert torch.equal(store._references(thing, torch.zeros(thing.shape), lots), thing)
    batch = store.batch(8, torch.Generator().manual_seed(0), noise_power=0.35, objective=EditorObjective(), drop=0.1)
    assert batch["crops"].shape == (8, 3, 3, 32, 32)
    assert (batch["values"][~batch["given"]] == UNKNOWN).all()
