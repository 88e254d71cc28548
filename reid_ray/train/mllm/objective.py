"""The objective of tuning: language-model loss of answers; ID and triplet loss on the latent and on the visual feature (SyncReID).

Knows features by name and weights; not models or data. SDM is the dual encoder's own term, on the latents.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from reid_ray.train.losses.config import SdmConfig
from reid_ray.train.losses.identity import batch_hard_loss
from reid_ray.train.losses.irr import irr_loss
from reid_ray.train.losses.objective import Objective, Pairs, SdmTerm, Term, share_of_total
from reid_ray.train.mllm.config import TuneIdConfig, TuneObjective, TuneTripletConfig
from reid_ray.train.mllm.module import CAPTION, IMAGE


class AnswerTerm:
    """Language-model loss: -log p of the answers to one side (image or caption), the mean over the tokens of all workers."""

    def __init__(self, side: str, weight: float) -> None:
        self.name, self.weight, self._side = f"lm_{side}", weight, side

    def __call__(self, pairs: Pairs) -> torch.Tensor:
        """The unweighted value, a scalar."""
        count_A = pairs.features[f"{self._side}_count"]
        return irr_loss(pairs.features[f"{self._side}_cost"], count_A, total=share_of_total(count_A))


class ClassTerm:
    """ID loss: cross-entropy over identities of one feature."""

    def __init__(self, feature: str, config: TuneIdConfig) -> None:
        self.name, self.weight, self._feature, self._smoothing = f"{feature}_id", config.weight, feature, config.smoothing

    def __call__(self, pairs: Pairs) -> torch.Tensor:
        """The unweighted value, a scalar."""
        logits_AK = pairs.features[f"{self._feature}_identity"]
        return functional.cross_entropy(logits_AK, pairs.person_A, label_smoothing=self._smoothing)


class BatchHardTerm:
    """Batch-hard triplet of one feature over the images of all workers.

    Args:
        feature: for the term's name.
        key: of the unit vectors among the module's features.
        config: weight and margin.
    """

    def __init__(self, feature: str, key: str, config: TuneTripletConfig) -> None:
        self.name, self.weight, self._key, self._margin = f"{feature}_triplet", config.weight, key, config.margin

    def __call__(self, pairs: Pairs) -> torch.Tensor:
        """The unweighted value, a scalar."""
        return batch_hard_loss(
            pairs.features[self._key],
            pairs.person_A,
            feature_CD=pairs.all_of(self._key),
            person_C=pairs.persons,
            first=pairs.first,
            margin=self._margin,
        )


def build_tune_objective(config: TuneObjective) -> Objective:
    """The terms of `config` whose weight is not zero."""
    terms: list[Term] = [
        AnswerTerm(IMAGE, config.lm_image.weight),
        AnswerTerm(CAPTION, config.lm_caption.weight),
        ClassTerm("latent", config.latent_id),
        BatchHardTerm("latent", "image", config.latent_triplet),
        ClassTerm("visual", config.visual_id),
        BatchHardTerm("visual", "visual", config.visual_triplet),
        SdmTerm(SdmConfig(weight=config.sdm.weight, temperature=config.sdm.temperature), None),
    ]
    return Objective([term for term in terms if term.weight])
