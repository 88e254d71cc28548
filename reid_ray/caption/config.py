"""Configuration of the caption job: images -> captions by a multimodal model -> rewrites by a language model -> faithful ones."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from reid_ray.caption.filters.config import ValidationConfig
from reid_ray.caption.ledger.config import LedgerConfig
from reid_ray.caption.plausibility.config import PlausibilityConfig
from reid_ray.config.base import Section
from reid_ray.config.common import ImagesConfig, PoolConfig, RayConfig, StorableOutputConfig
from reid_ray.config.paths import LocalPath, PathOrAddress, PathOrName


class VllmConfig(Section):
    """One vLLM engine. The defaults fit a small model on a CPU; the configurations for GPUs set all of them."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "float32", description="type of weights and activations; float32 suits CPUs, auto takes the checkpoint's own"
    )
    max_model_len: int = Field(1024, ge=64, description="longest prompt (image tokens included) plus answer, tokens")
    max_num_seqs: int = Field(64, ge=1, description="requests decoded together")
    admit_together: int = Field(
        1,
        ge=1,
        description="requests that join those that are decoded in one step, at most max_num_seqs; more leaves room unused, but fewer steps "
        "read prompts and pictures beside decoding, which a GPU's CUDA graphs do not cover",
    )
    kv_cache_mb: int | None = Field(
        None,
        ge=1,
        description="key-value cache, MiB; null: on a GPU vLLM takes gpu_memory_utilization of it, on CPUs it is what the model needs for "
        "max_num_seqs requests of max_model_len, within a sixteenth of the machine's memory",
    )
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1, description="share of a GPU's memory for weights and cache")
    tensor_parallel_size: int = Field(1, ge=1, description="GPUs that one engine is split over; the pool's num_gpus must equal it")
    own_process: bool = Field(
        False,
        description="the engine in a process of its own: its steps and what prepares pictures then share no interpreter, but each picture "
        "is sent over; it ends with its actor, however that ends",
    )
    enable_prefix_caching: bool = Field(
        True, description="keep the cache of prompts that begin alike: one picture asked twice, rewrites of one caption, tries again"
    )
    block_size: int | None = Field(
        32,
        ge=1,
        description="tokens per block of that cache, shared whole blocks at a time; null is vLLM's choice: 16 on GPUs, 128 on CPUs",
    )
    prepared_mb: int = Field(
        4096,
        ge=1,
        description="memory that pictures may take which are decoded and prepared, MiB: beyond it nothing runs ahead of the max_num_seqs "
        "requests that are decoded together",
    )
    prepare_processes: int = Field(
        0,
        ge=0,
        description="processes beside the engine's that make tokens and pixels of what is asked; 0: threads of the engine's own process, "
        "whose interpreter they share with what launches its steps. Each takes a core while it prepares, and the memory of vLLM's imports",
    )
    enforce_eager: bool = Field(True, description="no compilation: starts in seconds; false is faster on GPUs")
    trust_remote_code: bool = Field(False, description="run code that a hub model brings along; only for models you trust")
    chat_template: str | None = Field(None, description="Jinja chat template, for models whose tokenizer has none (Vicuna)")
    extra: dict[str, Any] = Field({}, description="any further argument of vLLM's engine, by its own name, e.g. mm_processor_kwargs")

    @property
    def has_processes(self) -> bool:
        """Whether the engine runs in more than the process that starts it."""
        return self.own_process or self.tensor_parallel_size > 1

    @model_validator(mode="after")
    def _all_can_join(self) -> Self:
        if self.admit_together > self.max_num_seqs:
            raise ValueError(f"admit_together: {self.admit_together} never find room among max_num_seqs: {self.max_num_seqs}")
        return self

    @model_validator(mode="after")
    def _extra_states_nothing_twice(self) -> Self:
        stated = {"model", "revision", "kv_cache_memory_bytes", "limit_mm_per_prompt"} | (set(type(self).model_fields) - {"extra"})
        _refuse_twice(self.extra, stated)
        return self


