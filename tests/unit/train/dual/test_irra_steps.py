"""A few training steps beside IRRA's recipe in plain torch (benchmarks/irra), which shares no line with the package."""

import pytest
import torch

from benchmarks.irra_steps import GOAL, SMALL, Trial, difference, our_names, our_weights, plain_weights, recipe_of, shipped

pytestmark = pytest.mark.slow

TRIAL = Trial(SMALL, epochs=3, batch=8)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small matrices: threads that wait for each other on a busy machine take longer than the work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def start():
    return our_names(TRIAL.start().state_dict())


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (None, None),
        ("masking.masked_for=irr", "masks_in_place"),
        ("masking.at_least_one=false", "at_least_one"),
        ("optimizer.heads_factor=1.0", "new_modules"),
    ],
)
def test_steps_move_every_weight_where_irras_recipe_does(start, change, part):
    """The shipped configuration, and each switch against the recipe without that part; with the whole recipe a switch shows."""
    recipe = recipe_of(shipped(TRIAL))
    ours = our_weights(TRIAL, *([change] if change else []), zero=False)
    found = difference(ours, plain_weights(TRIAL, recipe.without(part) if part else recipe), start)
    assert found.of_weights < GOAL
    assert found.of_learnt < 0.01  # some roundings of the least that a tensor moves
    if part:
        assert difference(ours, plain_weights(TRIAL, recipe), start).of_learnt > 0.1
