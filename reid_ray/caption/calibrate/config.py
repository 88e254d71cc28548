"""Configuration of the calibrate job: threshold calibration of the faithfulness filters."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from reid_ray.caption.config import RewriterConfig
from reid_ray.config.base import Section
from reid_ray.config.common import OutputConfig, RayConfig, SyntheticConfig
from reid_ray.config.paths import LocalPath, PathOrName


class EncoderConfig(Section):
    """The sentence encoder whose cosine is thresholded."""

    model: PathOrName = Field("builtin:minilm-l6-v2", description="sentence encoder: builtin:NAME, a folder of weights, or a hub name")
    revision: str | None = Field(None, description="commit or tag of a hub model; null takes its main branch")


class CalibrateJob(Section):
    """Labelled pairs in, thresholds and their ROC out."""

    people: SyntheticConfig = Field(
        SyntheticConfig(identities=600, images_per_identity=1, seed=101),
        description="synthetic people whose captions are paired; a seed of their own keeps them apart from a training set",
    )
    pairs: LocalPath | None = Field(
        None, description='more labelled pairs, JSON lines {"original", "rewrite", "label": "same" or "changed"}; null adds none'
    )
    rewrites: int = Field(300, ge=0, description="captions that the language model rewrites once, labelled by the truth; 0 starts no model")
    rewriter: RewriterConfig = RewriterConfig(share=1.0)
    encoder: EncoderConfig = EncoderConfig()
    choose: Literal["balanced", "removed", "rejected"] = Field(
        "balanced",
        description="threshold: balanced takes the one of best balanced accuracy; removed the lowest that reaches target_removed; "
        "rejected the highest that still keeps target_kept",
    )
    target_removed: float = Field(0.9, gt=0, le=1, description="share of rewrites with a changed attribute that the filter must remove")
    target_kept: float = Field(0.85, gt=0, le=1, description="share of true paraphrases that the filter must keep")
    no_progress_timeout_s: int = Field(1800, ge=30, description="seconds without any progress after which the job fails")
    output: OutputConfig
    ray: RayConfig = RayConfig()
