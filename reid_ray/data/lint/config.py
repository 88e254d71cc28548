"""Configuration of the job lint: what is wrong with a data set, before anything is trained on it."""

from __future__ import annotations

from pydantic import Field

from reid_ray.config.base import Section
from reid_ray.config.common import OutputConfig
from reid_ray.config.paths import LocalPath
from reid_ray.data.config import LoadConfig
from reid_ray.data.formats.config import SourceConfig


class LintJob(Section):
    """Job lint."""

    source: SourceConfig
    load: LoadConfig = LoadConfig()
    near_bits: int = Field(
        7,
        ge=0,
        le=7,
        description="images whose 128-bit perceptual hashes differ in at most so many bits are near duplicates; "
        "encoding again flips 1 to 4, other pictures of one street differ in 16 or more",
    )
    script: str = Field("LATIN", description="script of the captions, as Unicode names begin: LATIN, CJK, CYRILLIC, ARABIC, ...")
    context: int = Field(
        77,
        ge=3,
        description="tokens of a caption that the model to be trained reads: 77 in CLIP, 64 in SigLIP; where no tokenizer is named, words, "
        "digits and runs of punctuation marks are counted, which are a token at least, so a caption just below may be too long as well",
    )
    tokenizer: LocalPath | None = Field(
        None,
        description="folder of the model to be trained, or of its tokenizer: captions are counted by it, against its own context unless "
        "context is given; null counts words",
    )
    examples: int = Field(6, ge=0, le=100, description="examples per finding, with their pictures, in the report")
    output: OutputConfig
