"""Image-text losses: SDM and InfoNCE over the full similarity matrix. Pure functions of tensors; no model, no workers, no configuration.

A is the number of anchors, C of candidates. On one process the anchors are the candidates. On several, each process passes its own
pairs as anchors and the pairs of all as candidates: the mean over processes is then the loss of the whole batch.
"""

from __future__ import annotations

import torch
from torch.nn import functional


def sdm_loss(
    image_AD: torch.Tensor,
    text_AD: torch.Tensor,
    person_A: torch.Tensor,
    *,
    image_CD: torch.Tensor,
    text_CD: torch.Tensor,
    person_C: torch.Tensor,
    temperature: float,
    eps: float = 1e-8,
) -> torch.Tensor:
    """Similarity distribution matching (Jiang and Ye, CVPR 2023, equations 5 to 7).

    KL(p || q) of p, the softmax over candidates of cosine / temperature, from q, which spreads evenly over the candidates of the
    anchor's own identity; picture to text plus text to picture, each the mean over anchors. An anchor without any candidate of its
    identity has no q and adds zero to the mean.

    Args:
        image_AD: unit vectors of the anchors' pictures.
        text_AD: unit vectors of the anchors' texts, row by row of the same pair.
        person_A: identity of each anchor, integers.
        image_CD: unit vectors of the candidates' pictures.
        text_CD: unit vectors of the candidates' texts.
        person_C: identity of each candidate.
        temperature: > 0; 0.02 in the paper.
        eps: keeps log(q) finite where q is zero; 1e-8 in the authors' release.

    Returns:
        A scalar.
    """
    same_AC = (person_A[:, None] == person_C[None, :]).to(image_AD.dtype)
    target_AC = same_AC / same_AC.sum(dim=1, keepdim=True).clamp_min(1)
    matched_A = same_AC.any(dim=1)
    log_target_AC = torch.log(target_AC + eps)

    def divergence(anchor_AD: torch.Tensor, candidate_CD: torch.Tensor) -> torch.Tensor:
        log_p_AC = functional.log_softmax(anchor_AD @ candidate_CD.T / temperature, dim=1)
        return ((log_p_AC.exp() * (log_p_AC - log_target_AC)).sum(dim=1) * matched_A).mean()

    return divergence(image_AD, text_CD) + divergence(text_AD, image_CD)


def infonce_loss(
    image_AD: torch.Tensor,
    text_AD: torch.Tensor,
    *,
    image_CD: torch.Tensor,
    text_CD: torch.Tensor,
    first: int,
    temperature: float | torch.Tensor,
) -> torch.Tensor:
    """CLIP's contrastive loss (Radford et al. 2021): cross-entropy of finding one's own pair, the mean of both directions.

    Only the own pair is right; other pairs of the same identity count as wrong, as in the original.

    Args:
        image_AD: unit vectors of the anchors' pictures.
        text_AD: unit vectors of the anchors' texts, row by row of the same pair.
        image_CD: unit vectors of the candidates' pictures; the anchors are rows first .. first + A - 1 of them.
        text_CD: unit vectors of the candidates' texts, in the same order.
        first: row of the first anchor among the candidates.
        temperature: > 0; CLIP learns it from 0.07 on, so it may be a tensor of one element, with gradient.

    Returns:
        A scalar.
    """
    own_A = torch.arange(first, first + len(image_AD), device=image_AD.device)
    image_to_text = functional.cross_entropy(image_AD @ text_CD.T / temperature, own_A)
    text_to_image = functional.cross_entropy(text_AD @ image_CD.T / temperature, own_A)
    return (image_to_text + text_to_image) / 2
