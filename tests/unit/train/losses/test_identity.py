"""ID cross-entropy, batch-hard triplet and the IRR loss against loops over scalars and finite differences."""

import math

import numpy as np
import pytest
import torch

from reid_ray.train.losses.identity import batch_hard_loss, id_loss, triplet_loss
from reid_ray.train.losses.irr import IGNORED, InteractionEncoder, irr_cost, irr_loss


def _pairs(count=9, dim=4, persons=3, seed=0):
    draw = np.random.default_rng(seed)
    image, text = (torch.nn.functional.normalize(torch.tensor(draw.normal(size=(count, dim))), dim=1) for _ in range(2))
    return image, text, torch.tensor(draw.integers(0, persons, count))


def _triplet(image, text, person, margin):
    return triplet_loss(image, text, person, image_CD=image, text_CD=text, person_C=person, margin=margin)


def _triplet_by_loops(image, text, person, margin):
    total, count = 0.0, len(person)
    for anchors, others in ((image, text), (text, image)):
        for i in range(count):
            distance = [math.dist(anchors[i].tolist(), others[j].tolist()) for j in range(count)]
            right = [d for d, p in zip(distance, person, strict=True) if p == person[i]]
            wrong = [d for d, p in zip(distance, person, strict=True) if p != person[i]]
            if wrong:
                gap = max(right) - min(wrong)
                total += math.log1p(math.exp(gap)) if margin is None else max(0.0, gap + margin)
    return total / count


@pytest.mark.parametrize("margin", [0.3, 0.0, None])
@pytest.mark.parametrize("persons", [1, 3, 1000])
def test_triplet_takes_the_hardest_of_each_kind(margin, persons):
    image, text, person = _pairs(persons=persons)
    assert float(_triplet(image, text, person, margin)) == pytest.approx(_triplet_by_loops(image, text, person, margin), rel=1e-6)


def test_triplet_gradient_passes_finite_differences_and_stays_finite_at_distance_zero():
    image, text, person = _pairs(count=6)
    assert torch.autograd.gradcheck(lambda i, t: _triplet(i, t, person, 0.3), (image.requires_grad_(), text.requires_grad_()))
    same = torch.ones(4, 3, dtype=torch.float64).requires_grad_()
    _triplet(same, same.detach(), torch.tensor([0, 0, 1, 1]), 0.3).backward()
    assert same.grad.isfinite().all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_id_loss_is_the_mean_cross_entropy_of_both_modalities(smoothing):
    draw = np.random.default_rng(0)
    image, text, person = draw.normal(size=(5, 7)), draw.normal(size=(5, 7)), draw.integers(0, 7, 5)
    total = 0.0
    for logits in (image, text):
        for i in range(5):
            log_p = [float(x) - math.log(sum(math.exp(float(y)) for y in logits[i])) for x in logits[i]]
            target = [(1 - smoothing) * (k == person[i]) + smoothing / 7 for k in range(7)]
            total -= sum(t * x for t, x in zip(target, log_p, strict=True)) / 10
    loss = id_loss(torch.tensor(image), torch.tensor(text), torch.tensor(person), smoothing=smoothing)
    assert float(loss) == pytest.approx(total, rel=1e-5)


@pytest.mark.slow
def test_id_and_irr_gradients_pass_finite_differences():
    draw, person, target = np.random.default_rng(1), torch.tensor([2, 0, 6]), torch.tensor([[1, IGNORED, 2], [IGNORED, 4, IGNORED]])
    logits = [torch.tensor(draw.normal(size=(3, 7))) for _ in range(2)]
    steps = {"eps": 1e-2, "atol": 1e-3}  # cross-entropy is computed in single precision
    assert torch.autograd.gradcheck(lambda i, t: id_loss(i, t, person, smoothing=0.1), [x.requires_grad_() for x in logits], **steps)
    wanted = torch.tensor(draw.normal(size=(3, 5)), requires_grad=True)
    count = (target != IGNORED).sum(dim=1)
    assert torch.autograd.gradcheck(lambda x: irr_loss(irr_cost(x, target), count), (wanted,), **steps)


def test_irr_without_a_masked_token_is_zero_and_has_a_gradient_of_zero():
    torch.manual_seed(0)
    encoder, target = InteractionEncoder(4, 6, heads=2, blocks=1), torch.full((2, 3), IGNORED)
    logits = encoder(torch.randn(2, 3, 4), torch.randn(2, 2, 4), torch.ones(2, 3, dtype=torch.bool), target != IGNORED)
    loss = irr_loss(irr_cost(logits, target), (target != IGNORED).sum(dim=1))
    loss.backward()
    assert loss.item() == 0
    assert not any(weight.grad.any() for weight in encoder.parameters())


def test_irr_over_workers_of_unequal_shares_averages_to_the_whole_batch():
    logits, target = torch.randn(4, 3, 5), torch.tensor([[1, IGNORED, 2], [3, 4, 0], [IGNORED] * 3, [IGNORED, 2, IGNORED]])
    cost, count = irr_cost(logits[target != IGNORED], target), (target != IGNORED).sum(dim=1)
    assert count.tolist() == [2, 3, 0, 1]
    torch.testing.assert_close(irr_loss(cost, count), torch.nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten()))
    halves = [irr_loss(cost[part], count[part], total=torch.tensor(6 / 2)) for part in (slice(0, 2), slice(2, 4))]
    torch.testing.assert_close(sum(halves) / 2, irr_loss(cost, count))


@pytest.mark.slow
def test_irr_gradient_passes_finite_differences_and_padding_changes_nothing():
    torch.manual_seed(0)
    encoder = InteractionEncoder(4, 6, heads=2, blocks=1).double()
    text, image = torch.randn(1, 3, 4, dtype=torch.float64), torch.randn(1, 2, 4, dtype=torch.float64)
    real = torch.ones(1, 3, dtype=torch.bool)
    assert torch.autograd.gradcheck(lambda t, i: encoder(t, i, real, real), (text.requires_grad_(), image.requires_grad_()))
    padded = torch.cat([text, torch.randn(1, 2, 4, dtype=torch.float64)], dim=1)
    wider = torch.tensor([[True, True, True, False, False]])
    torch.testing.assert_close(encoder(padded, image, wider, wider), encoder(text, image, real, real))


@pytest.mark.parametrize("margin", [0.3, None])
def test_batch_hard_loss_matches_a_loop_whether_candidates_are_split_or_not(margin):
    generator = torch.Generator().manual_seed(3)
    feature = torch.nn.functional.normalize(torch.randn(9, 5, generator=generator), dim=1)
    person = torch.tensor([0, 0, 0, 1, 1, 2, 3, 3, 3])  # 2 has no second picture
    costs = []
    for a in range(9):
        near = [float((feature[a] - feature[c]).norm()) for c in range(9) if c != a and person[c] == person[a]]
        far = [float((feature[a] - feature[c]).norm()) for c in range(9) if person[c] != person[a]]
        gap = max(near) - min(far) if near else None
        costs.append(0.0 if gap is None else max(0.0, gap + margin) if margin is not None else math.log1p(math.exp(gap)))
    parts = [
        batch_hard_loss(feature[rows], person[rows], feature_CD=feature, person_C=person, first=rows.start, margin=margin)
        for rows in (slice(0, 9), slice(0, 3), slice(3, 6), slice(6, 9))
    ]
    torch.testing.assert_close(float(parts[0]), sum(costs) / 9)
    torch.testing.assert_close(float(sum(parts[1:]) / 3), sum(costs) / 9)
