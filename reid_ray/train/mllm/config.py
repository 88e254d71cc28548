"""Configuration of jobs/tune.py: a multimodal LLM fine-tuned for re-identification (MLLMReID) by Ray Train, DeepSpeed and PEFT."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from reid_ray.config.base import Section
from reid_ray.model.mllm.config import MllmConfig, Part
from reid_ray.train.feed.config import BatchesConfig, PairCaptions, PairTrainingJob

Source = Literal["rewrite", "image", "identity", "caption"]


class TuneCaptions(PairCaptions):
    """Captions, and the target texts (continuations) that the model learns to say after them."""

    continuation: list[Source] = Field(
        ["rewrite", "image", "identity"],
        min_length=1,
        description="what image and caption are both continued by, the first of these that a caption has: one of its rewrites, another "
        "caption of its image, a caption of another image of its identity, or the caption itself (copying). One without any is counted",
    )
    max_tokens: int = Field(128, ge=4, description="a caption or rewrite of more tokens is left out and counted")

    @property
    def reads_rewrites(self) -> bool:
        """Whether rewrites are of use."""
        return "rewrite" in self.continuation


class InstructionConfig(Section):
    """Instructions: what is asked after an image or a caption."""

    kind: Literal["common", "specific"] = Field(
        "common", description="common: one instruction for all (MLLMReID); specific: one of several per sample, the ablation's other arm"
    )
    common: str = Field("Continue the description of the person:", min_length=1, description="the common instruction")
    specific: list[str] = Field(
        [
            "Describe the clothing of the person.",
            "Describe the colours that the person wears.",
            "Describe the shoes of the person.",
            "Describe the hair of the person.",
            "Describe what the person carries.",
            "Is the person a man or a woman? Describe the appearance.",
            "Write a caption by which the person could be found again.",
            "Tell this person from others by the appearance.",
        ],
        min_length=2,
        description="the specific instructions, drawn per sample and step",
    )

    @property
    def texts(self) -> list[str]:
        """Those that are asked."""
        return [self.common] if self.kind == "common" else self.specific


class LmConfig(Section):
    """-log p of the continuation, mean over its tokens."""

    weight: float = Field(1.0, ge=0, description="weight in the total loss; 0 leaves the term out")


class TuneIdConfig(Section):
    """Cross-entropy over the training identities, behind a batch-norm neck (Luo et al. 2019)."""

    weight: float = Field(1.0, ge=0, description="weight in the total loss; 0 leaves the term out, and neck and classifier with it")
    smoothing: float = Field(0.1, ge=0, lt=1, description="label smoothing")


class TuneTripletConfig(Section):
    """Batch-hard triplet over the images of all workers (Hermans et al. 2017); asks for batches.sampler identity."""

    weight: float = Field(1.0, ge=0, description="weight in the total loss; 0 leaves the term out")
    margin: float | None = Field(0.3, ge=0, description="Euclidean distance of unit vectors, 0 to 2; null is the soft margin")


class TuneSdmConfig(Section):
    """Similarity distribution matching between latent image and latent caption, which makes the model search by text too."""

    weight: float = Field(0.0, ge=0, description="weight in the total loss; 0 leaves the term out")
    temperature: float = Field(0.02, gt=0, description="softmax temperature (0.02 as in IRRA)")


# Which parts of the model the gradient of each term comes to.
REACHES: dict[str, frozenset[Part]] = {
    "lm_image": frozenset({"visual", "projector", "language"}),
    "lm_caption": frozenset({"language"}),
    "latent_id": frozenset({"visual", "projector", "language"}),
    "latent_triplet": frozenset({"visual", "projector", "language"}),
    "visual_id": frozenset({"visual"}),
    "visual_triplet": frozenset({"visual"}),
    "sdm": frozenset({"visual", "projector", "language"}),
}
_TRAIN: dict[Part, str] = {
    "visual": "model.lora.visual to attention",
    "projector": "model.train_projector to true",
    "language": "model.lora.llm to [q_proj, v_proj]",
}


class TuneObjective(Section):
    """The loss: a weighted sum of named terms. SyncReID is the same pair of losses on the latent and on the visual feature."""

    lm_image: LmConfig = LmConfig()
    lm_caption: LmConfig = LmConfig()
    latent_id: TuneIdConfig = TuneIdConfig()
    latent_triplet: TuneTripletConfig = TuneTripletConfig()
    visual_id: TuneIdConfig = TuneIdConfig()
    visual_triplet: TuneTripletConfig = TuneTripletConfig()
    sdm: TuneSdmConfig = TuneSdmConfig()
    pooling: Literal["mean", "last", "attention"] = Field(
        "mean", description="how hidden states at image or caption tokens become one vector; attention has a learnt query"
    )

    @property
    def weighted(self) -> list[str]:
        """Names of the terms that are in the loss."""
        return [name for name in REACHES if getattr(self, name).weight]

    @property
    def reads_images(self) -> bool:
        """Whether the language model runs over images."""
        return any(term.weight for term in (self.lm_image, self.latent_id, self.latent_triplet, self.sdm))

    @property
    def reads_captions(self) -> bool:
        """Whether the language model runs over captions."""
        return bool(self.lm_caption.weight or self.sdm.weight)

    @property
    def answers(self) -> bool:
        """Whether continuations are needed."""
        return bool(self.lm_image.weight or self.lm_caption.weight)

    @property
    def has_visual(self) -> bool:
        """Whether the visual encoder's own feature is trained."""
        return bool(self.visual_id.weight or self.visual_triplet.weight)

    @model_validator(mode="after")
    def _something_to_learn(self) -> Self:
        if not (self.reads_images or self.reads_captions or self.has_visual):
            raise ValueError("the weights of all terms are 0, so there is nothing to learn; set lm_image.weight to 1")
        if self.pooling == "attention" and not (self.latent_id.weight or self.latent_triplet.weight or self.sdm.weight):
            raise ValueError(
                "pooling is attention, but no term trains its query (latent_id, latent_triplet and sdm weigh 0); set pooling to mean"
            )
        return self


