"""ReID heads of a multimodal LLM: pooling of hidden states, and a batch-norm neck (BNNeck) with an identity classifier per feature.

Knows tensors; how a batch is gathered from all workers is handed in. Losses are elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from reid_ray.model.mllm.forward import pool

Gather = Callable[[torch.Tensor], tuple[torch.Tensor, int]]  # own rows [A, D] -> rows of all workers [C, D], and where the own ones start


class Neck(nn.Module):
    """BNNeck (Luo et al. 2019): batch normalisation without a shift between the feature that distances use and the classifier.

    The statistics are those of all workers' rows, computed by each worker alike, so any number of workers equals one.
    """

    momentum, eps = 0.1, 1e-5

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("var", torch.ones(dim))

    def forward(self, feature_AD: torch.Tensor, gather: Gather | None = None) -> torch.Tensor:
        """float32 [A, D] -> the same normalised; in training mode by the batch, for which `gather` is needed."""
        if not self.training:
            scale_D = self.weight.float() * torch.rsqrt(self.var.float() + self.eps)
            return (feature_AD - self.mean.float()) * scale_D
        assert gather is not None
        everyone_CD, first = gather(feature_AD)
        mean_D, var_D = everyone_CD.mean(dim=0), everyone_CD.var(dim=0, unbiased=False)
        with torch.no_grad():
            unbiased_D = var_D * len(everyone_CD) / max(1, len(everyone_CD) - 1)
            self.mean += self.momentum * (mean_D - self.mean).to(self.mean.dtype)
            self.var += self.momentum * (unbiased_D - self.var).to(self.var.dtype)
        own_AD = everyone_CD[first : first + len(feature_AD)]
        return (own_AD - mean_D) * torch.rsqrt(var_D + self.eps) * self.weight.float()


class IdentityHead(nn.Module):
    """Identity classifier: BNNeck and a linear layer to K identities, without bias (Luo et al. 2019)."""

    def __init__(self, dim: int, persons: int) -> None:
        super().__init__()
        self.neck, self.classify = Neck(dim), nn.Linear(dim, persons, bias=False)
        nn.init.normal_(self.classify.weight, std=0.001)

    def forward(self, feature_AD: torch.Tensor, gather: Gather) -> torch.Tensor:
        """float32 [A, D] -> logits [A, K]."""
        necked_AD = self.neck(feature_AD, gather)
        return self.classify(necked_AD.to(self.classify.weight.dtype)).float()


class Pool(nn.Module):
    """Pooling layer: hidden states -> one float32 vector per row: mean, last, or attention with a learnt query (starts at zero: mean)."""

    def __init__(self, how: str, dim: int) -> None:
        super().__init__()
        self.how = how
        self.query = nn.Parameter(torch.zeros(dim)) if how == "attention" else None

    def forward(self, hidden_ATD: torch.Tensor, mask_AT: torch.Tensor) -> torch.Tensor:
        """[A, T, D] where `mask_AT` holds -> [A, D]."""
        return pool(hidden_ATD, mask_AT, how=self.how, query_D=self.query)


class ReidHeads(nn.Module):
    """All trainable heads beside the model: pooling, and an identity classifier per feature.

    Args:
        pooling: mean, last or attention.
        hidden_dim: D of the language model.
        identity_dims: {"latent": D, "visual": V}, those that are to be classified.
        persons: identities of the classifiers.
    """

    def __init__(self, pooling: str, *, hidden_dim: int, identity_dims: Mapping[str, int], persons: int) -> None:
        super().__init__()
        self.pool = Pool(pooling, hidden_dim)
        self.identity = nn.ModuleDict({name: IdentityHead(dim, persons) for name, dim in identity_dims.items()})
