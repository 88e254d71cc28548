"""Configuration of the edit job: people in other clothes, drawn by an editor, checked by a verifier, described anew."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from reid_ray.caption.config import RewriterConfig
from reid_ray.caption.ledger.config import LedgerConfig
from reid_ray.config.base import Section
from reid_ray.config.common import ImagesConfig, PoolConfig, RayConfig, StorableOutputConfig
from reid_ray.config.paths import PathOrAddress, PathOrName
from reid_ray.edit.verify.config import VerifyLimits
from reid_ray.model.editor.config import DrawingConfig, PublishedConfig

Slot = Literal["hair", "upper", "lower", "full", "shoes", "bag", "hat"]


class ChangesConfig(Section):
    """What is changed; with the tables it decides every edit, so the same seed plans the same edits."""

    per_image: int = Field(1, ge=1, le=16, description="edits of an image; all images of a person change alike, edit by edit")
    share: float = Field(1.0, gt=0, le=1, description="share of images that are edited, picked by a hash of image_id")
    slots: tuple[Slot, ...] = Field(("hair", "upper", "lower", "shoes"), min_length=1, description="what may be changed")
    most_slots: int = Field(3, ge=1, le=3, description="slots of an edit are 1 to this many, drawn for each person (DP: at most 3)")
    min_area: float = Field(0.004, ge=0, le=1, description="a segment of a smaller share of the picture is left alone")
    tries: int = Field(
        3, ge=1, le=8, description="drawings of an edit, each with another seed and, where the bank has one, another reference"
    )
    seed: int = Field(0, ge=0, description="of all draws")


class EditorConfig(Section):
    """The editor (reid_ray.model.editor) and the actors that run it."""

    gives_way: ClassVar = {"model": ("published",), "published": ("model",)}

    model: PathOrName = Field("builtin:tiny-editor", description="builtin:NAME or a folder that train_editor wrote")
    published: PublishedConfig | None = Field(
        None, description="a published inpainting pipeline in its place, which is told the new looks in words; null: none"
    )
    drawing: DrawingConfig = DrawingConfig()
    pool: PoolConfig = PoolConfig(batch_size=16)

    @model_validator(mode="after")
    def _one_editor(self) -> Self:
        if self.published is not None and "model" in self.model_fields_set:
            raise ValueError("model and published are both given; drop one of them")
        return self


class VerifierConfig(Section):
    """The verifier (reid_ray.edit.verify), in the editor's actors: what it does not let pass is drawn again."""

    model: PathOrName | None = Field(
        "builtin:tiny-verifier", description="builtin:tiny-verifier or model/ of a train_verifier job; null lets every drawing stand"
    )
    limits: VerifyLimits = VerifyLimits()


class EditRewriterConfig(RewriterConfig):
    """The language model that says what has changed. Share 0 starts none: then every caption is the one that a rule makes."""

    share: float = Field(0.0, ge=0, le=1, description="share of edited pictures whose caption it writes, picked by digest; 0 starts none")
    min_characters: int = Field(30, ge=1, description="a shorter answer is no caption (DP: 30)")
    min_agreement: float = Field(
        0.75, ge=0, le=1, description="least attribute agreement with the caption that a rule makes; below it, that one stands"
    )
    max_tries: int = Field(3, ge=1, description="answers of a caption before the rule's stands")

    @model_validator(mode="after")
    def _one_caption(self) -> Self:
        if self.count != 1:
            raise ValueError(f"count is {self.count}, but an edited picture has one caption; drop it")
        return self


class EditJob(Section):
    """Images, captions, segments and references in; edited images, their captions and what was changed out."""

    images: ImagesConfig = ImagesConfig()
    captions: PathOrAddress = Field(description="CAPTIONS of these images, to which the segments are linked")
    segments: PathOrAddress = Field(description="segments/ of a segment job: SEGMENTS of these images, linked to nouns of the captions")
    references: PathOrAddress = Field(description="references/ of a references job: the bank of things to dress people in")
    changes: ChangesConfig = ChangesConfig()
    editor: EditorConfig = EditorConfig()
    verifier: VerifierConfig = VerifierConfig()
    rewriter: EditRewriterConfig = EditRewriterConfig()
    page_edits: int = Field(60, ge=0, description="edits on the page edits.html, spread over the run; 0 writes none")
    ledger: LedgerConfig = LedgerConfig()
    no_progress_timeout_s: int = Field(
        1800, ge=30, description="seconds without any progress after which the job fails; more than an editor's start"
    )
    output: StorableOutputConfig
    ray: RayConfig = RayConfig()