class StructureConfig(Section):
    """Structured output (constrained decoding): vLLM lets no token pass that breaks the form. Exactly one of the four."""

    gives_way: ClassVar = {
        "choice": ("regex", "json_schema", "grammar"),
        "regex": ("choice", "json_schema", "grammar"),
        "json_schema": ("choice", "regex", "grammar"),
        "grammar": ("choice", "regex", "json_schema"),
    }

    choice: tuple[str, ...] | None = Field(None, min_length=1, description="one of these texts")
    regex: str | None = Field(None, description="a regular expression that the whole answer matches")
    json_schema: dict[str, Any] | None = Field(
        None, description="a JSON schema of an object; the caption is its string property `caption`, other properties are set aside"
    )
    grammar: str | None = Field(None, description="a grammar in EBNF, rule `root`")

    @model_validator(mode="after")
    def _one_that_gives_a_caption(self) -> Self:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"set exactly one of {', '.join(type(self).model_fields)}; {', '.join(given) or 'none'} is set")
        schema = self.json_schema
        if schema is not None and schema.get("properties", {}).get("caption", {}).get("type") != "string":
            raise ValueError("json_schema must have a property caption of type string: that is what becomes the caption")
        return self


class SamplingConfig(Section):
    """Sampling parameters of decoding."""

    temperature: float = Field(0.0, ge=0, le=2, description="0 takes the likeliest token; higher varies more and invents more")
    top_p: float = Field(1.0, gt=0, le=1, description="smallest set of tokens with this much probability")
    repetition_penalty: float = Field(1.0, gt=0, le=2, description="above 1 discourages tokens already said")
    max_tokens: int = Field(96, ge=1, description="longest answer, tokens; an answer cut here loses its unfinished sentence")
    seed: int = Field(0, ge=0, description="each request draws from its own stream, derived from this and what it is about")
    structure: StructureConfig | None = Field(None, description="what an answer must look like; null: any text")
    extra: dict[str, Any] = Field({}, description="any further field of vLLM's SamplingParams, by its own name, e.g. top_k, min_p, stop")

    @model_validator(mode="after")
    def _extra_states_nothing_twice(self) -> Self:
        stated = {"structured_outputs", "n"} | (set(type(self).model_fields) - {"extra", "structure"})
        _refuse_twice(self.extra, stated)
        return self


def _refuse_twice(extra: Mapping[str, Any], stated: Collection[str]) -> None:
    twice = sorted(set(stated) & set(extra))
    if twice:
        raise ValueError(f"extra repeats {', '.join(twice)}, which another key sets; set that one")


def _check_gpus(engine: VllmConfig, pool: PoolConfig) -> None:
    if engine.tensor_parallel_size > 1 and pool.num_gpus != engine.tensor_parallel_size:
        raise ValueError(
            f"engine.tensor_parallel_size is {engine.tensor_parallel_size}, but pool.num_gpus is {pool.num_gpus:g}; set both to the same"
        )


class CaptionerConfig(Section):
    """The multimodal model that describes each image."""

    model: PathOrName = Field(
        "builtin:tiny-mllm", description="builtin:NAME, a folder of weights, or a hub name such as Qwen/Qwen2.5-VL-7B-Instruct"
    )
    revision: str | None = Field(None, description="commit or tag of a hub model; null takes its main branch")
    adapter: LocalPath | None = Field(
        None, description="folder of a LoRA adapter of that model, as PEFT saves it; its content counts as part of the revision"
    )
    instruction_first: bool = Field(
        False,
        description="the instruction before the picture, if the chat template allows: prompts of one template then share it in "
        "the prefix cache; most models were trained with the picture first",
    )
    instructions: tuple[Literal["static", "dynamic"], ...] = Field(
        ("static",), min_length=1, description="captions per image: static (one instruction) and dynamic (in the style of a drawn template)"
    )
    templates: LocalPath | None = Field(
        None, description="templates.yaml of a mine job for the dynamic instruction; null takes this project's own"
    )
    template_tries: int = Field(
        2, ge=1, description="generations of a dynamic caption, each with another template, before the static instruction takes its place"
    )
    limits: ValidationConfig = ValidationConfig()
    max_side: int = Field(1024, ge=28, description="a larger image is shrunk to this longest side before the model sees it, pixels")
    shrink: Literal["reference", "fast"] = Field(
        "reference",
        description="how it is shrunk. reference: decoded whole, then Pillow's bicubic filter. fast: a JPEG of twice the size or more is "
        "decoded at a half, a quarter or an eighth of its size, and torch's bicubic filter does the rest: two to four times quicker, but "
        "pixels differ a little (a grey level on average), so captions may, and have keys of their own",
    )
    engine: VllmConfig = VllmConfig()
    sampling: SamplingConfig = SamplingConfig()
    pool: PoolConfig = PoolConfig(batch_size=32)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.instructions)) < len(self.instructions):
            raise ValueError(f"instructions {list(self.instructions)} name one kind twice; each kind gives one caption per image")
        _check_gpus(self.engine, self.pool)
        return self


