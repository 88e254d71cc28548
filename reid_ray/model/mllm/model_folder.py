"""Loading, saving and merging of multimodal LLMs: base and adapters, the tuned folder, and a plain merged checkpoint.

A tuned folder holds only what trained: adapter/ (PEFT's format), trained.safetensors (projector, visual encoder), heads.safetensors, the
processor and manifest.json, which names the base and the digest of its weights. Knows files, transformers and PEFT; not training.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from reid_ray.errors import ConfigError, DataError
from reid_ray.model.mllm.config import MllmConfig
from reid_ray.model.mllm.families import family_of
from reid_ray.model.mllm.forward import Mllm
from reid_ray.model.mllm.lora import lora_targets, set_trainable, visual_layers, whole_parts
from reid_ray.model.mllm.published_names import restore_published_names
from reid_ray.model.model_files import local_folder, refuse_other_weights, resolve_model, weights_digest
from reid_ray.model.recompute import checkpoint_layers
from reid_ray.model.strict_loading import check_names, compare, load_pretrained, no_progress_bars, refuse_not_finite, shapes
from reid_ray.model.weight_files import read_state
from reid_ray.storage import MANIFEST, environment, sha256_of, write_json
from reid_ray.versions import check_json, numbered

KIND = "mllm"
ADAPTER, TRAINED, HEADS = "adapter", "trained.safetensors", "heads.safetensors"
_PREFIX = "base_model.model."  # PEFT's, before the names of the base model
_ADAPTER_FILE = "adapter_model.safetensors"
_IN_LAYER = re.compile(r"\.(lora_[AB])\.weight$")


@dataclass
class OpenMllm:
    """A multimodal LLM in memory. `peft` wraps mllm.model (None without adapters); base is {"model", "digest"}; heads by name."""

    mllm: Mllm
    processor: Any
    peft: Any | None
    base: dict[str, str]
    config: MllmConfig
    heads: dict[str, torch.Tensor] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)


def check_mllm(config: MllmConfig, *, zero_stage: int | None = None) -> dict[str, str]:
    """Refuse what cannot work before any worker starts, without loading weights.

    Args:
        config: of the model.
        zero_stage: of the engine that will hold it.

    Returns:
        {"model": the base as configured, "digest": of its weights}.

    Raises:
        ConfigError: base of another architecture, a processor that does not fit, a LoRA target that matches nothing, 4 bits where they
            cannot be had, an adapter of another base.
        DataError: a folder, a file or a weight is missing.
    """
    import transformers

    folder = locate_base(config)
    shape = shape_of(folder)
    family = family_of(shape, origin=f"model.base {config.base}")
    _check_quantization(config, zero_stage)
    processor_of(config, folder, shape)
    with torch.device("meta"):
        model = getattr(transformers, family.model_class)(shape)
    lora_targets(model, family, config.lora)
    check_names(folder, stripped=True)
    refuse_other_weights(folder, field="model.base")
    base = {"model": config.base, "digest": weights_digest(folder)}
    if config.adapter is not None:
        _refuse_other_base(Path(config.adapter), base, field="model.adapter")
    return base


def open_mllm(config: MllmConfig, *, dtype: torch.dtype = torch.float32, seed: int = 0) -> OpenMllm:
    """Base, processor and adapters, with exactly those parameters trainable that `config` asks for.

    Args:
        config: of the model.
        dtype: of the weights; quantised ones compute in it.
        seed: of new adapters, so that every worker starts alike.
    """
    folder = locate_base(config)
    shape = shape_of(folder)
    family = family_of(shape, origin=f"model.base {config.base}")
    processor = processor_of(config, folder, shape)
    model = _weights(folder, family.model_class, dtype, config.quantization)
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    peft = set_trainable(model, family, config)
    torch.random.set_rng_state(state)
    if config.gradient_checkpointing:
        checkpoint_layers(model)
    lora = config.lora.model_copy(update={"visual": visual_layers(family, config.lora)})  # by name, for the manifest
    config = config.model_copy(update={"lora": lora})
    opened = OpenMllm(Mllm(model), processor, peft, {"model": config.base, "digest": weights_digest(folder)}, config)
    if config.adapter is not None:
        _refuse_other_base(Path(config.adapter), opened.base, field="model.adapter")
        _put_trained(opened, Path(config.adapter), field="model.adapter")
    return opened


def open_processor(config: MllmConfig) -> tuple[Any, int, int]:
    """The processor, fitted to the configuration; tokens that the model reads; tokens of a picture at most. Refuses as check_mllm does."""
    folder = locate_base(config)
    shape = shape_of(folder)
    processor = processor_of(config, folder, shape)
    family = family_of(shape, origin=f"model.base {config.base}")
    return processor, int(shape.text_config.max_position_embeddings), family.most_tokens(processor)


def load_mllm(folder: str | Path, *, base: str | None = None, dtype: torch.dtype = torch.float32) -> OpenMllm:
    """The model in a tuned folder, in evaluation mode, nothing trainable.

    Args:
        folder: what save_mllm wrote.
        base: where the base lies now; None takes the place named in the manifest.
        dtype: of the weights.

    Raises:
        DataError: the folder is no tuned model, its base is missing, or `base` is another one.
    """
    folder = Path(folder)
    manifest = read_tuned(folder, field="model")
    given = dict(manifest["config"])
    config = MllmConfig.model_validate(
        {**given, "base": base or given["base"], "adapter": None, "quantization": "none", "gradient_checkpointing": False}
    )
    opened = open_mllm(config, dtype=dtype)
    _refuse_other_base(folder, opened.base, field="model")
    _put_trained(opened, folder, field="model")
    opened.manifest = manifest
    opened.mllm.requires_grad_(False).eval()
    return opened


def save_mllm(
    opened: OpenMllm, folder: Path, *, trained: Mapping[str, torch.Tensor], heads: Mapping[str, torch.Tensor], facts: Any
) -> None:
    """Write what trained.

    Args:
        opened: the model; its own weights are not read, they may be sharded.
        folder: created.
        trained: parameters of opened.mllm.model by name, exactly those that train.
        heads: parameters and buffers of the heads.
        facts: how it was trained, what pools and what classifies; for the manifest.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    adapters = {name: weight for name, weight in trained.items() if "lora_" in name}
    whole = {name: weight for name, weight in trained.items() if "lora_" not in name}
    if opened.peft is not None:
        state = {_PREFIX + name: weight for name, weight in adapters.items()}
        opened.peft.save_pretrained(folder / ADAPTER, state_dict=state, save_embedding_layers=False)
        (folder / ADAPTER / "README.md").unlink(missing_ok=True)  # a form to fill in for a hub
    save_file({name: weight.contiguous() for name, weight in whole.items()}, folder / TRAINED)
    save_file({name: weight.contiguous() for name, weight in heads.items()}, folder / HEADS)
    opened.processor.save_pretrained(folder)
    count = {"adapter": _count(adapters), "whole": _count(whole), "heads": _count(heads)}
    if opened.peft is not None:  # an adapter is copied out of its folder, and must not pass for all that was trained
        write_json(folder / ADAPTER / MANIFEST, {**numbered(KIND), "kind": "adapter", "base": opened.base, "trained": count})
    write_json(
        folder / MANIFEST,
        {
            **numbered("mllm"),
            "kind": KIND,
            "fingerprint": fingerprint_of(opened.base, trained, heads),
            "family": opened.mllm.model.config.model_type,
            "base": opened.base,
            "config": opened.config.model_dump(mode="json"),
            "hidden_dim": opened.mllm.hidden_dim,
            "visual_dim": opened.mllm.visual_dim,
            "trained": count,
            # vLLM serves adapters beside their base; whatever trained in full needs merging.
            "adapter_serves_alone": bool(adapters) and not whole,
            "facts": facts,
            "environment": environment(),
        },
    )


