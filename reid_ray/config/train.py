"""Configuration of jobs/train.py: a dual encoder trained on images and captions by Ray Train and DeepSpeed."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from reid_ray.config.base import Section
from reid_ray.config.common import PoolConfig
from reid_ray.config.model import ModelConfig
from reid_ray.config.paths import LocalPath
from reid_ray.config.training import TrainingJob


class TrainImages(Section):
    """Which images are learnt from, and which choose the weights."""

    path: LocalPath = Field(description="Parquet file or folder in the IMAGES schema (jobs/synthesize.py and jobs/ingest.py write it)")
    train_split: str = Field("train", description="images of this split are learnt from")
    val_split: str | None = Field(
        "val", description="the weights with the best score on this split are kept; null keeps the last weights. Never test"
    )
    select_by: Literal["r1", "map"] = Field("r1", description="text-to-image score that chooses: R@1, or mAP as in LLM-DA")
    max_pixels: int = Field(50_000_000, ge=1, description="an image whose header claims more pixels is a failed row, never decoded")

    @model_validator(mode="after")
    def _splits_differ(self) -> Self:
        if self.val_split == self.train_split:
            raise ValueError(f"val_split and train_split are both {self.train_split!r}; weights must be chosen on unseen identities")
        if self.val_split == "test":
            raise ValueError("val_split is 'test'; weights chosen on the test split make its score worthless, so choose another")
        return self


class TrainCaptions(Section):
    """Which captions are learnt from."""

    paths: list[LocalPath] = Field(min_length=1, description="Parquet files or folders in the CAPTIONS schema; all of them are learnt from")
    kinds: list[Literal["human", "static", "dynamic"]] = Field(
        ["human", "static", "dynamic"], min_length=1, description="kinds of captions to take; each caption is one sample per epoch"
    )
    rewrite_share: float = Field(
        0.2,
        ge=0,
        le=1,
        description="probability that an accepted rewrite takes the place of its original (LLM-DA's beta; 0.2 there); 0 reads no rewrites. "
        "A caption without accepted rewrites always stands",
    )

    @property
    def reads_rewrites(self) -> bool:
        """Whether rewrites are of use."""
        return self.rewrite_share > 0


class BatchesConfig(Section):
    """What one step sees."""

    size: int = Field(512, ge=2, description="samples per step over all workers; must be a multiple of workers.count")
    sampler: Literal["shuffle", "identity"] = Field(
        "shuffle",
        description="shuffle: each sample once per epoch; identity: P x K, each identity once per epoch with samples_per_identity samples "
        "of different pictures, P = size / samples_per_identity; every worker gets whole identities",
    )
    samples_per_identity: int = Field(4, ge=2, description="K of sampler identity (16 x 4 is usual); size must be a multiple of it")
    seed: int = Field(0, ge=0, description="seed of order, rewrites, augmentation and new weights")
    flip: float = Field(0.5, ge=0, le=1, description="probability of mirroring left to right")
    crop_padding: int = Field(
        10, ge=0, description="pixels of padding before a random crop back to the image size (10 as in IRRA); 0 is off"
    )
    erase: float = Field(0.5, ge=0, le=1, description="probability of random erasing (0.5 as in IRRA)")
    colour: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="brightness, contrast and saturation are each changed by a factor drawn from 1 - colour to 1 + colour; 0 is off. The "
        "hue stays, for captions name colours",
    )
    chunk: int | None = Field(
        None,
        ge=1,
        description="a worker encodes this many samples at a time and once more for the gradient, so that activations do not bound the "
        "batch (GradCache); null encodes its share at once",
    )
    threads: int = Field(1, ge=1, description="threads per worker that read, decode and augment ahead of the step; without decoders")
    decoders: PoolConfig | None = Field(
        None,
        description="Ray Data actors per worker that read, decode and augment, on any node with free CPUs, batch_size pictures per call; "
        "null uses threads in the worker. Both give the same batches",
    )

    @model_validator(mode="after")
    def _decoders_on_cpus(self) -> Self:
        if self.decoders is not None and self.decoders.num_gpus:
            raise ValueError("decoders.num_gpus is set, but decoding runs on CPUs; drop it")
        return self

    @model_validator(mode="after")
    def _whole_identities(self) -> Self:
        if self.sampler == "identity" and self.size % self.samples_per_identity:
            raise ValueError(
                f"size {self.size} is not a multiple of samples_per_identity {self.samples_per_identity}; set size to P x K, such as "
                f"{max(1, self.size // self.samples_per_identity) * self.samples_per_identity}"
            )
        return self

    @property
    def identities(self) -> int:
        """P of sampler identity."""
        return self.size // self.samples_per_identity


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


class MaskingConfig(Section):
    """Which words the text tower does not see. A chosen token becomes the mask 80 %, a random one 10 %, itself 10 %."""

    kind: Literal["none", "equal", "nam"] = Field(
        "none", description="equal: every token with `probability`; nam: noise-aware, the doubtful ones more often (Tan et al. 2024)"
    )
    probability: float = Field(0.15, gt=0, lt=1, description="mean probability of masking a token (0.15 as in BERT; 0.10 to 0.30 work)")
    depth: float = Field(
        0.83,
        gt=0,
        le=1,
        description="nam compares tokens with patches after this share of each tower's layers (layer 10 of 12; 8 to 12 work)",
    )
    export: bool = Field(True, description="nam: write every token's last noise level to noise/ (Parquet) and a page to noise.html")


class TransferSet(Section):
    """Another data set, by the text-to-image protocol: val after each validation, test once at the end with the kept weights."""

    name: str = Field(pattern=r"^[\w.-]+$", description="as the log and the manifest shall name it, such as ICFG-PEDES")
    images: LocalPath = Field(description="its IMAGES table")
    captions: LocalPath = Field(description="its CAPTIONS table")
    caption_kinds: list[Literal["human", "static", "dynamic"]] = Field(["human"], min_length=1, description="kinds of captions that query")
    val_split: str | None = Field("val", description="split looked at while training; null if it has none")
    test_split: str | None = Field("test", description="split scored once at the end; null leaves it out")

    @model_validator(mode="after")
    def _test_is_not_looked_at(self) -> Self:
        if self.val_split is None and self.test_split is None:
            raise ValueError("val_split and test_split are both null, so there is nothing to evaluate; give one, or drop the set")
        if self.val_split is not None and self.val_split in {"test", self.test_split}:
            raise ValueError(f"val_split is {self.val_split!r}, but a test split is scored once, at the end; set val_split to null")
        return self


class PairTrainingJob(TrainingJob):
    """A training job that learns from images and their captions: its batches must divide, and its patience needs scores."""

    images: TrainImages
    batches: BatchesConfig = BatchesConfig()

    @model_validator(mode="after")
    def _batch_divides(self) -> Self:
        self.workers.divide(self.batches.size, field="batches.size")
        if self.batches.sampler == "identity":
            self.workers.divide(self.batches.identities, field="batches.size / batches.samples_per_identity")
        return self

    @model_validator(mode="after")
    def _patience_needs_scores(self) -> Self:
        if self.schedule.patience is not None and self.images.val_split is None:
            raise ValueError("schedule.patience counts validations, but images.val_split is null; set it, or patience to null")
        return self


class TrainJob(PairTrainingJob):
    """Train a dual encoder on images and their captions.

    Ray Train keeps the workers alive, DeepSpeed shards the training state over them, and the weights that score best on the
    validation split are kept.
    """

    captions: TrainCaptions
    model: ModelConfig = ModelConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    masking: MaskingConfig = MaskingConfig()
    transfer: list[TransferSet] = Field([], description="data sets for direct-transfer evaluation; the weights are never chosen by them")

    @model_validator(mode="after")
    def _prediction_needs_masks(self) -> Self:
        if self.objective.irr.weight and self.masking.kind == "none":
            raise ValueError("objective.irr predicts masked words, but masking.kind is none; set it to equal or nam, or irr.weight to 0")
        return self

    @model_validator(mode="after")
    def _transfer_names_are_distinct(self) -> Self:
        names = [each.name for each in self.transfer]
        if len(set(names)) < len(names):
            raise ValueError(f"transfer has names that are not distinct: {names}")
        return self
