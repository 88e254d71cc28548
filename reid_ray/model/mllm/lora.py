"""LoRA and trainable parameters of a multimodal LLM: PEFT adapters on chosen layers, projector and visual encoder in full, else frozen.

Knows module names and PEFT; not training, losses or DeepSpeed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from reid_ray.errors import ConfigError
from reid_ray.model.mllm.config import LoraConfig, MllmConfig
from reid_ray.model.mllm.families import MllmFamily


def set_trainable(model: Any, family: MllmFamily, config: MllmConfig) -> Any | None:
    """Freeze `model`, put adapters into it and leave trainable what `config` asks for.

    Returns:
        PEFT's wrapper around `model`, which is changed in place; None without adapters.

    Raises:
        ConfigError: a target of config.lora matches no linear layer.
    """
    from peft import LoraConfig as PeftConfig
    from peft import get_peft_model

    pattern = lora_targets(model, family, config.lora)
    peft = None
    if pattern is not None:
        lora = config.lora
        # A regular expression over whole names: a list of endings would also match like-named layers of the other part.
        wanted = PeftConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=pattern, bias="none")
        peft = get_peft_model(model, wanted, autocast_adapter_dtype=False)
    else:
        model.requires_grad_(False)
    for name in whole_parts(model, family, config):
        model.get_parameter(name).requires_grad_(True)
    return peft


def lora_targets(model: Any, family: MllmFamily, config: LoraConfig) -> str | None:
    """A regular expression that matches the full names of exactly the layers asked for; None if none are.

    Raises:
        ConfigError: a name matches nothing; says what there is.
    """
    found: list[str] = []
    for field, part, endings in (("llm", family.language, config.llm), ("visual", family.visual, visual_layers(family, config))):
        layers = list(_linear_layers(model, family, part))
        for ending in endings:
            matched = [name for name in layers if name.endswith(f".{ending}")]
            if not matched:
                there = sorted({name.rsplit(".", 1)[-1] for name in layers})
                raise ConfigError(
                    f"model.lora.{field}: {ending!r} matches no linear layer of the {'LLM' if field == 'llm' else 'visual encoder'}; "
                    f"there are {', '.join(there)}"
                )
            found.append(f"{re.escape(part)}\\..*\\.{re.escape(ending)}" if field == "llm" else "|".join(map(re.escape, matched)))
    return "|".join(found) or None


def visual_layers(family: MllmFamily, config: LoraConfig) -> list[str]:
    """The visual encoder's layers that get an adapter, by the last part of their names."""
    return config.visual if isinstance(config.visual, list) else list(family.visual_attention)


def whole_parts(model: Any, family: MllmFamily, config: MllmConfig) -> list[str]:
    """Names of the base model's parameters that train in full: projector, visual encoder, as `config` asks."""
    return [
        name
        for name, _ in model.named_parameters()
        if "lora_" not in name
        and ((config.train_projector and _below(name, family.projector)) or (config.train_visual and _is_visual(name, family)))
    ]


def _linear_layers(model: Any, family: MllmFamily, part: str) -> Iterator[str]:
    from torch import nn

    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and _below(name, (part,)) and not _below(name, family.projector):
            yield name


def _is_visual(name: str, family: MllmFamily) -> bool:
    return _below(name, (family.visual,)) and not _below(name, family.projector)


def _below(name: str, parts: tuple[str, ...]) -> bool:
    return any(name.startswith(f"{part}.") for part in parts)
