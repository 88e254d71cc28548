"""Configuration of a dual encoder's objective: the weight and the parameters of each loss term."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from reid_ray.config.base import Section


class SdmConfig(Section):
    """Similarity distribution matching (IRRA)."""

    weight: float = Field(1.0, ge=0, description="weight in the total loss; 0 leaves the term out")
    temperature: float = Field(0.02, gt=0, description="softmax temperature (0.02 as in IRRA)")


class InfoNceConfig(Section):
    """CLIP's contrastive loss, as LLM-DA uses it."""

    weight: float = Field(0.0, ge=0, description="weight in the total loss; 0 leaves the term out")
    temperature: float = Field(0.07, gt=0, description="softmax temperature (0.07, where CLIP's own starts)")


class SigmoidConfig(Section):
    """SigLIP's loss: a yes-or-no question per picture and text; its scale and bias are learnt from log 10 and -10 on."""

    weight: float = Field(0.0, ge=0, description="weight in the total loss; 0 leaves the term out")


class TripletConfig(Section):
    """Batch-hard triplet across the modalities; asks for batches that hold identities more than once."""

    weight: float = Field(0.0, ge=0, description="weight in the total loss; 0 leaves the term out")
    margin: float | None = Field(0.3, ge=0, description="Euclidean distance of unit vectors, 0 to 2; null is the soft margin")


class IdConfig(Section):
    """Cross-entropy over the training identities on both global features (IRRA)."""

    weight: float = Field(0.0, ge=0, description="weight in the total loss; 0 leaves the term out")
    smoothing: float = Field(0.0, ge=0, lt=1, description="label smoothing (0 in IRRA)")


class IrrConfig(Section):
    """Masked words predicted from the picture (IRRA's implicit relation reasoning); needs masking."""

    weight: float = Field(0.0, ge=0, description="weight in the total loss; 0 leaves the term out")
    blocks: int = Field(4, ge=1, description="transformer blocks after the cross-attention (4 in IRRA)")
    heads: int = Field(8, ge=1, description="attention heads; must divide the joint space's dimensions (8 of 512 in IRRA)")


class ObjectiveConfig(Section):
    """The loss: a weighted sum of named terms."""

    sdm: SdmConfig = SdmConfig()
    infonce: InfoNceConfig = InfoNceConfig()
    sigmoid: SigmoidConfig = SigmoidConfig()
    triplet: TripletConfig = TripletConfig()
    id: IdConfig = IdConfig()
    irr: IrrConfig = IrrConfig()
    tile: int | None = Field(
        None,
        ge=16,
        description="sdm, infonce and sigmoid in tiles of this side, so that no worker holds the matrix of the whole batch (1024 from a "
        "batch of about 4,096 on); null computes a worker's rows at once",
    )

    @model_validator(mode="after")
    def _something_to_learn(self) -> Self:
        terms = (self.sdm, self.infonce, self.sigmoid, self.triplet, self.id, self.irr)
        if not any(term.weight for term in terms):
            raise ValueError("the weights of all terms are 0, so there is nothing to learn; set sdm.weight to 1")
        return self
