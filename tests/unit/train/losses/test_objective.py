"""Losses against naive loops, finite differences and the split over workers."""

from __future__ import annotations

import math

import pytest
import torch

from reid_ray.config.base import load_config
from reid_ray.errors import ConfigError
from reid_ray.train.losses.config import ObjectiveConfig
from reid_ray.train.losses.image_text import infonce_loss, sdm_loss
from reid_ray.train.losses.objective import build_objective


def unit(rows: int, seed: int) -> torch.Tensor:
    values = torch.randn(rows, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(values, dim=1)


def naive_sdm(image, text, person, image_all, text_all, person_all, temperature, eps=1e-8) -> float:
    """The formula word by word: for each anchor, sum over candidates of p log(p / (q + eps))."""
    total = 0.0
    for anchors, candidates in ((image, text_all), (text, image_all)):
        for anchor, who in zip(anchors.tolist(), person.tolist(), strict=True):
            cosines = [sum(a * b for a, b in zip(anchor, other, strict=True)) for other in candidates.tolist()]
            top = max(cosines)
            scores = [math.exp((cosine - top) / temperature) for cosine in cosines]
            same = [float(who == other) for other in person_all.tolist()]
            if not any(same):
                continue
            for score, match in zip(scores, same, strict=True):
                p, q = score / sum(scores), match / sum(same)
                total += p * math.log(p / (q + eps)) / len(person) if p else 0.0
    return total


@pytest.mark.parametrize("temperature", [0.02, 0.5])
def test_sdm_equals_the_naive_double_loop(temperature):
    image, text, person = unit(6, 0), unit(6, 1), torch.tensor([1, 2, 1, 3, 3, 3])
    value = sdm_loss(image, text, person, image_CD=image, text_CD=text, person_C=person, temperature=temperature)
    assert value.item() == pytest.approx(naive_sdm(image, text, person, image, text, person, temperature), rel=1e-9)


def test_sdm_of_an_anchor_without_candidates_of_its_identity_adds_zero():
    image, text, person = unit(3, 0), unit(3, 1), torch.tensor([1, 9, 2])
    others = {"image_CD": unit(4, 2), "text_CD": unit(4, 3), "person_C": torch.tensor([2, 1, 1, 5])}
    value = sdm_loss(image, text, person, **others, temperature=0.1)
    known = torch.tensor([0, 2])
    alone = sdm_loss(image[known], text[known], person[known], **others, temperature=0.1)
    assert value.item() == pytest.approx(alone.item() * 2 / 3, rel=1e-12)
    strangers = {**others, "person_C": torch.tensor([7, 7, 7, 7])}
    assert sdm_loss(image, text, person, **strangers, temperature=0.1).item() == 0.0


def test_sdm_is_zero_when_the_similarities_are_the_labels():
    vectors, person = torch.eye(4, dtype=torch.float64), torch.arange(4)
    value = sdm_loss(vectors, vectors, person, image_CD=vectors, text_CD=vectors, person_C=person, temperature=0.02)
    assert abs(value.item()) < 1e-6


def test_sdm_gradient_agrees_with_finite_differences():
    person = torch.tensor([1, 2, 1])
    image, text = unit(3, 0).requires_grad_(), unit(3, 1).requires_grad_()
    torch.autograd.gradcheck(
        lambda i, t: sdm_loss(i, t, person, image_CD=i, text_CD=t, person_C=person, temperature=0.3), (image, text), atol=1e-6
    )


def test_infonce_equals_the_naive_loop_and_finite_differences():
    image, text = unit(4, 0).requires_grad_(), unit(4, 1).requires_grad_()

    def loss(i, t):
        return infonce_loss(i, t, image_CD=i, text_CD=t, first=0, temperature=0.2)

    naive = 0.0
    for anchors, candidates in ((image, text), (text, image)):
        for row in range(4):
            scores = (anchors[row] @ candidates.T / 0.2).detach().exp().tolist()
            naive -= math.log(scores[row] / sum(scores)) / 8
    assert loss(image, text).item() == pytest.approx(naive, rel=1e-9)
    torch.autograd.gradcheck(loss, (image, text), atol=1e-6)


@pytest.mark.parametrize("workers", [2, 4])
def test_mean_over_workers_is_the_loss_of_the_whole_batch(workers):
    image, text, person = unit(8, 0), unit(8, 1), torch.tensor([1, 2, 1, 3, 4, 4, 2, 5])
    everything = {"image_CD": image, "text_CD": text}
    whole_sdm = sdm_loss(image, text, person, **everything, person_C=person, temperature=0.1)
    whole_nce = infonce_loss(image, text, **everything, first=0, temperature=0.1)
    parts = list(torch.arange(8).chunk(workers))
    sdm = sum(sdm_loss(image[p], text[p], person[p], **everything, person_C=person, temperature=0.1) for p in parts) / workers
    nce = sum(infonce_loss(image[p], text[p], **everything, first=int(p[0]), temperature=0.1) for p in parts) / workers
    torch.testing.assert_close(sdm, whole_sdm)
    torch.testing.assert_close(nce, whole_nce)


def test_objective_names_each_term_before_and_after_its_weight():
    config = ObjectiveConfig(sdm={"weight": 0.5}, infonce={"weight": 2.0})
    loss = build_objective(config)({"image": unit(4, 0), "text": unit(4, 1)}, torch.tensor([1, 2, 2, 3]))
    assert set(loss.raw) == {"sdm", "infonce"}
    assert loss.weighted["sdm"].item() == pytest.approx(0.5 * loss.raw["sdm"].item())
    assert loss.total.item() == pytest.approx(0.5 * loss.raw["sdm"].item() + 2 * loss.raw["infonce"].item())
    only = build_objective(ObjectiveConfig())({"image": unit(4, 0), "text": unit(4, 1)}, torch.tensor([1, 2, 2, 3]))
    assert set(only.raw) == {"sdm"}


def test_an_objective_without_terms_is_refused():
    with pytest.raises(ConfigError, match="nothing to learn"):
        load_config(ObjectiveConfig, None, ["sdm.weight=0"])
    with pytest.raises(ConfigError, match=r"sdm\.temperature"):
        load_config(ObjectiveConfig, None, ["sdm.temperature=0"])
