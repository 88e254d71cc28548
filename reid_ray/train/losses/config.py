"""Configuration of a dual encoder's objective: the weight, the parameters and the formula of each loss term.

A new term is one file beside this one, which holds its class, and one line in ObjectiveConfig (docs/extending.md). Its configuration, its
weight, its lines in the log and its share of the memory estimate follow. The formulas are pure functions of the modules that `value` names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from reid_ray.config.base import Section
from reid_ray.train.losses.term import LossTerm

if TYPE_CHECKING:
    import torch

    from reid_ray.train.losses.across_workers import Pairs


class SdmTerm(LossTerm):
    """Similarity distribution matching, SDM (IRRA; Jiang and Ye, CVPR 2023)."""

    weight: float = Field(1.0, ge=0, description="weight in the total loss; 0 leaves the term out")
    temperature: float = Field(0.02, gt=0, description="softmax temperature (0.02 as in IRRA)")

    def value(self, pairs: Pairs) -> torch.Tensor:
        """In tiles if pairs.tile is given."""
        from reid_ray.train.losses.contrastive import blocked_sdm_loss
        from reid_ray.train.losses.image_text import sdm_loss

        own = (pairs.image_AD, pairs.text_AD, pairs.person_A)
        if pairs.tile is not None:
            return blocked_sdm_loss(*own, temperature=self.temperature, tile=pairs.tile)
        return sdm_loss(*own, **pairs.candidates, temperature=self.temperature)


class InfoNceTerm(LossTerm):
    """InfoNCE, CLIP's contrastive loss (Radford et al. 2021), as LLM-DA uses it."""

    temperature: float | Literal["learned"] = Field(
        0.07,
        description="softmax temperature, above 0 (0.07, where CLIP's own started), or learned: the model's own logit scale goes on "
        "learning from where it is, never above 100 as in CLIP, and is saved with the weights",
    )

    @model_validator(mode="after")
    def _above_zero(self) -> Self:
        if self.temperature != "learned" and self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature}; give a number above 0, or learned")
        return self

    @property
    def learns_scale(self) -> bool:
        """Whether the model's logit scale trains."""
        return self.weight > 0 and self.temperature == "learned"

    def value(self, pairs: Pairs) -> torch.Tensor:
        """In tiles if pairs.tile is given."""
        from reid_ray.train.losses.contrastive import blocked_infonce_loss
        from reid_ray.train.losses.image_text import infonce_loss

        own = (pairs.image_AD, pairs.text_AD)
        temperature = (-pairs.features["log_scale"]).exp() if self.temperature == "learned" else self.temperature
        if pairs.tile is not None:
            return blocked_infonce_loss(*own, temperature=temperature, tile=pairs.tile)
        image_CD, text_CD = pairs.candidates["image_CD"], pairs.candidates["text_CD"]
        return infonce_loss(*own, image_CD=image_CD, text_CD=text_CD, first=pairs.first, temperature=temperature)


class SigmoidTerm(LossTerm):
    """SigLIP's sigmoid loss (Zhai et al., ICCV 2023): binary classification of each picture and text; learnt scale and bias."""

    def value(self, pairs: Pairs) -> torch.Tensor:
        """Always in tiles: its cells share nothing."""
        from reid_ray.train.losses.contrastive import TILE, blocked_sigmoid_loss

        log_scale, bias = pairs.features["sigmoid"]
        tile = TILE if pairs.tile is None else pairs.tile
        return blocked_sigmoid_loss(pairs.image_AD, pairs.text_AD, pairs.person_A, log_scale=log_scale, bias=bias, tile=tile)


class TripletTerm(LossTerm):
    """Batch-hard triplet across the modalities (Hermans et al. 2017); asks for batches that hold identities more than once."""

    margin: float | None = Field(0.3, ge=0, description="Euclidean distance of unit vectors, 0 to 2; null is the soft margin")

    def value(self, pairs: Pairs) -> torch.Tensor:
        """Mean over the anchors of both modalities."""
        from reid_ray.train.losses.identity import triplet_loss

        return triplet_loss(pairs.image_AD, pairs.text_AD, pairs.person_A, **pairs.candidates, margin=self.margin)


class IdTerm(LossTerm):
    """ID loss: cross-entropy over the training identities on both global features (IRRA)."""

    smoothing: float = Field(0.0, ge=0, lt=1, description="label smoothing (0 in IRRA)")

    def value(self, pairs: Pairs) -> torch.Tensor:
        """Of the classifier's logits, which the module gives."""
        from reid_ray.train.losses.identity import id_loss

        image_AK, text_AK = pairs.features["image_identity"], pairs.features["text_identity"]
        return id_loss(image_AK, text_AK, pairs.person_A, smoothing=self.smoothing)


class IrrTerm(LossTerm):
    """Implicit relation reasoning, IRR (IRRA): masked words predicted from the picture; needs masking."""

    blocks: int = Field(4, ge=1, description="transformer blocks after the cross-attention (4 in IRRA)")
    heads: int = Field(8, ge=1, description="attention heads; must divide the joint space's dimensions (8 of 512 in IRRA)")

    def value(self, pairs: Pairs) -> torch.Tensor:
        """The mean over the masked words of all workers."""
        from reid_ray.train.losses.across_workers import share_of_total
        from reid_ray.train.losses.irr import irr_loss

        count_A = pairs.features["irr_count"]
        return irr_loss(pairs.features["irr_cost"], count_A, total=share_of_total(count_A))


class ObjectiveConfig(Section):
    """The loss: a weighted sum of named terms."""

    sdm: SdmTerm = SdmTerm()
    infonce: InfoNceTerm = InfoNceTerm()
    sigmoid: SigmoidTerm = SigmoidTerm()
    triplet: TripletTerm = TripletTerm()
    id: IdTerm = IdTerm()
    irr: IrrTerm = IrrTerm()
    tile: int | None = Field(
        None,
        ge=16,
        description="sdm, infonce and sigmoid in tiles of this side, so that no worker holds the matrix of the whole batch (1024 from a "
        "batch of about 4,096 on); null computes a worker's rows at once",
    )

    @property
    def terms(self) -> dict[str, LossTerm]:
        """The terms by name."""
        return {name: term for name in type(self).model_fields if isinstance(term := getattr(self, name), LossTerm)}

    @property
    def saved_temperature(self) -> float:
        """The temperature of a saved model's logit scale where none was learnt: that of the softmax that trained it."""
        nce = self.infonce
        return nce.temperature if nce.weight and not self.sdm.weight and nce.temperature != "learned" else self.sdm.temperature

    @model_validator(mode="after")
    def _one_scale(self) -> Self:
        if self.infonce.learns_scale and self.sigmoid.weight:
            raise ValueError(
                "infonce.temperature is learned and sigmoid learns a scale, too, but a model holds one; give the former a number"
            )
        return self

    @model_validator(mode="after")
    def _something_to_learn(self) -> Self:
        if not any(term.weight for term in self.terms.values()):
            raise ValueError("the weights of all terms are 0, so there is nothing to learn; set sdm.weight to 1")
        return self
