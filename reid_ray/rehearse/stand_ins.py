"""Tiny models of the same classes in the place of published ones: openai/clip-vit-base-patch16 becomes a CLIPModel of half a million
parameters in a folder of that name, which every job takes for the hub's.

Knows hub names by what they hold, and folders; not configurations. Random weights but for the tiny Qwen2.5-VL that ships and the language
and sentence models that set-up prepares.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

from reid_ray.config.common import SyntheticConfig
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.errors import ConfigError
from reid_ray.model.model_files import resolve_model
from reid_ray.storage import MANIFEST

Builder = Callable[[str, Path], None]  # (hub name, folder to make)


def _built_in(name: str) -> Builder:
    def link(_: str, folder: Path) -> None:
        folder.symlink_to(resolve_model(f"builtin:{name}"), target_is_directory=True)

    return link


def _clip(name: str, folder: Path) -> None:
    """CLIP at its own 224 x 224, with the patch that the name says, 77 tokens and a tokenizer of synthetic captions."""
    from reid_ray.model.dual.clip import clip_from_scratch
    from reid_ray.model.dual.config import ScratchConfig
    from reid_ray.model.dual.tokenizer import train_tokenizer

    patch = re.search(r"patch-?(\d+)", name)
    shape = ScratchConfig(
        patch_size=int(patch[1]) if patch else 16,
        vision_width=64,
        vision_layers=2,
        text_width=64,
        text_layers=2,
        embed_dim=64,
    )
    tokenizer = train_tokenizer(_words(), vocab_size=shape.vocab_size, context=shape.context)
    model = clip_from_scratch(shape, height=224, width=224, vocab_size=len(tokenizer), end_id=tokenizer.eos_token_id, seed=0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _siglip(_: str, folder: Path) -> None:
    from reid_ray.model.tiny.tiny_siglip import build_tiny_siglip

    build_tiny_siglip(folder, _words())


def _words() -> list[str]:
    people = SyntheticPeople(SyntheticConfig(identities=64, images_per_identity=1))
    return [text for pair in people.captions() for text in pair]


_SENTENCE = "The person has short black hair and wears a red coat, blue trousers with white shoes."


def _llava(_: str, folder: Path) -> None:
    """Random weights answer nothing that the filters let pass, so it says one sentence to every picture."""
    from reid_ray.model.tiny.tiny_llava import build_tiny_llava

    build_tiny_llava(folder, says=_SENTENCE)


def _smolvlm(_: str, folder: Path) -> None:
    from reid_ray.model.tiny.tiny_smolvlm import build_tiny_smolvlm

    build_tiny_smolvlm(folder, says=_SENTENCE)


def _qwen3_vl(_: str, folder: Path) -> None:
    from reid_ray.model.tiny.tiny_qwen3_vl import build_tiny_qwen3_vl

    build_tiny_qwen3_vl(folder)


def _sam(_: str, folder: Path) -> None:
    from reid_ray.model.tiny.tiny_sam import build_tiny_sam

    build_tiny_sam(folder)


def _rtdetr(_: str, folder: Path) -> None:
    from reid_ray.model.tiny.tiny_rtdetr import build_tiny_rtdetr

    build_tiny_rtdetr(folder)


def _stable_diffusion(_: str, folder: Path) -> None:
    from reid_ray.model.editor.fresh_parts import build_stable_diffusion

    build_stable_diffusion(folder, _words())


# What a name says of the class, the first that fits. A hub's own config.json would say it, too, but a rehearsal needs no hub.
STAND_INS: dict[str, Builder] = {
    r"llava": _llava,
    r"smolvlm": _smolvlm,
    r"qwen2\.?5-?vl": _built_in("tiny-mllm"),
    r"qwen3-?vl": _qwen3_vl,
    r"minilm|sentence-transformers|bge-": _built_in("minilm-l6-v2"),
    r"vicuna|llama|smollm|instruct": _built_in("smollm2-135m-instruct"),
    r"segformer|human-pars": _built_in("tiny-parser"),
    r"/sam[-_]": _sam,
    r"rtdetr|d-?fine|/detr|yolos": _rtdetr,
    r"siglip": _siglip,
    r"stable-diffusion": _stable_diffusion,
    r"clip": _clip,
}


_OF_A_MODEL = ("config.json", "open_clip_config.json", "tokenizer.json", "vocab.json")
# model_type in a folder's config.json -> a hub name of that class.
_OF_TYPE = {
    "clip": "openai/clip-vit-base-patch16",
    "siglip": "google/siglip-base-patch16-224",
    "llava": "llava-hf/llava-1.5-7b-hf",
    "idefics3": "HuggingFaceTB/SmolVLM-500M-Instruct",
    "qwen2_5_vl": "Qwen/Qwen2.5-VL-7B-Instruct",
    "qwen3_vl": "Qwen/Qwen3-VL-8B-Instruct",
    "segformer": "mattmdjaga/segformer_b2_clothes",
    "sam": "facebook/sam-vit-base",
    "rt_detr": "PekingU/rtdetr_r18vd",
    "bert": "sentence-transformers/all-MiniLM-L6-v2",
    "llama": "lmsys/vicuna-7b-v1.5",
    "qwen2": "Qwen/Qwen2.5-7B-Instruct",
}


def stand_in(name: str, folder: Path) -> str:
    """Make `folder`, if it is not there, the stand-in for the hub's model `name`; returns what it is, in words.

    Raises:
        ConfigError: nothing is known that is of its class.
    """
    fitting = next((builder for pattern, builder in STAND_INS.items() if re.search(pattern, name, re.IGNORECASE)), None)
    if fitting is None:
        raise ConfigError(f"{name}: no tiny model of its class is known; add a line to STAND_INS in reid_ray/rehearse/stand_ins.py")
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        fitting(name, folder)
    return _in_words(folder)


def holds_model(place: Path) -> bool:
    """Whether a folder is a model or a tokenizer that some job can load: of transformers, of open_clip, or a checkpoint of IRRA's code."""
    return any((place / name).is_file() for name in _OF_A_MODEL) or any(place.glob("*.pth"))


def stand_in_of_folder(place: Path, folder: Path) -> str:
    """Make `folder` the stand-in for a model that lies at `place`; an encoder that a job of ours wrote is read as it is.

    Raises:
        ConfigError: its class has none.
    """
    described = place / "config.json"  # what has none is CLIP's: open_clip's, IRRA's, or a tokenizer alone
    kind = str(json.loads(described.read_text(encoding="utf-8")).get("model_type")) if described.is_file() else "clip"
    if (place / MANIFEST).is_file():
        link_files(place.resolve(), folder)
        return _in_words(folder)
    if kind not in _OF_TYPE:
        raise ConfigError(f"{place}: no tiny model of model_type {kind} is known; add a line to _OF_TYPE in reid_ray/rehearse/stand_ins.py")
    return stand_in(_OF_TYPE[kind], folder)


def link_files(place: Path, folder: Path) -> None:
    """A folder of links rather than a link to the folder: what a job replaces in it, as migrate does, is not replaced at `place`."""
    for parent, _, names in os.walk(place):
        here = folder / Path(parent).relative_to(place)
        here.mkdir()
        for name in names:
            (here / name).symlink_to(Path(parent, name))


def _in_words(folder: Path) -> str:
    size = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
    if (folder / "model_index.json").is_file():
        return f"{json.loads((folder / 'model_index.json').read_text(encoding='utf-8'))['_class_name']}, weights of {size / 1e6:.1f} MB"
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return f"{(config.get('architectures') or [config.get('model_type')])[0]}, weights of {size / 1e6:.1f} MB"
