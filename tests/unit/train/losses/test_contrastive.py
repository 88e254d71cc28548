"""Blocked losses against loops over scalars, against the dense losses, against finite differences, and over two processes."""

import json
import math

import numpy as np
import pytest
import torch
from torch_workers import outputs_of

from reid_ray.train.losses.contrastive import blocked_infonce_loss, blocked_sdm_loss, blocked_sigmoid_loss
from reid_ray.train.losses.image_text import infonce_loss, sdm_loss

TEMPERATURE = 0.07


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _pairs(count=13, dim=6, persons=5, seed=0, dtype=torch.float64):
    draw = np.random.default_rng(seed)
    image, text = (torch.tensor(draw.normal(size=(count, dim)), dtype=dtype) for _ in range(2))
    person = torch.tensor(draw.integers(0, persons, count))
    return torch.nn.functional.normalize(image, dim=1), torch.nn.functional.normalize(text, dim=1), person


def _sdm(image, text, person, tile=4):
    return blocked_sdm_loss(image, text, person, temperature=TEMPERATURE, tile=tile)


def _infonce(image, text, person, tile=4):
    return blocked_infonce_loss(image, text, temperature=TEMPERATURE, tile=tile)


def _sigmoid(image, text, person, tile=4):
    scale = torch.tensor([math.log(10.0)], dtype=image.dtype)
    return blocked_sigmoid_loss(image, text, person, log_scale=scale, bias=torch.tensor([-2.0], dtype=image.dtype), tile=tile)


LOSSES = pytest.mark.parametrize("loss", [_sdm, _infonce, _sigmoid], ids=["sdm", "infonce", "sigmoid"])


def _loops(name, image, text, person):
    """The published formulas, one cell at a time."""
    image, text, person = image.numpy(), text.numpy(), person.numpy()
    count, total = len(image), 0.0
    for one, other in ((image, text), (text, image)):
        for i in range(count):
            cosine = [float(sum(a * b for a, b in zip(one[i], other[j], strict=True))) for j in range(count)]
            mass = sum(math.exp(c / TEMPERATURE) for c in cosine)
            p = [math.exp(c / TEMPERATURE) / mass for c in cosine]
            y = [float(person[i] == person[j]) for j in range(count)]
            if name == "sdm":
                total += sum(p[j] * math.log(p[j] / (y[j] / sum(y) + 1e-8)) for j in range(count))
            elif name == "infonce":
                total += -math.log(p[i]) / 2
            else:
                sign = [1 if same else -1 for same in y]
                total += sum(math.log(1 + math.exp(-sign[j] * (10.0 * cosine[j] - 2.0))) for j in range(count)) / 2
    return total / count


@LOSSES
@pytest.mark.parametrize("tile", [1, 4, 13, 64])
def test_blocked_loss_equals_a_loop_over_scalars_whatever_the_tile(loss, tile):
    image, text, person = _pairs()
    expected = _loops(loss.__name__[1:], image, text, person)
    assert float(loss(image, text, person, tile=tile)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.slow
@LOSSES
def test_blocked_gradient_passes_finite_differences(loss):
    image, text, person = _pairs(count=5, dim=3, persons=3)
    torch.autograd.gradcheck(lambda i, t: loss(i, t, person, tile=2), (image.requires_grad_(), text.requires_grad_()), atol=1e-5)


def test_sigmoid_gradient_reaches_scale_and_bias():
    image, text, person = _pairs(count=5, dim=3, persons=3)
    scale, bias = torch.tensor([1.0], dtype=torch.float64).requires_grad_(), torch.tensor([-1.0], dtype=torch.float64).requires_grad_()
    torch.autograd.gradcheck(lambda s, b: blocked_sigmoid_loss(image, text, person, log_scale=s, bias=b, tile=2), (scale, bias))


@pytest.mark.parametrize("persons", [3, 1000], ids=["shared identities", "an identity per picture"])
@pytest.mark.parametrize("name", ["sdm", "infonce"])
def test_blocked_and_dense_losses_have_the_same_gradient(name, persons):
    image, text, person = _pairs(count=37, dim=16, persons=persons)
    gradients = []
    for blocked in (False, True):
        leaves = [image.clone().requires_grad_(), text.clone().requires_grad_()]
        if blocked:
            loss = _sdm(*leaves, person, tile=10) if name == "sdm" else _infonce(*leaves, person, tile=10)
        elif name == "sdm":
            everyone = {"image_CD": leaves[0], "text_CD": leaves[1], "person_C": person}
            loss = sdm_loss(*leaves, person, temperature=TEMPERATURE, **everyone)
        else:
            loss = infonce_loss(*leaves, image_CD=leaves[0], text_CD=leaves[1], first=0, temperature=TEMPERATURE)
        (3 * loss).backward()
        gradients.append([leaf.grad for leaf in leaves])
    for dense, blocked in zip(*gradients, strict=True):
        torch.testing.assert_close(blocked, dense, rtol=1e-9, atol=1e-12)


def test_single_precision_stays_accurate_at_the_published_temperature():
    image, text, person = _pairs(count=300, dim=32, persons=60)
    exact = blocked_sdm_loss(image, text, person, temperature=0.02, tile=64)
    assert float(blocked_sdm_loss(image.float(), text.float(), person, temperature=0.02, tile=64)) == pytest.approx(float(exact), rel=1e-6)


# Each process computes its half of the batch, averages the gradient of the shared weights over processes, as DDP does, and prints it.
TWO_PROCESSES = """
import json, sys
import torch
import torch.distributed as dist
from reid_ray.train.losses.contrastive import blocked_infonce_loss, blocked_sdm_loss, blocked_sigmoid_loss

torch.set_num_threads(1)
rank, world, store = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
if world > 1:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
draw = torch.Generator().manual_seed(0)
x, y = (torch.randn(12, 5, generator=draw, dtype=torch.float64) for _ in range(2))
weight = torch.randn(5, 4, generator=draw, dtype=torch.float64).requires_grad_()
scale, bias = torch.tensor([1.5], dtype=torch.float64).requires_grad_(), torch.tensor([-1.0], dtype=torch.float64).requires_grad_()
person = torch.tensor([0, 1, 2, 3, 0, 1, 0, 4, 2, 2, 5, 6])
own = slice(rank * 12 // world, (rank + 1) * 12 // world)
image, text = (torch.nn.functional.normalize(part[own] @ weight, dim=1) for part in (x, y))
losses = [
    blocked_sdm_loss(image, text, person[own], temperature=0.1, tile=4),
    blocked_infonce_loss(image, text, temperature=0.1, tile=4),
    blocked_sigmoid_loss(image, text, person[own], log_scale=scale, bias=bias, tile=4),
]
result = []
for loss in losses:
    weight.grad = scale.grad = bias.grad = None
    loss.backward(retain_graph=True)
    gradients = [leaf.grad.clone() for leaf in (weight, scale, bias) if leaf.grad is not None]
    for gradient in gradients:
        if world > 1:
            dist.all_reduce(gradient)
    result.append([loss.item(), *(value for gradient in gradients for value in (gradient / world).flatten().tolist())])
print(json.dumps(result))
"""


@pytest.mark.slow
def test_two_processes_give_the_loss_and_gradient_of_one(tmp_path):
    printed = outputs_of(TWO_PROCESSES, [(rank, world, tmp_path / "store") for rank, world in ((0, 1), (0, 2), (1, 2))], tmp_path)
    outputs = [np.concatenate([np.array(row) for row in json.loads(out)]) for out in printed]
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=1e-10)
    np.testing.assert_allclose(outputs[2], outputs[0], rtol=1e-10)
