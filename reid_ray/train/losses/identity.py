"""Identity losses: ID cross-entropy, and batch-hard triplet (hard negative and hard positive mining). Pure functions of tensors.

A is the number of anchors, C of candidates, K of identities, D of dimensions. On several workers each passes its own pairs as anchors and
the pairs of all as candidates, as in reid_ray.train.losses.image_text: the mean over workers is the loss of the whole batch.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch.nn import functional


def id_loss(image_logits_AK: torch.Tensor, text_logits_AK: torch.Tensor, person_A: torch.Tensor, *, smoothing: float = 0.0) -> torch.Tensor:
    """Cross-entropy of the identity from both global features, the mean of the two (IRRA's ID loss).

    Args:
        image_logits_AK: one classifier's answer to the picture's global feature (not normalised in IRRA).
        text_logits_AK: the same classifier's answer to the text's.
        person_A: identity of each pair, 0 to K - 1.
        smoothing: label smoothing: share of the target that is spread evenly over all K (Szegedy et al. 2016), in [0, 1); 0 in IRRA.

    Returns:
        A scalar.
    """
    image, text = (
        functional.cross_entropy(logits.float(), person_A, label_smoothing=smoothing) for logits in (image_logits_AK, text_logits_AK)
    )
    return (image + text) / 2


def triplet_loss(
    image_AD: torch.Tensor,
    text_AD: torch.Tensor,
    person_A: torch.Tensor,
    *,
    image_CD: torch.Tensor,
    text_CD: torch.Tensor,
    person_C: torch.Tensor,
    margin: float | None,
) -> torch.Tensor:
    """Batch-hard triplet loss across the modalities (Hermans et al. 2017, equation 5), the sum of both directions.

    For each picture the farthest text of its identity (hard positive) and the nearest text of another (hard negative); the same for each
    text. Distances are
    Euclidean, in [0, 2] for unit vectors. An anchor without a candidate of another identity adds zero to the mean.

    Args:
        image_AD: features of the anchors' pictures.
        text_AD: features of the anchors' texts, row by row of the same pair.
        person_A: identity of each anchor; each has a candidate of its own identity, its own pair.
        image_CD: features of the candidates' pictures.
        text_CD: features of the candidates' texts.
        person_C: identity of each candidate.
        margin: >= 0, hinge at positive - negative + margin; None is the paper's soft margin, log(1 + exp(positive - negative)).

    Returns:
        A scalar.
    """
    same_AC = person_A[:, None] == person_C[None, :]
    hard = partial(_hardest, near_AC=same_AC, far_AC=~same_AC, margin=margin)
    return hard(image_AD, text_CD) + hard(text_AD, image_CD)


def batch_hard_loss(
    feature_AD: torch.Tensor,
    person_A: torch.Tensor,
    *,
    feature_CD: torch.Tensor,
    person_C: torch.Tensor,
    first: int,
    margin: float | None,
) -> torch.Tensor:
    """Batch-hard triplet loss within one modality (Hermans et al. 2017, equation 5).

    For each row the farthest other row of its identity and the nearest of another. An anchor without either adds zero to the mean.

    Args:
        feature_AD: features of the anchors.
        person_A: identity of each anchor.
        feature_CD: features of the candidates; the anchors are rows first .. first + A - 1 of them.
        person_C: identity of each candidate.
        first: row of the first anchor among the candidates.
        margin: as in triplet_loss.

    Returns:
        A scalar.
    """
    same_AC = person_A[:, None] == person_C[None, :]
    own_AC = torch.arange(len(person_C), device=person_C.device) == first + torch.arange(len(person_A), device=person_A.device)[:, None]
    return _hardest(feature_AD, feature_CD, near_AC=same_AC & ~own_AC, far_AC=~same_AC, margin=margin)


def _hardest(
    anchor_AD: torch.Tensor, candidate_CD: torch.Tensor, *, near_AC: torch.Tensor, far_AC: torch.Tensor, margin: float | None
) -> torch.Tensor:
    """Mean over anchors of the hinge on the farthest candidate that should be near and the nearest that should be far."""
    valid_A = near_AC.any(dim=1) & far_AC.any(dim=1)
    square_AC = anchor_AD.pow(2).sum(1)[:, None] + candidate_CD.pow(2).sum(1)[None, :] - 2 * anchor_AD @ candidate_CD.T
    farthest_A = square_AC.masked_fill(~near_AC, -math.inf).amax(dim=1).masked_fill(~valid_A, 0)
    nearest_A = square_AC.masked_fill(~far_AC, math.inf).amin(dim=1).masked_fill(~valid_A, 0)
    # The root comes after the choice, away from zero: its slope there is infinite.
    gap_A = farthest_A.clamp_min(1e-12).sqrt() - nearest_A.clamp_min(1e-12).sqrt()
    cost_A = functional.softplus(gap_A) if margin is None else (gap_A + margin).clamp_min(0)
    return (cost_A * valid_A).mean()
