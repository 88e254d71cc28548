"""Weight names of a LLaVA checkpoint as published: transformers 5 drops a level of CLIP's when it saves, and vLLM looks for it.

vision_tower.embeddings... becomes vision_tower.vision_model.embeddings... again, which both load. Other families keep their names.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from reid_ray.storage import write_json

_SAVED, _PUBLISHED = "vision_tower.", "vision_tower.vision_model."
_INDEX = "model.safetensors.index.json"


def restore_published_names(folder: Path) -> None:
    """Rename the weights of a folder that save_pretrained wrote, a file at a time; does nothing where they are as published."""
    if json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type") != "llava":
        return
    from safetensors.torch import load_file, save_file

    for file in sorted(folder.glob("*.safetensors")):
        weights = load_file(file)
        if any(_published(name) != name for name in weights):
            renamed = file.with_name(f".{file.name}.renamed")
            save_file({_published(name): weight for name, weight in weights.items()}, renamed, metadata={"format": "pt"})
            os.replace(renamed, file)
    if (folder / _INDEX).is_file():
        index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        write_json(folder / _INDEX, {**index, "weight_map": {_published(name): file for name, file in index["weight_map"].items()}})


def _published(name: str) -> str:
    plain = name.removeprefix("model.")
    if plain.startswith(_SAVED) and not plain.startswith(_PUBLISHED):
        return f"{name[: len(name) - len(plain)]}{_PUBLISHED}{plain.removeprefix(_SAVED)}"
    return name
