"""LoRA adapter checks: whether vLLM would serve a base model with an adapter exactly as PEFT applies it.

vLLM leaves out in silence, or with a warning, what it does not know of an adapter. Here every part of one is served or refused by the
names and shapes of its tensors and by what PEFT wrote about them, before an engine starts. Knows files and names; starts nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reid_ray.errors import ConfigError
from reid_ray.model.model_files import weights_digest
from reid_ray.storage import MANIFEST, read_object
from reid_ray.versions import check_json

if TYPE_CHECKING:
    import torch

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM's max_lora_rank may be
# Architectures whose visual encoder and projector take adapters in vLLM as in PEFT (enable_tower_connector_lora), as tried.
VISUAL_ADAPTERS = ("qwen2_5_vl", "qwen3_vl")

_CONFIG, _FILES = "adapter_config.json", ("adapter_model.safetensors", "adapter_model.bin")
_LORA = re.compile(r"(?:base_model\.model\.)?(?P<layer>.+)\.lora_(?P<side>[AB])\.weight")
# What PEFT can do and vLLM cannot: field of adapter_config.json -> what it is called.
_NOT_SERVED = {
    "use_dora": "DoRA",
    "lora_bias": "biases of its own (lora_bias)",
    "modules_to_save": "whole layers (modules_to_save)",
    "trainable_token_indices": "new token embeddings (trainable_token_indices)",
    "target_parameters": "adapters of bare parameters (target_parameters)",
    "layer_replication": "repeated layers (layer_replication)",
    "alora_invocation_tokens": "activated LoRA (alora_invocation_tokens)",
    "use_qalora": "QALoRA",
    "use_bdlora": "block-diagonal LoRA",
    "arrow_config": "a router of adapters (arrow_config)",
    "monteclora_config": "sampled adapters (monteclora_config)",
    "velora_config": "VeLoRA",
    "kasa_config": "KaSA",
    "fan_in_fan_out": "transposed layers (fan_in_fan_out)",
    "megatron_config": "Megatron's layers",
}
# Starts of an adapter that leave the base model as it is; the others (PiSSA, OLoRA, CorDA, LoftQ) change its weights.
_PLAIN_STARTS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
_WRAPPERS = ("base_model", "model", "language_model", "vision_model", "module", "_orig_mod")


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter: its greatest rank, and (out, in) of each layer that it changes, by the layer's name as the adapter has it."""

    rank: int
    layers: Mapping[str, tuple[int, int]]

    @property
    def visual(self) -> tuple[str, ...]:
        """Layers outside the language model: of the visual encoder or the projector."""
        return tuple(name for name in self.layers if not plain_name(name).startswith(("layers.", "lm_head", "embed_tokens")))


def read_adapter(folder: str | Path, *, field: str = "adapter") -> Adapter:
    """The LoRA adapter in a folder that PEFT saved.

    Raises:
        ConfigError: there is none, or one that vLLM would serve in part or as another; names `field`.
    """
    place = Path(folder).expanduser()
    try:
        config = dict(json.loads((place / _CONFIG).read_text(encoding="utf-8")))
        ranks = {int(config["r"]), *(int(rank) for rank in (config.get("rank_pattern") or {}).values())}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{field}: {folder} holds no LoRA adapter ({error!r}); give a folder that PEFT saved") from None
    if not 1 <= min(ranks) <= max(ranks) <= RANKS[-1]:
        raise ConfigError(f"{field}: {folder} has rank {max(ranks) if min(ranks) >= 1 else min(ranks)}, but vLLM takes 1 to {RANKS[-1]}")
    _refuse_other_methods(config, place, field=field)
    layers = _layers(place, ranks, field=field)
    return Adapter(max(ranks), layers)


def check_adapter(folder: str | Path, model: Path, *, field: str = "adapter") -> Adapter:
    """The adapter in a folder, which can be served beside the model in another.

    Args:
        folder: what PEFT saved.
        model: local folder of the base; another place (a hub name) is not looked at.
        field: dotted key of the adapter, for messages.

    Raises:
        ConfigError, DataError: it cannot; says why and what to do.
    """
    adapter = read_adapter(folder, field=field)
    place = Path(folder).expanduser().resolve()
    _refuse_partial_tune(place, model, field=field)
    if not model.is_dir():
        return adapter
    config = read_object(model / "config.json", remedy="copy the model folder again")
    kind = config.get("model_type")
    if adapter.visual and kind not in VISUAL_ADAPTERS:
        raise ConfigError(
            f"{field}: {folder} changes layers outside the language model ({adapter.visual[0]}), where vLLM takes no adapter of a "
            f"{kind}; {_merge(field)}"
        )
    _refuse_other_layers(adapter, model, quantized="quantization_config" in config, field=field)
    return adapter


def adapter_arguments(folder: str | None) -> dict[str, Any]:
    """What a vLLM engine needs to serve the adapter in a folder; {} for None."""
    if folder is None:
        return {}
    adapter = read_adapter(folder)
    arguments = {"enable_lora": True, "max_loras": 1, "max_lora_rank": next(rank for rank in RANKS if rank >= adapter.rank)}
    return arguments | ({"enable_tower_connector_lora": True} if adapter.visual else {})


