"""Token masking inside the training loop: texts are corrupted before a step, their noise levels are stored after it.

With kind nam a text's probabilities come from the levels of its last visit, which is the epoch before; a text never seen is masked
equally. Each worker owns a shard of the store; the levels of a step's texts are exchanged by collectives, a few bytes a token. Knows
batches, the store and how workers talk; not models or losses.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from reid_ray.train.losses.across_workers import gather_constant
from reid_ray.train.losses.irr import irr_targets
from reid_ray.train.masking.config import MaskingConfig
from reid_ray.train.masking.noise_aware import Vocabulary, corrupt, masking_draws, masking_probability, real_tokens
from reid_ray.train.masking.noise_store import NoiseStore, decode, encode


class StepMasks:
    """Masks the texts of each step, the same whatever the number of workers, and on a resumed run.

    Args:
        config: which masking, and its mean probability.
        vocabulary: of the tokenizer.
        store: this worker's part of the noise levels, a row per text; used with kind nam.
        seed: of the draws.
        steps_per_epoch: to know a step's epoch.
        device: where workers exchange levels.
        targets: whether a loss predicts the masked tokens.
    """

    def __init__(
        self,
        config: MaskingConfig,
        vocabulary: Vocabulary,
        store: NoiseStore,
        *,
        seed: int,
        steps_per_epoch: int,
        device: torch.device,
        targets: bool,
    ) -> None:
        self._config, self._vocabulary, self.store = config, vocabulary, store
        self._seed, self._steps_per_epoch, self._device, self._targets = seed, steps_per_epoch, device, targets

    def before(self, inputs: dict[str, torch.Tensor], text_A: torch.Tensor, step: int) -> dict[str, torch.Tensor]:
        """The module's inputs with input_ids masked, or with masked_ids beside them (masked_for irr).

        Adds full_ids (what was there before; kind nam) and irr_targets (what is to be predicted), as far as they are needed.

        Args:
            inputs: with input_ids [A, T] on CPU.
            text_A: row of each text in the store.
            step: counted over the whole run.
        """
        if self._config.kind == "none":
            return inputs
        ids_AT = inputs["input_ids"].numpy()
        real_AT = real_tokens(ids_AT, self._vocabulary)
        probability_AT = masking_probability(self._last_levels(text_A, real_AT), real_AT, mean=self._config.probability)
        draw_AT3 = masking_draws(self._seed, step // self._steps_per_epoch, text_A.numpy(), ids_AT.shape[1])
        spare_none = real_AT if self._config.at_least_one else None
        masked_AT, chosen_AT = corrupt(ids_AT, probability_AT, draw_AT3, self._vocabulary, spare_none=spare_none)
        result = {**inputs, ("input_ids" if self._config.masked_for == "all" else "masked_ids"): torch.from_numpy(masked_AT)}
        if self._config.kind == "nam":
            result["full_ids"] = inputs["input_ids"]
        if self._targets:
            result["irr_targets"] = irr_targets(inputs["input_ids"], torch.from_numpy(chosen_AT))
        return result

    def after(self, inputs: dict[str, torch.Tensor], text_A: torch.Tensor, features: dict[str, torch.Tensor]) -> None:
        """Keep the noise levels that the step has computed: features["noise"] [A, T] of inputs["full_ids"]."""
        if self._config.kind != "nam":
            return
        real_AT = real_tokens(inputs["full_ids"].numpy(), self._vocabulary)
        level_AT = np.where(real_AT, features["noise"].detach().float().cpu().numpy(), np.nan)
        codes_AT = np.zeros((len(level_AT), self.store.tokens), np.uint8)
        codes_AT[:, : level_AT.shape[1]] = encode(level_AT)
        everyone_B = gather_constant(text_A.to(self._device)).cpu().numpy()
        self.store.write(everyone_B, gather_constant(torch.from_numpy(codes_AT).to(self._device)).cpu().numpy())

    def save(self, folder: Path) -> None:
        """Write this worker's levels into a checkpoint; every worker must call it."""
        if self._config.kind == "nam":
            self.store.save(folder)

    def load(self, folder: Path) -> None:
        """Read this worker's levels from a checkpoint of any number of workers."""
        if self._config.kind == "nam":
            self.store.load(folder)

    def _last_levels(self, text_A: torch.Tensor, real_AT: np.ndarray) -> np.ndarray:
        """Levels of this worker's texts, NaN where unknown; a text whose tokens are not those of its levels counts as unknown."""
        if self._config.kind != "nam":
            return np.full(real_AT.shape, np.nan)
        codes = torch.from_numpy(self.store.read(gather_constant(text_A.to(self._device)).cpu().numpy())).to(self._device)
        first = 0
        if self.store.world > 1:
            dist.all_reduce(codes)
            first = self.store.rank * len(text_A)
        level_AT = decode(codes[first : first + len(text_A)].cpu().numpy())[:, : real_AT.shape[1]]
        same_A1 = (np.isnan(level_AT) == ~real_AT).all(axis=1, keepdims=True)
        return np.where(same_A1, level_AT, np.nan)
