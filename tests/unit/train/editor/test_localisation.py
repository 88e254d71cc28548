"""The localisation loss against loops over cells, heads, layers and attributes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reid_ray.train.editor.localisation import localisation_loss


def by_loops(maps, masks, position, given, grid):
    losses = []
    for sample in range(len(masks)):
        values = []
        for attribute in range(masks.shape[1]):
            if not given[sample, attribute]:
                continue
            of_layers = []
            for layer in maps:
                rows = grid[0]
                while rows * (rows * grid[1] // grid[0]) > layer.shape[2]:
                    rows //= 2
                columns = rows * grid[1] // grid[0]
                of_heads = []
                for head in range(layer.shape[1]):
                    inside = outside = inside_weight = outside_weight = 0.0
                    for row in range(rows):
                        for column in range(columns):
                            high, wide = masks.shape[2] // rows, masks.shape[3] // columns
                            share = masks[sample, attribute, row * high : (row + 1) * high, column * wide : (column + 1) * wide].mean()
                            a = layer[sample, head, row * columns + column, position[sample, attribute]]
                            inside, inside_weight = inside + a * share, inside_weight + share
                            outside, outside_weight = outside + a * (1 - share), outside_weight + 1 - share
                    of_heads.append(outside / max(outside_weight, 1e-6) - inside / max(inside_weight, 1e-6))
                of_layers.append(np.mean(of_heads))
            values.append(np.mean(of_layers))
        losses.append(np.mean(values) if values else 0.0)
    return np.array(losses)


@pytest.mark.parametrize("grid", [(8, 8), (8, 4)])
def test_it_is_outside_less_inside_over_heads_layers_and_attributes(grid):
    rng = np.random.default_rng(0)
    tokens, cells = 6, grid[0] * grid[1]
    maps = [torch.rand(3, 2, cells // 4, tokens).softmax(-1), torch.rand(3, 4, cells // 16, tokens).softmax(-1)]
    masks = rng.random((3, 2, 4 * grid[0], 4 * grid[1])) < 0.4
    masks[0, 0] = True  # nothing outside
    masks[1, 0] = False
    masks[1, 0, 0, 0] = True  # a share of one cell
    position, given = rng.integers(0, tokens, (3, 2)), np.array([[True, True], [True, False], [False, False]])
    found = localisation_loss(
        maps,
        mask_NKHW=torch.from_numpy(masks.astype(np.float32)),
        position_NK=torch.from_numpy(position),
        given_NK=torch.from_numpy(given),
        grid=grid,
    )
    np.testing.assert_allclose(found.numpy(), by_loops([each.numpy() for each in maps], masks, position, given, grid), atol=1e-6)


def test_attention_that_lies_on_its_thing_costs_least():
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :4, :] = 1
    on, off = torch.zeros(1, 1, 16, 2), torch.zeros(1, 1, 16, 2)
    on[0, 0, :8, 1], off[0, 0, 8:, 1] = 1, 1
    options = {"mask_NKHW": mask, "position_NK": torch.tensor([[1]]), "given_NK": torch.tensor([[True]]), "grid": (4, 4)}
    assert localisation_loss([on], **options).item() == pytest.approx(-1)
    assert localisation_loss([off], **options).item() == pytest.approx(1)