class RewriterConfig(Section):
    """The language model that paraphrases captions (LLM-DA)."""

    share: float = Field(0.1, ge=0, le=1, description="share of captions that are rewritten, picked by digest; 0 starts no rewriter")
    count: int = Field(1, ge=1, description="rewrites per picked caption")
    model: PathOrName = Field("builtin:smollm2-135m-instruct", description="builtin:NAME, a folder of weights, or a hub name")
    revision: str | None = Field(None, description="commit or tag of a hub model; null takes its main branch")
    adapter: LocalPath | None = Field(
        None, description="folder of a LoRA adapter of that model, as PEFT saves it; its content counts as part of the revision"
    )
    instruction_first: bool = Field(
        False, description="the instruction before the caption: all prompts then share it in the prefix cache; false is LLM-DA's order"
    )
    engine: VllmConfig = VllmConfig()
    sampling: SamplingConfig = SamplingConfig(temperature=0.3)
    limits: ValidationConfig = ValidationConfig()
    pool: PoolConfig = PoolConfig(batch_size=256)  # captions, of which `share` are rewritten: fewer would not fill an engine

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _check_gpus(self.engine, self.pool)
        return self


class FaithfulnessConfig(Section):
    """The text faithfulness filter (LLM-DA): a rewrite too unlike its original is sampled again, then rejected."""

    model: PathOrName = Field("builtin:minilm-l6-v2", description="sentence encoder: builtin:NAME, a folder of weights, or a hub name")
    revision: str | None = Field(None, description="commit or tag of a hub model; null takes its main branch")
    device: str = Field(
        "cpu",
        pattern=r"^(cpu|cuda(:\d+)?)$",
        description="torch device of the sentence encoder: cpu, or cuda:0, the GPU that the rewriter's actor has, beside its engine "
        "(0.2 GB for the builtin one)",
    )
    alpha: float = Field(0.6, ge=-1, le=1, description="least cosine of rewrite and original, as in LLM-DA; depends on the encoder")
    min_agreement: float | None = Field(
        None,
        ge=0,
        le=1,
        description="least attribute agreement of rewrite and original (1: every attribute kept, 0: one contradicted; English only); "
        "null, as published, asks for none, but a cosine hardly sees a changed colour: see the calibrate job",
    )
    max_tries: int = Field(3, ge=1, description="generations per rewrite before the original stands alone")


# A name ends up in rows, file names (Ts-NAME.json) and dotted keys.
CaptionerName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
Captioners = dict[CaptionerName, CaptionerConfig]
CAPTIONERS_ARE = (
    "multimodal models, each by a name of yours (small letters, digits, - and _). They run one after the other, each with the whole "
    "cluster: models that do not fit together need not, and together they would take as long"
)


class RewritingJob(Section):
    """A job whose captions are rewritten and kept in a ledger, whether it makes them or they are there."""

    rewriter: RewriterConfig = RewriterConfig()
    faithfulness: FaithfulnessConfig = FaithfulnessConfig()
    ledger: LedgerConfig = LedgerConfig()
    no_progress_timeout_s: int = Field(
        1800,
        ge=30,
        description="seconds without any progress after which the job fails; must exceed an engine's start",
    )
    output: StorableOutputConfig
    ray: RayConfig = RayConfig()

    @model_validator(mode="after")
    def _scored_where_there_is_a_device(self) -> Self:
        if self.faithfulness.device != "cpu" and not self.rewriter.pool.num_gpus:
            raise ValueError(
                f"faithfulness.device is {self.faithfulness.device}, but rewriter.pool.num_gpus is 0; give the rewriter a GPU, or set cpu"
            )
        return self


class CaptionJob(RewritingJob):
    """Images in, a CAPTIONS table out."""

    images: ImagesConfig = ImagesConfig()
    captioners: Captioners = Field({"main": CaptionerConfig()}, min_length=1, description=CAPTIONERS_ARE)
    plausibility: PlausibilityConfig = PlausibilityConfig()
    plan: PathOrAddress | None = Field(
        None, description="output folder of a plan job for these captioners: the run ends with its GPU-hours beside those that plan says"
    )
