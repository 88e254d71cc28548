"""SigLIP as a dual encoder: transformers' SiglipModel, for pictures of any size, and where its pooling and projections are.

SigLIP has no class token: a learnt probe attends to all patches, a small MLP follows (MAP head), and that is the image's feature. Its
text tower sees the whole text, padded to the full context without a mask as it was trained, and pools the last position. The
checkpoints of SigLIP 2 with a fixed resolution are of these classes too; NaFlex's are not. Knows transformers' SigLIP classes;
not training, tokens or files.
"""

from __future__ import annotations

import math

import torch
from transformers import SiglipConfig, SiglipModel
from transformers.models.siglip.modeling_siglip import SiglipVisionEmbeddings

from reid_ray.model.dual.grid import AnyGrid, AnyGridModel, needs_any_grid


class AnyGridSiglipEmbeddings(AnyGrid, SiglipVisionEmbeddings):
    """SigLIP's patches and positions, for any grid."""


class AnyGridSiglipModel(AnyGridModel, SiglipModel):
    """SiglipModel whose vision_config may carry image_height, image_width and patch_stride beside image_size."""

    embeddings_class = AnyGridSiglipEmbeddings


class SiglipFamily:
    """reid_ray.model.dual.architectures.Architecture of SigLIP.

    Its towers have no projection matrix for single positions. A patch's place in the joint space is defined as what the MAP head gives
    for a picture of that patch alone: attention over one key is that key's value, so the head is one function of one patch. A token's is
    the text head, a linear layer, applied to it.
    """

    model_type = "siglip"
    config_class = SiglipConfig
    class_tokens = 0
    pads_to_context = True
    pooling = ("attention (MAP head)", "last position of the full context")

    def model_class(self, config: SiglipConfig) -> type[SiglipModel]:
        """AnyGridSiglipModel where the configuration asks for it, else plain SiglipModel."""
        return AnyGridSiglipModel if needs_any_grid(config.vision_config) else SiglipModel

    def dim(self, config: SiglipConfig) -> int:
        """Dimensions of the joint space, which is the vision tower's width."""
        return int(config.vision_config.hidden_size)

    def project_patches(self, model: SiglipModel, hidden_NPW: torch.Tensor) -> torch.Tensor:
        """A vision layer's output -> the joint space [N, P, D]: final norm, then the MAP head on each patch alone."""
        return self.project_image_output(model, model.vision_model.post_layernorm(hidden_NPW))

    def project_image_output(self, model: SiglipModel, last_NPW: torch.Tensor) -> torch.Tensor:
        """The vision tower's last_hidden_state, normed already, -> [N, P, D]."""
        return model.vision_model.head(last_NPW.reshape(-1, 1, last_NPW.shape[-1])).reshape(last_NPW.shape)

    def project_tokens(self, model: SiglipModel, last_NTW: torch.Tensor) -> torch.Tensor:
        """The text tower's last_hidden_state, normed already, -> [N, T, D]."""
        return model.text_model.head(last_NTW)

    def scale_and_bias(self, model: SiglipModel) -> tuple[float, float] | None:
        """What the sigmoid loss goes on from: (log scale, bias) as published."""
        return model.logit_scale.item(), model.logit_bias.item()

    def logits(self, *, temperature: float, learnt: tuple[float, float] | None) -> dict[str, torch.Tensor]:
        """The parameters that turn cosines into logits, for a saved model: what the sigmoid loss has learnt, else 1 / temperature and 0."""
        log_scale, bias = learnt or (math.log(1 / temperature), 0.0)
        return {"logit_scale": torch.tensor([log_scale]), "logit_bias": torch.tensor([bias])}


SIGLIP = SiglipFamily()
