"""The objective of tuning: language-model loss of answers; ID and triplet loss on the latent and on the visual feature (SyncReID).

Knows features by name and weights; not models or data. SDM is the dual encoder's own term, on the latents.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from reid_ray.train.losses.across_workers import Pairs, share_of_total
from reid_ray.train.losses.config import SdmTerm
from reid_ray.train.losses.identity import batch_hard_loss
from reid_ray.train.losses.irr import irr_loss
from reid_ray.train.losses.objective import Objective
from reid_ray.train.mllm.config import TuneIdConfig, TuneObjective, TuneTripletConfig
from reid_ray.train.mllm.module import CAPTION, IMAGE


class AnswerTerm:
    """Language-model loss: -log p of the answers to one side (image or caption), the mean over the tokens of all workers."""

    def __init__(self, side: str, weight: float) -> None:
        self.weight, self._side = weight, side

    def value(self, pairs: Pairs) -> torch.Tensor:
        """The unweighted value, a scalar."""
        count_A = pairs.features[f"{self._side}_count"]
        return irr_loss(pairs.features[f"{self._side}_cost"], count_A, total=share_of_total(count_A))


class IdentityTerm:
    """ID loss: cross-entropy over identities of one feature."""

    def __init__(self, feature: str, config: TuneIdConfig) -> None:
        self.weight, self._feature, self._smoothing = config.weight, feature, config.smoothing

    def value(self, pairs: Pairs) -> torch.Tensor:
        """The unweighted value, a scalar."""
        logits_AK = pairs.features[f"{self._feature}_identity"]
        return functional.cross_entropy(logits_AK, pairs.person_A, label_smoothing=self._smoothing)


class BatchHardTerm:
    """Batch-hard triplet of one feature over the images of all workers.

    Args:
        key: of the unit vectors among the module's features.
        config: weight and margin.
    """

    def __init__(self, key: str, config: TuneTripletConfig) -> None:
        self.weight, self._key, self._margin = config.weight, key, config.margin

    def value(self, pairs: Pairs) -> torch.Tensor:
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
    """The objective of a multimodal LLM."""
    return Objective(
        {
            "lm_image": AnswerTerm(IMAGE, config.lm_image.weight),
            "lm_caption": AnswerTerm(CAPTION, config.lm_caption.weight),
            "latent_id": IdentityTerm("latent", config.latent_id),
            "latent_triplet": BatchHardTerm("image", config.latent_triplet),
            "visual_id": IdentityTerm("visual", config.visual_id),
            "visual_triplet": BatchHardTerm("visual", config.visual_triplet),
            "sdm": SdmTerm(weight=config.sdm.weight, temperature=config.sdm.temperature),
        }
    )
