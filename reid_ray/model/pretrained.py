"""Loading of pretrained encoders: a folder or hub name -> an Encoder, by what the folder holds.

Understood are the folders that training and tuning write (manifest.json), transformers' CLIP and SigLIP checkpoints, open_clip's CLIP,
and a checkpoint of IRRA's code (one .pth) beside CLIP's tokenizer. A tuned multimodal LLM has two features: FOLDER#latent and
FOLDER#visual name one, FOLDER alone the latent. Everything that can be missing is looked for first, and the error names it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal

from reid_ray.config.called import called
from reid_ray.config.paths import expanded
from reid_ray.errors import DataError
from reid_ray.model.dual.config import ModelConfig
from reid_ray.model.encoder import Encoder
from reid_ray.model.hub_access import Wanted, hub_folder, is_hub_name
from reid_ray.model.model_files import resolve_model
from reid_ray.records import SEEN_FILE
from reid_ray.storage import MANIFEST, read_manifest, read_object

# Of our own, of transformers, of open_clip, of a tuned multimodal LLM, of IRRA's code: the first that a repository has.
_FORMS = (
    "model*.safetensors",
    "pytorch_model*.bin",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
    "*.safetensors",
    "*.pth",
)
ENCODER_FILES = Wanted(beside=("*.json", "*.txt", SEEN_FILE), weights=_FORMS)
_TOKENIZER_FILES = Wanted(beside=("*.json", "*.txt"))
_TOKENIZERS = ("tokenizer.json", "vocab.json")
VISUAL: Final = "visual"
LATENT: Final = "latent"


def load_encoder(path: str | Path, *, device: str = "cpu", batch_size: int = 64) -> Encoder:
    """Load the encoder in folder `path`: one that training or tuning wrote, or a published CLIP or SigLIP checkpoint.

    Args:
        path: local folder (train's or tune's `model` folder, or a published one), or a hub name; see encoder_folder.
        device: torch device, "cpu" or "cuda:0".
        batch_size: pictures or texts per forward pass.

    Raises:
        DataError: the folder or a file in it is missing, its kind is unknown, its weights are not those that its configuration needs,
            or it holds another encoder than its manifest was written for.
    """
    from reid_ray.model.dual.dual_encoder import KIND, DualEncoder

    folder, feature = encoder_folder(path)
    if (folder / MANIFEST).is_file() and (folder / "model" / MANIFEST).is_file():
        raise DataError(f"{folder}: is a training run, not a model; give {folder / 'model'}")
    kind = read_manifest(folder).get("kind") if (folder / MANIFEST).is_file() else KIND
    if kind == "mllm":
        from reid_ray.model.mllm.mllm_encoder import load_mllm_encoder

        return load_mllm_encoder(folder, feature=feature or LATENT, device=device, batch_size=batch_size)
    if kind != KIND:
        raise DataError(
            f"{folder / MANIFEST}: kind is {kind!r}, but an encoder is {KIND!r} or 'mllm'; give a model folder of the train or the tune job"
        )
    if feature is not None:
        raise DataError(f"{path}: a dual encoder has one feature; drop #{feature}")
    encoder = DualEncoder(*_open_folder(folder, tokenizer_from=None)[:3], device=device, batch_size=batch_size)
    _refuse_other_content(folder, encoder.fingerprint)
    return encoder


def encoder_folder(
    path: str | Path, *, field: str | None = None, wanted: Wanted = ENCODER_FILES
) -> tuple[Path, Literal["visual", "latent"] | None]:
    """As split_encoder, with the folder that a hub name stands for on this machine: downloaded, if it is not there.

    Raises:
        DataError: there is no such folder, or the hub does not give it.
    """
    field = field or called("encoder")
    folder, feature = split_encoder(path)
    if folder.is_dir():
        return folder, feature
    if not is_hub_name(str(folder)):
        raise DataError(
            f"{field}: {folder} is no folder; give the model/ folder that the train or tune job wrote, or a hub name such as "
            "openai/clip-vit-base-patch16"
        )
    return hub_folder(str(folder), wanted, field=field), feature


def split_encoder(path: str | Path) -> tuple[Path, Literal["visual", "latent"] | None]:
    """FOLDER#visual or FOLDER#latent -> the folder and which feature; None where none is named. builtin:NAME is the folder that ships."""
    text = expanded(str(path))
    if text.startswith("builtin:"):
        return Path(resolve_model(text, field=called("encoder"))), None
    for feature in (VISUAL, LATENT):
        if text.endswith(f"#{feature}"):
            return Path(text.removesuffix(f"#{feature}")), feature
    return Path(text), None


