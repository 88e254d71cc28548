"""Configuration of caption validation: the limits of its rules, shared by the jobs that write or mine captions."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from reid_ray.config.base import Section


class ValidationConfig(Section):
    """Limits of a usable caption. The defaults fit one to four English sentences about one person."""

    min_words: int = Field(4, ge=1, description="fewer words are no description, words")
    max_words: int = Field(
        160, ge=2, description="more words are rambling; CLIP reads about 60 and published captions average 24 to 80, words"
    )
    script: str | None = Field(
        "LATIN", description="Unicode script that most letters must belong to (LATIN, CJK, CYRILLIC, ...); null accepts every script"
    )
    min_script_share: float = Field(
        0.9, gt=0, le=1, description="least share of letters in that script; names and loan words stay below 0.1"
    )
    loop_words: int = Field(4, ge=1, description="length of the word sequence whose repetition is a loop, words")
    max_repeats: int = Field(3, ge=1, description="a sequence of loop_words seen more often than this is a repetition loop")

    @model_validator(mode="after")
    def _max_not_below_min(self) -> Self:
        if self.max_words < self.min_words:
            raise ValueError(f"max_words {self.max_words} is below min_words {self.min_words}")
        return self
