"""Training steps on torch's meta device, one per job: the real module, the real losses and a batch of the largest size, without values.

Knows how the jobs build their modules; not how memory is counted or shared.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image
from torch import nn

from reid_ray.model.recompute import checkpoint_layers
from reid_ray.train.dual.config import TrainJob
from reid_ray.train.editor.config import TrainEditorJob
from reid_ray.train.memory.config import MemoryJob
from reid_ray.train.memory.dry_run import parameter_sizes, trace_step
from reid_ray.train.memory.estimate import ParameterCounts, PeakBytes
from reid_ray.train.mllm.config import TuneJob


def train_step(
    config: TrainJob, plan: MemoryJob, *, batch: int, checkpointing: bool, keep_gradients: bool
) -> tuple[ParameterCounts, PeakBytes]:
    """Weights and step of a dual encoder; texts as long as the model reads."""
    from reid_ray.model.dual.architectures import family_of
    from reid_ray.model.dual.clip import clip_from_scratch
    from reid_ray.model.pretrained import open_pretrained
    from reid_ray.train.dual.towers import LossHeads, TwoTowers
    from reid_ray.train.losses.logit_scale import LogitScale
    from reid_ray.train.losses.objective import build_objective

    model, shape = config.model, config.model.scratch
    encoder: Any
    if model.init is not None:
        encoder = open_pretrained(model)
        encoder.model.to("meta")
    else:
        end_id = shape.vocab_size - 1
        with torch.device("meta"):
            clip = clip_from_scratch(
                shape,
                height=model.image_height,
                width=model.image_width,
                vocab_size=shape.vocab_size,
                end_id=end_id,
                stride=model.patch_stride,
                seed=0,
            )
        # No DualEncoder: its tokenizer would need texts, and its fingerprint values.
        encoder = SimpleNamespace(model=clip, family=family_of(clip), tokenizer=SimpleNamespace(eos_token_id=end_id))
    text, dim = encoder.model.config.text_config, encoder.family.dim(encoder.model.config)
    with torch.device("meta"):
        heads = LossHeads(config.objective, dim=dim, persons=plan.persons, vocab_size=text.vocab_size)
        scale = LogitScale(0.0) if config.objective.infonce.learns_scale else None
    module = TwoTowers(encoder, heads, chunk=config.batches.chunk, depth=config.masking.depth, scale=scale)
    if checkpointing:
        checkpoint_layers(encoder.model)
    module.train().to(_dtype(config))
    objective = build_objective(config.objective)
    person_A = torch.arange(batch) // 2 % plan.persons

    def step() -> torch.Tensor:
        pixels = torch.empty(batch, 3, model.image_height, model.image_width, device="meta", dtype=_dtype(config))
        inputs = {"pixel_values": pixels, "input_ids": torch.full((batch, text.max_position_embeddings), encoder.tokenizer.eos_token_id)}
        if config.masking.kind == "nam":
            inputs["full_ids"] = inputs["input_ids"]
        if config.objective.irr.weight:
            inputs["irr_targets"] = torch.ones_like(inputs["input_ids"])
        if config.masking.masked_for == "irr":
            inputs["masked_ids"] = inputs["input_ids"]
        return objective(module(**inputs), person_A).total

    return _traced(module, step, config, vocabulary=text.vocab_size, keep_gradients=keep_gradients)


def tune_step(
    config: TuneJob, plan: MemoryJob, *, batch: int, checkpointing: bool, keep_gradients: bool
) -> tuple[ParameterCounts, PeakBytes]:
    """Weights and step of a multimodal LLM: crops of plan's size, captions and answers as long as the configuration lets them be."""
    import transformers

    from reid_ray.model.mllm.families import family_of
    from reid_ray.model.mllm.forward import Mllm
    from reid_ray.model.mllm.inputs import Chat
    from reid_ray.model.mllm.lora import set_trainable
    from reid_ray.model.mllm.model_folder import locate_base, processor_of, shape_of
    from reid_ray.train.mllm.module import CAPTION, IMAGE, SyncReid, inputs_of
    from reid_ray.train.mllm.objective import build_tune_objective

    folder = locate_base(config.model, weights=False)
    shape = shape_of(folder)
    family = family_of(shape, origin=f"model.base {config.model.base}")
    chat = Chat(processor_of(config.model, folder, shape), context=shape.text_config.max_position_embeddings)
    with torch.device("meta"):
        model = getattr(transformers, family.model_class)(shape)
        set_trainable(model, family, config.model)
        module = SyncReid(Mllm(model), config.objective, persons=plan.persons, gather=lambda feature_AD: (feature_AD, 0))
    if checkpointing:
        checkpoint_layers(model)
    module.train().to(_dtype(config))
    objective = build_tune_objective(config.objective)
    person_A = torch.arange(batch) // 2 % plan.persons
    caption = _text_of(config.captions.max_tokens, chat)
    instruction = max(config.instruction.texts, key=chat.count_tokens)
    crops = [Image.new("RGB", (plan.crop_width, plan.crop_height))] * batch
    texts, asked = [caption] * batch, [instruction] * batch
    answers = texts if config.objective.answers else None
    inputs = inputs_of(chat.picture_turns(crops, asked, answers), IMAGE)
    if config.objective.reads_captions:
        inputs |= inputs_of(chat.caption_turns(texts, asked, answers), CAPTION)
    inputs = {name: value.to("meta") if value.is_floating_point() else value for name, value in inputs.items()}

    def step() -> torch.Tensor:
        return objective(module(**inputs), person_A).total

    return _traced(module, step, config, vocabulary=shape.text_config.vocab_size, keep_gradients=keep_gradients)