def open_pretrained(config: ModelConfig) -> Any:
    """The weights of config.init as a DualEncoder for pictures, patches and texts of the size, stride and length in `config`.

    Raises:
        ConfigError: the model cannot have that size or length.
        DataError: the folder, a file in it, or the hub repository cannot be had; says which and what to do.
    """
    from dataclasses import replace

    from reid_ray.model.dual.architectures import family_of, with_image_size
    from reid_ray.model.dual.dual_encoder import KIND, DualEncoder, encoder_digest
    from reid_ray.model.dual.text_positions import with_text_length
    from reid_ray.model.dual.tokenizer import open_tokenizer

    folder = locate(config.init or "")
    model, tokenizer, transform, left_out = _open_folder(folder, tokenizer_from=config.tokenizer)
    if (folder / MANIFEST).is_file() and _read_json(folder / MANIFEST).get("kind") == KIND:
        own = tokenizer if config.tokenizer is None else open_tokenizer(folder, pads_to_context=family_of(model).pads_to_context)
        _refuse_other_content(folder, encoder_digest(model, own, transform))
    model = with_image_size(
        model, height=config.image_height, width=config.image_width, stride=config.patch_stride, mode=config.position_resize
    )
    if config.text_length is not None:
        model = with_text_length(model, config.text_length)
        tokenizer.model_max_length = config.text_length
    transform = replace(transform, height=config.image_height, width=config.image_width)
    return DualEncoder(model, tokenizer, transform, left_out=left_out)


def locate(name: str, *, field: str = "model.init", wanted: Wanted = ENCODER_FILES) -> Path:
    """The local folder of a dual encoder or of its tokenizer; see encoder_folder."""
    if Path(name).expanduser().is_file():
        raise DataError(f"{field} {name}: is a file; give the folder that holds it, and the tokenizer's files beside it")
    return encoder_folder(name, field=field, wanted=wanted)[0]


def _open_folder(folder: Path, *, tokenizer_from: str | None) -> tuple[Any, Any, Any, list[str]]:
    """Model, tokenizer, transform, and the names of weights that the folder holds beside the model's."""
    from reid_ray.model.dual.architectures import FAMILIES, family_of
    from reid_ray.model.dual.grid import image_size_of
    from reid_ray.model.dual.irra_weights import CHECKPOINT, checkpoint_in, load_irra
    from reid_ray.model.dual.open_clip_weights import OPEN_CLIP_FILES, load_open_clip
    from reid_ray.model.dual.tokenizer import open_tokenizer, refuse_lost_end
    from reid_ray.model.strict_loading import load_pretrained
    from reid_ray.model.weight_files import WEIGHT_FILES

    irra = checkpoint_in(folder)
    if irra is None:
        _require(folder, (*WEIGHT_FILES, *OPEN_CLIP_FILES), f"weights (or one {CHECKPOINT} of IRRA's code)")
    left_out: list[str] = []
    means: dict[str, Any] = {}
    if any((folder / name).is_file() for name in WEIGHT_FILES):
        _require(folder, ("config.json",), "the model's configuration")
        kind = _read_json(folder / "config.json").get("model_type")
        if kind not in FAMILIES:
            raise DataError(
                f"{folder / 'config.json'}: model_type is {kind!r}, but a dual encoder needs one of {sorted(FAMILIES)}; give a CLIP or "
                "SigLIP checkpoint (of SigLIP 2 those with a fixed resolution, not NaFlex)"
            )
        config = FAMILIES[kind].config_class.from_pretrained(folder)
        model = load_pretrained(FAMILIES[kind].model_class(config), folder, dtype="float32")
        if (folder / "preprocessor_config.json").is_file():
            means = _read_json(folder / "preprocessor_config.json")
    elif irra is None or any((folder / name).is_file() for name in OPEN_CLIP_FILES):
        model, means = load_open_clip(folder)
    else:
        model, left_out = load_irra(irra)
    tokens = locate(tokenizer_from, field="model.tokenizer", wanted=_TOKENIZER_FILES) if tokenizer_from is not None else folder
    pads_to_context = family_of(model).pads_to_context
    _require(tokens, _TOKENIZERS[:1] if pads_to_context else _TOKENIZERS, "a tokenizer (or set model.tokenizer)")
    height, width = image_size_of(model.config.vision_config)
    tokenizer = open_tokenizer(tokens, pads_to_context=pads_to_context)
    refuse_lost_end(tokenizer, model, origin=tokens)
    return model, tokenizer, _transform(height, width, means), left_out


def _refuse_other_content(folder: Path, fingerprint: str) -> None:
    """Refuse a folder whose manifest, if it has one, was written for another encoder."""
    written = _read_json(folder / MANIFEST).get("fingerprint") if (folder / MANIFEST).is_file() else None
    if written not in (None, fingerprint):
        raise DataError(
            f"{folder}: its weights, vocabulary or preprocessing were changed since it was written ({MANIFEST} names {written}, they are "
            f"{fingerprint}); copy the folder again, or remove {MANIFEST} to use it as it is"
        )


def _transform(height: int, width: int, means: dict[str, Any]) -> Any:
    from reid_ray.model.dual.preprocess import ImageTransform

    published = {"mean": tuple(means["image_mean"]), "std": tuple(means["image_std"])} if "image_mean" in means else {}
    return ImageTransform(height, width, **published)


def _require(folder: Path, names: tuple[str, ...], what: str) -> None:
    if not any((folder / name).is_file() for name in names):
        raise DataError(f"{folder}: holds no {' or '.join(names)}, so {what} is missing; copy the whole model folder again")


def _read_json(path: Path) -> dict[str, Any]:
    return read_object(path, remedy="copy the model folder again")