class TuneBatches(BatchesConfig):
    """Batches: size and sampler; one step sees images and captions of each sample."""

    size: int = Field(64, ge=2, description="samples per step over all workers, P x K with sampler identity (16 x 4)")
    sampler: Literal["shuffle", "identity"] = Field(
        "identity",
        description="identity: P x K, each identity once per epoch with samples_per_identity samples of different pictures, P = size / "
        "samples_per_identity; shuffle: each sample once per epoch",
    )


class TuneJob(PairTrainingJob):
    """Fine-tune a multimodal LLM for re-identification: common instruction and SyncReID (Yang and Zhang 2024), LoRA, DeepSpeed.

    Only what trains is written: adapters, projector, heads. The merge job makes a plain checkpoint of it.
    """

    captions: TuneCaptions
    model: MllmConfig = MllmConfig()
    batches: TuneBatches = TuneBatches()
    instruction: InstructionConfig = InstructionConfig()
    objective: TuneObjective = TuneObjective()
    select: Literal["latent", "visual", "text"] = Field(
        "latent",
        description="what chooses the weights on the validation split: mAP of images against images, by the latent or the visual feature, "
        "or text: images.select_by of captions against images, by the latent feature (asks for objective.sdm)",
    )

    @model_validator(mode="after")
    def _no_chunks(self) -> Self:
        if self.batches.chunk is not None:
            raise ValueError("batches.chunk is for dual encoders; set it to null, and model.gradient_checkpointing to true to save memory")
        return self

    @model_validator(mode="after")
    def _triplet_has_pairs(self) -> Self:
        for name in ("latent_triplet", "visual_triplet"):
            if getattr(self.objective, name).weight and self.batches.sampler != "identity":
                raise ValueError(f"objective.{name} needs identities more than once in a batch; set batches.sampler to identity")
        return self

    @model_validator(mode="after")
    def _what_trains_is_used(self) -> Self:
        """A parameter that no loss reaches would be saved as trained, but never move."""
        model, trains = self.model, self.model.trains
        reached = {part for name in self.objective.weighted for part in REACHES[name]}
        if not trains:
            raise ValueError("no part of the model trains; set model.lora.llm, model.lora.visual, train_projector or train_visual")
        if "language" in trains - reached:
            raise ValueError("model.lora.llm trains the language model, but no term of the objective runs it; set model.lora.llm to []")
        if "projector" in trains - reached:
            raise ValueError("model.train_projector is set, but no term shows the language model an image; set it to false")
        if "visual" in trains - reached:
            field = "model.train_visual to false" if model.train_visual else "model.lora.visual to []"
            raise ValueError(f"the visual encoder is to train, but no term of the objective looks at an image; set {field}")
        return self

    @model_validator(mode="after")
    def _terms_reach_what_trains(self) -> Self:
        """A term that nothing trainable answers to would be logged as a loss, but teach nothing."""
        for name in self.objective.weighted:
            if not REACHES[name] & self.model.trains:
                remedies = " or ".join(remedy for part, remedy in _TRAIN.items() if part in REACHES[name])
                raise ValueError(
                    f"objective.{name} is in the loss, but no part that it could teach trains; set {remedies}, or set "
                    f"objective.{name}.weight to 0"
                )
        return self

    @model_validator(mode="after")
    def _selection_is_trained(self) -> Self:
        if self.select == "latent" and not self.objective.reads_images and self.images.watched is not None:
            raise ValueError("select is latent, but no term of the objective runs the language model over images; set select to visual")
        if self.select == "text" and not self.objective.sdm.weight and self.images.watched is not None:
            raise ValueError("select is text, but objective.sdm weighs 0, so captions are not scored; set objective.sdm.weight to 1")
        return self