def plain_name(layer: str) -> str:
    """A layer's name without the parts that differ between versions of transformers, PEFT and a checkpoint's own age."""
    return ".".join(part for part in layer.split(".") if part not in _WRAPPERS)


def _refuse_other_methods(config: Mapping[str, Any], place: Path, *, field: str) -> None:
    kind = str(config.get("peft_type", "LORA"))
    if kind != "LORA":
        raise ConfigError(f"{field}: {place} is an adapter of PEFT's type {kind}, but vLLM serves LoRA alone; {_merge(field)}")
    unserved = [what for name, what in _NOT_SERVED.items() if config.get(name)]
    if config.get("bias", "none") != "none":
        unserved.append(f"biases of the base (bias: {config['bias']})")
    start = config.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower() not in _PLAIN_STARTS:
        unserved.append(f"changes of the base's own weights (init_lora_weights: {start})")
    if unserved:
        raise ConfigError(f"{field}: {place} has {' and '.join(unserved)}, which vLLM does not serve; {_merge(field)}")


def _layers(place: Path, ranks: set[int], *, field: str) -> dict[str, tuple[int, int]]:
    from reid_ray.model.strict_loading import refuse_not_finite
    from reid_ray.model.weight_files import read_state

    file = next((place / name for name in _FILES if (place / name).is_file()), None)
    if file is None:
        raise ConfigError(f"{field}: {place} holds no {' or '.join(_FILES)}; give a folder that PEFT saved")
    state = read_state(file)
    refuse_not_finite(str(file), state.items())
    found: dict[str, dict[str, torch.Tensor]] = {}
    strangers = []
    for name, weight in state.items():
        match = _LORA.fullmatch(name)
        if match is None or weight.ndim != 2 or plain_name(match["layer"]).split(".")[-1] in ("lm_head", "embed_tokens"):
            strangers.append(name)
        else:
            found.setdefault(match["layer"], {})[match["side"]] = weight
    strangers += [layer for layer, sides in found.items() if set(sides) != {"A", "B"}]
    if strangers or not found:
        names = ", ".join(sorted(strangers)[:3]) or "nothing"
        raise ConfigError(
            f"{field}: {file} holds {len(strangers)} weights that are no pair of LoRA matrices of a linear layer ({names}), which vLLM "
            f"would leave out; {_merge(field)}"
        )
    for layer, sides in found.items():
        if sides["A"].shape[0] != sides["B"].shape[1] or sides["A"].shape[0] not in ranks:
            raise ConfigError(
                f"{field}: {file} has rank {sides['A'].shape[0]} in {layer}, but {_CONFIG} says {', '.join(map(str, sorted(ranks)))}; give "
                "a folder as PEFT saved it"
            )
    return {layer: (sides["B"].shape[0], sides["A"].shape[1]) for layer, sides in found.items()}


def _refuse_partial_tune(adapter: Path, model: Path, *, field: str) -> None:
    """Beside an adapter that the tune job wrote, or in the folder above, a manifest knows its base and what else was trained."""
    place = adapter if (adapter / MANIFEST).is_file() else adapter.parent
    try:
        manifest = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
        whole, base = int(manifest["trained"]["whole"]), manifest["base"]
        digest = base["digest"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # another program's
    check_json("mllm", manifest, origin=place / MANIFEST)
    if whole:
        raise ConfigError(
            f"{field}: {adapter} is a part of what was trained; the rest is weights of projector or visual encoder, which are no adapter; "
            f"merge the tuned folder with the merge job and give its output as {_model(field)}"
        )
    if model.is_dir() and weights_digest(model) != digest:
        raise ConfigError(f"{field}: {adapter} was trained on {base['model']}; give that as {_model(field)}")


def _refuse_other_layers(adapter: Adapter, model: Path, *, quantized: bool, field: str) -> None:
    from reid_ray.model.weight_files import shapes_in

    there = shapes_in(model)
    if there is None:
        return
    plain = {plain_name(name): shape for name, shape in there.items()}
    modules = {name.rpartition(".")[0] for name in plain}
    lost = [layer for layer in adapter.layers if plain_name(layer) not in modules]
    if lost:
        raise ConfigError(
            f"{field}: the adapter changes {len(lost)} layers that {model} does not have ({', '.join(lost[:3])}); give the model it was "
            f"trained on as {_model(field)}"
        )
    for layer, shape in adapter.layers.items():
        needed = plain.get(f"{plain_name(layer)}.weight")
        if needed is not None and needed != shape and not quantized:
            raise ConfigError(
                f"{field}: the adapter of {layer} is for {shape[0]} x {shape[1]} weights, but {model} has {' x '.join(map(str, needed))}; "
                f"give the model it was trained on as {_model(field)}"
            )


def _merge(field: str) -> str:
    return f"merge it into its base (the merge job, or PEFT's merge_and_unload) and give the result as {_model(field)}"


def _model(field: str) -> str:
    """The dotted key of the model beside an adapter's."""
    return field.removesuffix("adapter") + "model"
