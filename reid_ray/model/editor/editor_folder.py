"""An editor on disk: a folder in diffusers' layout, with fusion.safetensors and manifest.json; opened, built anew, widened, saved.

    unet/ vae/ scheduler/            diffusers'; an editor of pixels has no vae/
    text_encoder/ tokenizer/         transformers'
    attribute_encoder/               transformers' CLIPVisionModelWithProjection
    fusion.safetensors               the fusion's weights
    model_index.json                 of Stable Diffusion, where there is a VAE: diffusers' own pipelines open the folder, too
    manifest.json                    mode, size, window and sampling

Knows folders, weights and configurations; not requests or training.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from reid_ray.errors import DataError
from reid_ray.model.editor.attribute_fusion import AttributeFusion
from reid_ray.model.editor.config import EditorModelConfig
from reid_ray.model.editor.edit_network import EditNetwork, Mode, in_channels
from reid_ray.model.editor.fresh_parts import fresh_attribute_encoder, fresh_text_encoder, fresh_unet
from reid_ray.model.editor.pixel_codec import Codec, LatentCodec, PatchCodec
from reid_ray.model.model_files import local_folder, refuse_other_weights, weights_digest
from reid_ray.model.strict_loading import load_diffusers, load_pretrained, load_state, no_progress_bars
from reid_ray.model.weight_files import read_state
from reid_ray.storage import MANIFEST, environment, read_manifest, read_object, write_json
from reid_ray.versions import check_json, numbered

KIND = "editor"
FUSION = "fusion.safetensors"
_PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler", "attribute_encoder")
_POSITION_IDS = ("text_model.embeddings.position_ids", "embeddings.position_ids")  # a buffer that older files hold


@dataclass(frozen=True)
class EditorShape:
    """What the weights alone do not say; fields of manifest.json.

    height, width, crop, context, padding, grow: see EditorModelConfig. patch: of an editor of pixels; None: it has a VAE.
    steps, guidance: how its maker draws with it.
    """

    mode: Mode
    height: int
    width: int
    crop: int
    context: int
    padding: float | None
    grow: int
    patch: int | None
    steps: int
    guidance: float


@dataclass(frozen=True)
class OpenEditor:
    """An editor in memory: its network, tokenizer, scheduler (diffusers' DDIM) and shape."""

    network: EditNetwork
    tokenizer: Any
    scheduler: Any
    shape: EditorShape


def open_editor(folder: str | Path, *, field: str = "editor") -> OpenEditor:
    """An editor that train_editor wrote, its weights in float32.

    Raises:
        DataError: the folder or a part of it is missing, or its weights are not those that its configuration needs.
    """
    folder = Path(folder)
    if not (folder / MANIFEST).is_file():
        raise DataError(f"{field} {folder}: holds no {MANIFEST}, so it is no editor; give the model folder that train_editor wrote")
    manifest = read_manifest(folder)
    if manifest.get("kind") != KIND:
        raise DataError(f"{field} {folder}: {MANIFEST} is of kind {manifest.get('kind')!r}, not {KIND!r}; give a folder of train_editor")
    check_json("editor", manifest, origin=folder / MANIFEST)
    shape = EditorShape(**{each.name: manifest[each.name] for each in fields(EditorShape)})
    codec = _codec(folder, shape.patch)
    text, attribute = _text_encoder(folder), _attribute_encoder(folder)
    fusion = AttributeFusion(text.config.hidden_size, attribute.config.projection_dim)
    load_state(fusion, {name: value.float() for name, value in read_state(folder / FUSION).items()}, origin=str(folder / FUSION))
    network = EditNetwork(text, attribute, fusion, _unet(folder), codec, mode=shape.mode)
    refuse_other_weights(folder, field=field)
    return OpenEditor(network.eval(), tokenizer_in(folder, shape.context), scheduler_in(folder), shape)


def start_editor(config: EditorModelConfig, texts: Iterable[str], *, seed: int, steps: int, guidance: float) -> OpenEditor:
    """The editor that training starts from: config.init with what it lacks made anew, or all of it built anew.

    Args:
        config: see EditorModelConfig.
        texts: prompts, from which a tokenizer is made where neither init nor attribute_encoder brings one.
        seed: of new weights.
        steps: of denoising, what the folder will recommend.
        guidance: the same.

    Raises:
        DataError: weights are missing or do not fit.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network, tokenizer, scheduler, patch = _anew(config, texts) if config.init is None else _from_published(config)
    shape = EditorShape(
        config.mode, config.height, config.width, config.crop, config.context, config.padding, config.grow, patch, steps, guidance
    )
    return OpenEditor(network.eval(), tokenizer, scheduler, shape)


def save_editor(opened: OpenEditor, folder: Path, facts: Mapping[str, Any], *, half: bool = False) -> None:
    """Write an editor; `facts` (how it was trained) go into its manifest."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    network, shape = opened.network, opened.shape
    dtype = torch.float16 if half else torch.float32
    parts = {"unet": network.unet, "text_encoder": network.text_encoder, "attribute_encoder": network.attribute_encoder}
    if isinstance(network.codec, LatentCodec):
        parts["vae"] = network.codec.vae
    with no_progress_bars():
        for name, part in parts.items():
            torch.nn.Module.to(part, dtype).save_pretrained(folder / name)  # diffusers' own method warns
            torch.nn.Module.to(part, torch.float32)
        opened.tokenizer.save_pretrained(folder / "tokenizer")
        opened.scheduler.save_pretrained(folder / "scheduler")
    save_file({name: value.to(dtype).contiguous() for name, value in network.fusion.state_dict().items()}, folder / FUSION)
    if shape.patch is None:
        write_json(folder / "model_index.json", _model_index(opened))
    write_json(
        folder / MANIFEST,
        {
            **numbered("editor"),
            "kind": KIND,
            **asdict(shape),
            "parameters": sum(weight.numel() for weight in network.parameters()),
            "facts": {**facts, "weights": weights_digest(folder)},
            "environment": environment(),
        },
    )


def scheduler_in(folder: Path | None) -> Any:
    """DDIM over the noise of a folder's scheduler, whatever sampler that is of, steps at the trailing ends; None: a cosine schedule, v."""
    from diffusers import DDIMScheduler

    drawing = {"timestep_spacing": "trailing", "clip_sample": False, "set_alpha_to_one": True}
    if folder is None:
        return DDIMScheduler(1000, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", **drawing)
    found = read_object(folder / "scheduler" / "scheduler_config.json", remedy="copy the whole model folder again")
    return DDIMScheduler.from_config({**found, **drawing})


def _model_index(opened: OpenEditor) -> dict[str, Any]:
    import diffusers

    return {
        "_class_name": "StableDiffusionInpaintPipeline" if opened.shape.mode == "inpaint" else "StableDiffusionPipeline",
        "_diffusers_version": diffusers.__version__,
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", type(opened.tokenizer).__name__],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
    }


def _anew(config: EditorModelConfig, texts: Iterable[str]) -> tuple[EditNetwork, Any, Any, int | None]:
    """An editor of pixels; text and image encoder from config.attribute_encoder where it is given."""
    codec = PatchCodec(config.scratch.patch)
    if config.attribute_encoder is None:
        text, tokenizer = fresh_text_encoder(config.scratch, texts, context=config.context)
        attribute = fresh_attribute_encoder(config.scratch, crop=config.crop)
    else:
        clip = _clip(config.attribute_encoder, crop=config.crop)
        text, tokenizer, attribute = clip.model.text_model, clip.tokenizer, _sight_of(clip.model)
    fusion = AttributeFusion(text.config.hidden_size, attribute.config.projection_dim)
    unet = fresh_unet(config.scratch, codec, config.mode, size=(config.height, config.width), prompt_width=text.config.hidden_size)
    return EditNetwork(text, attribute, fusion, unet, codec, mode=config.mode), tokenizer, scheduler_in(None), codec.patch


def _from_published(config: EditorModelConfig) -> tuple[EditNetwork, Any, Any, int | None]:
    """Stable Diffusion, or an editor of ours, in the mode and with the attribute encoder that the configuration asks for."""
    assert config.init is not None
    patterns = [f"{part}/{name}" for part in _PARTS for name in ("*.json", "*.txt", "*.safetensors")]
    folder = local_folder(config.init, field="model.init", patterns=["*.json", "*.safetensors", *patterns], without=["*.fp16.*", "v1-*"])
    ours = read_manifest(folder) if (folder / MANIFEST).is_file() else {}
    codec = _codec(folder, ours.get("patch"))
    text = _text_encoder(folder)
    if config.attribute_encoder is not None:
        attribute = _sight_of(_clip(config.attribute_encoder, crop=config.crop).model)
    elif (folder / "attribute_encoder").is_dir():
        attribute = _attribute_encoder(folder)
    else:
        raise DataError(
            f"model.init {config.init}: brings no attribute encoder; name a CLIP in model.attribute_encoder, such as "
            "openai/clip-vit-large-patch14 with Stable Diffusion 1.5"
        )
    fusion = AttributeFusion(text.config.hidden_size, attribute.config.projection_dim)
    if (folder / FUSION).is_file() and config.attribute_encoder is None:
        load_state(fusion, {name: value.float() for name, value in read_state(folder / FUSION).items()}, origin=str(folder / FUSION))
    unet = widened(_unet(folder), in_channels(codec, config.mode), origin=str(folder))
    patch = codec.patch if isinstance(codec, PatchCodec) else None
    network = EditNetwork(text, attribute, fusion, unet, codec, mode=config.mode)
    return network, tokenizer_in(folder, config.context), scheduler_in(folder), patch


def widened(unet: Any, channels: int, *, origin: str) -> Any:
    """The U-Net for more input channels: what is new begins at zero, so that at first it draws as before.

    Raises:
        DataError: it has more already.
    """
    own = int(unet.config.in_channels)
    if own == channels:
        return unet
    if own > channels:
        raise DataError(f"{origin}: its U-Net sees {own} channels, but the mode of model.mode needs {channels}; set model.mode to inpaint")
    old = unet.conv_in
    new = torch.nn.Conv2d(channels, old.out_channels, old.kernel_size, padding=old.padding)
    with torch.no_grad():
        new.weight.zero_()
        new.weight[:, :own] = old.weight
        new.bias.copy_(old.bias)
    unet.conv_in = new
    unet.register_to_config(in_channels=channels)
    return unet


def _codec(folder: Path, patch: int | None) -> Codec:
    if patch is not None:
        return PatchCodec(patch)
    from diffusers import AutoencoderKL

    return LatentCodec(load_diffusers(AutoencoderKL, folder / "vae"))


def _unet(folder: Path) -> Any:
    from diffusers import UNet2DConditionModel

    return load_diffusers(UNet2DConditionModel, folder / "unet")


def _text_encoder(folder: Path) -> Any:
    from transformers import CLIPTextModel

    # SD-1.5's file names its weights text_model.*, which transformers 5 no longer has in its class and strips while it loads.
    return load_pretrained(CLIPTextModel, folder / "text_encoder", not_known=_POSITION_IDS, dtype=torch.float32)


def _attribute_encoder(folder: Path) -> Any:
    from transformers import CLIPVisionModelWithProjection

    return load_pretrained(CLIPVisionModelWithProjection, folder / "attribute_encoder", dtype=torch.float32)


def tokenizer_in(folder: Path, context: int) -> Any:
    """The tokenizer of an editor; it cuts at `context` tokens, or sooner."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    tokenizer.model_max_length = min(context, tokenizer.model_max_length)
    return tokenizer


def _clip(name: str, *, crop: int) -> Any:
    """A CLIP as a DualEncoder for square crops of this side."""
    from reid_ray.model.dual.config import ModelConfig
    from reid_ray.model.pretrained import open_pretrained

    encoder = open_pretrained(ModelConfig(init=name, image_height=crop, image_width=crop))
    if encoder.model.config.model_type != "clip":
        raise DataError(f"model.attribute_encoder {name}: is a {encoder.model.config.model_type}, but an attribute encoder is a CLIP")
    return encoder


def _sight_of(clip: Any) -> Any:
    """The image encoder of a CLIP with its projection, in a class of its own."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    values = {**clip.config.vision_config.to_dict(), "projection_dim": clip.config.projection_dim}
    sight = CLIPVisionModelWithProjection(CLIPVisionConfig(**values))
    names = sight.state_dict().keys()
    sight.load_state_dict({name: value for name, value in clip.state_dict().items() if name in names})
    return sight.eval()