def editor_step(
    config: TrainEditorJob, plan: MemoryJob, *, batch: int, checkpointing: bool, keep_gradients: bool
) -> tuple[ParameterCounts, PeakBytes]:
    """Weights and step of an editor: prompts as long as it reads, as many references as an edit takes. Nothing is recomputed in it.

    An editor that is built anew makes its tokenizer from captions, which a plan has not; its vocabulary counts for little.
    """
    from reid_ray.model.editor.edit_request import MOST_REFERENCES
    from reid_ray.model.editor.editor_folder import start_editor
    from reid_ray.train.editor.objective import EditObjective
    from reid_ray.train.editor.worker_parts import build_module

    assert not checkpointing
    drawing = config.drawing
    opened = start_editor(config.model, ["a person"], seed=0, steps=drawing.steps, guidance=drawing.guidance)
    module = build_module(config, opened, values={"color": 16}).to("meta").to(_dtype(config))
    objective, shape, codec = EditObjective(config.objective), opened.shape, opened.network.codec
    grid, references = (shape.height // codec.pixels, shape.width // codec.pixels), (batch, MOST_REFERENCES)

    def step() -> torch.Tensor:
        inputs = {
            "pictures": torch.empty(batch, 3, shape.height, shape.width, device="meta"),
            "masks": torch.empty(batch, 1, shape.height, shape.width, device="meta"),
            "segments": torch.ones(*references, shape.height, shape.width, dtype=torch.bool),
            "tokens": torch.zeros(batch, shape.context, dtype=torch.long),
            "crops": torch.empty(*references, 3, shape.crop, shape.crop, device="meta"),
            "positions": torch.arange(MOST_REFERENCES).expand(references),
            "given": torch.ones(references, dtype=torch.bool),
            "values": torch.zeros(*references, 1, dtype=torch.long),
            "timesteps": torch.zeros(batch, dtype=torch.long),
            "noise": torch.empty(batch, codec.channels, *grid, device="meta"),
            "inside": torch.ones(batch, dtype=torch.bool),
            "dropped": torch.zeros(batch, dtype=torch.bool),
            "empty": torch.zeros(1, shape.context, dtype=torch.long),
        }
        return objective(module(**inputs), torch.zeros(batch, dtype=torch.long)).total

    return _traced(module, step, config, vocabulary=None, keep_gradients=keep_gradients)


def _text_of(tokens: int, chat: Any) -> str:
    """A text of at least so many tokens."""
    words = ["person"]
    while chat.count_tokens(" ".join(words)) < tokens:
        words += words
    while chat.count_tokens(" ".join(words[:-1])) >= tokens:
        words.pop()
    return " ".join(words)


def _traced(
    module: nn.Module, step: Any, config: Any, *, vocabulary: int | None, keep_gradients: bool
) -> tuple[ParameterCounts, PeakBytes]:
    held = trace_step(module, step, vocabulary=vocabulary, keep_gradients=keep_gradients)
    trained, frozen = parameter_sizes(module)
    whole = sum(size for size in (*trained, *frozen) if size < config.engine.persistence_threshold)
    return ParameterCounts(sum(trained), sum(frozen), whole), PeakBytes(held.activations, held.logits, held.gradients)


def _dtype(config: Any) -> torch.dtype:
    return torch.bfloat16 if config.engine.precision == "bf16" else torch.float32