def merge_mllm(folder: str | Path, target: Path, *, base: str | None = None, dtype: str = "auto") -> dict[str, Any]:
    """Write a plain transformers checkpoint: base, adapters multiplied in, projector and visual encoder as trained. Heads stay behind.

    Args:
        folder: a tuned folder.
        target: existing folder for config.json, weights, tokenizer and processor.
        base: see load_mllm.
        dtype: of the weights written; auto is the base's own. They are added up in float32.

    Returns:
        The tuned folder's manifest.
    """
    opened = load_mllm(folder, base=base)
    model = opened.peft.merge_and_unload() if opened.peft is not None else opened.mllm.model
    wanted = shape_of(locate_base(opened.config)).dtype if dtype == "auto" else getattr(torch, dtype)
    with no_progress_bars():
        model.to(wanted or torch.float32).save_pretrained(target)
    restore_published_names(target)
    opened.processor.save_pretrained(target)
    return opened.manifest


def read_tuned(folder: Path, *, field: str) -> dict[str, Any]:
    """The manifest of a tuned folder.

    Raises:
        DataError: there is none, or the folder is of another kind.
    """
    if (folder / "model" / MANIFEST).is_file():
        raise DataError(f"{field}: {folder} is a training run, not a model; give {folder / 'model'}")
    try:
        manifest = dict(json.loads((folder / MANIFEST).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        raise DataError(f"{field}: {folder} holds no readable {MANIFEST}; give a model folder that the tune job wrote") from None
    if manifest.get("kind") != KIND:
        raise DataError(f"{field}: {folder} is of kind {manifest.get('kind')!r}, not {KIND!r}; give a model folder that the tune job wrote")
    check_json("mllm", manifest, origin=folder / MANIFEST)
    return manifest


def locate_base(config: MllmConfig, *, weights: bool = True) -> Path:
    """The local folder of the base; a hub repository is downloaded where that is allowed, without its weights if they are not asked for.

    Raises:
        ConfigError, DataError: it cannot be had.
    """
    return _local(config.base, config.revision, field="model.base", weights=weights)


def _local(name: str, revision: str | None, *, field: str, weights: bool = True) -> Path:
    patterns = ["*.json", "*.txt", "*.jinja", "*.model", *(["*.safetensors"] if weights else [])]
    return local_folder(resolve_model(name, field=field), field=field, patterns=patterns, revision=revision)


def shape_of(folder: Path) -> Any:
    """Transformers' configuration of the model in a folder."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(folder)


def _weights(folder: Path, model_class: str, dtype: torch.dtype, quantization: str) -> Any:
    import transformers

    options: dict[str, Any] = {}
    if quantization != "none":
        options["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type=quantization, bnb_4bit_compute_dtype=dtype, bnb_4bit_use_double_quant=True
        )
    return load_pretrained(getattr(transformers, model_class), folder, dtype=dtype, **options)


def _check_quantization(config: MllmConfig, zero_stage: int | None) -> None:
    if config.quantization == "none":
        return
    if not torch.cuda.is_available() or importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"model.quantization: {config.quantization} needs a CUDA device and the package bitsandbytes here; set it to none"
        )
    if zero_stage == 3:
        raise ConfigError("model.quantization: ZeRO-3 cannot shard 4-bit weights; set engine.zero_stage to 2 or quantization to none")


def processor_of(config: MllmConfig, folder: Path, shape: Any) -> Any:
    """The processor, fitted to the configuration.

    Raises:
        ConfigError: it does not fit the model; says in what.
    """
    from transformers import AutoProcessor

    name = config.processor or config.base
    place = _local(name, None, field="model.processor") if config.processor is not None else folder
    family = family_of(shape, origin=f"model.base {config.base}")
    try:
        processor = AutoProcessor.from_pretrained(place)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"model.processor: {name} holds no processor ({' '.join(str(error).split())[:160]}); copy the model's own"
        ) from None
    kind = type(processor).__name__
    if kind not in family.processors:
        raise ConfigError(f"model.processor: {name} is a {kind}, but {family.model_class} needs {' or '.join(family.processors)}")
    for what, there, needed in _facts_that_must_agree(processor, shape):
        if there != needed:
            raise ConfigError(
                f"model.processor: {name} has {what} {there}, but model.base {config.base} has {needed}; take the model's own"
            )
    if len(processor.tokenizer) > shape.text_config.vocab_size:
        raise ConfigError(
            f"model.processor: {name} has {len(processor.tokenizer)} tokens, but model.base {config.base} only "
            f"{shape.text_config.vocab_size}; take the model's own"
        )
    family.fit_processor(processor, config)
    return processor


def _facts_that_must_agree(processor: Any, shape: Any) -> list[tuple[str, Any, Any]]:
    image, vision = processor.image_processor, shape.vision_config
    facts = [("image token", processor.image_token_id, shape.image_token_id)]
    if shape.model_type == "llava":
        return [*facts, ("patch_size", processor.patch_size, vision.patch_size), ("side", image.crop_size["height"], vision.image_size)]
    merges = [(name, getattr(image, name), getattr(vision, name)) for name in ("patch_size", "temporal_patch_size")]
    return [*facts, *merges, ("merge_size", image.merge_size, vision.spatial_merge_size)]


def _refuse_other_base(folder: Path, base: Mapping[str, str], *, field: str) -> None:
    made_for = read_tuned(folder, field=field)["base"]
    if made_for["digest"] != base["digest"]:
        raise DataError(
            f"{field}: {folder} was trained on {made_for['model']} (weights {made_for['digest']}), but the base is {base['model']} "
            f"(weights {base['digest']}); give the base it was trained on"
        )


def _put_trained(opened: OpenMllm, folder: Path, *, field: str) -> None:
    """Load a tuned folder's weights into the model, which must have been opened with the same adapters and parts."""
    manifest = read_tuned(folder, field=field)
    own = {key: manifest["config"][key] for key in ("train_projector", "train_visual")}
    lora = dict(manifest["config"]["lora"])
    asked = opened.config.model_dump(mode="json")
    if own != {key: asked[key] for key in own} or lora | {"dropout": 0} != dict(asked["lora"]) | {"dropout": 0}:
        raise ConfigError(
            f"{field}: {folder} trained other parts ({lora}, {own}) than model.lora and model.train_* ask for; set them alike"
        )
    model = opened.mllm.model
    weights = dict(model.named_parameters())
    adapters = adapters_in(folder) if opened.peft is not None else {}
    whole, opened.heads = read_state(folder / TRAINED), read_state(folder / HEADS)
    parts = set(whole_parts(model, opened.mllm.family, opened.config))
    for file, state, names in (
        (folder / ADAPTER / _ADAPTER_FILE, adapters, {name for name in weights if "lora_" in name}),
        (folder / TRAINED, whole, parts),
    ):
        compare(str(file), needed={name: tuple(weights[name].shape) for name in names}, found=shapes(state))
        refuse_not_finite(str(file), state.items())
    refuse_not_finite(str(folder / HEADS), opened.heads.items())
    found = fingerprint_of(manifest["base"], adapters | whole, opened.heads)
    if found != manifest["fingerprint"]:
        raise DataError(
            f"{field}: the weights in {folder} were changed after tuning wrote them ({MANIFEST} names {manifest['fingerprint']}, they are "
            f"{found}); copy the folder again"
        )
    with torch.no_grad():
        for name, weight in (adapters | whole).items():
            weights[name].copy_(weight)


def adapters_in(folder: Path) -> dict[str, torch.Tensor]:
    """The adapters of a tuned folder under the names they have in the model: PEFT leaves its own out of a file."""
    state = read_state(folder / ADAPTER / _ADAPTER_FILE)
    return {_IN_LAYER.sub(r".\1.default.weight", name.removeprefix(_PREFIX)): weight for name, weight in state.items()}


def _count(state: Mapping[str, torch.Tensor]) -> int:
    return sum(weight.numel() for weight in state.values())


def fingerprint_of(base: Mapping[str, str], *states: Mapping[str, torch.Tensor]) -> str:
    """16 hex digits of a tuned model: its base's digest and the names and float32 values of what trained, state by state."""
    parts = [base["digest"].encode()]
    for state in states:
        for name, weight in sorted(state.items()):
            parts += [name.encode(), weight.detach().cpu().float().contiguous().numpy().tobytes()]
    return sha256_of(b"".join(parts))[:16]
