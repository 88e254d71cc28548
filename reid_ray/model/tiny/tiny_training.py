"""Training of the tiny multimodal LLM on an endless stream of synthetic people: supervised vision pre-training, then instruction tuning.

First the vision encoder alone learns to classify attributes, then the whole model learns to answer. The first phase is needed, since
next-token loss alone leaves the pictures unread for thousands of steps. Knows training pairs, preprocessing and loops; not where the
result is stored or how vLLM serves it.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from reid_ray.config.common import SyntheticConfig
from reid_ray.data.images import decode_image, encode_jpeg
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.data.synthetic.traits import ATTRIBUTES, draw_people
from reid_ray.model.model_files import resolve_model
from reid_ray.model.plain_text import chat_tokens, plain_tokens
from reid_ray.model.tiny.config import TinyMllmTrainingConfig
from reid_ray.model.tiny.tasks import PLAIN_INSTRUCTIONS, answer
from reid_ray.model.tiny.tiny_mllm import build_tiny_mllm
from reid_ray.progress import progress_bar
from reid_ray.storage import MANIFEST

_IGNORED = -100  # a label that the loss skips
_PRETRAINING_SEEDS = 500_000  # offset of the pre-training's people from those of instruction tuning, so that none is in both
_LARGE_EVERY = 6  # one set in six is drawn larger, so that another grid of image tokens is no surprise


def train_tiny_mllm(
    folder: str | Path, config: TinyMllmTrainingConfig, *, seed: int, instructions: Sequence[str]
) -> list[tuple[int, float]]:
    """Build a random model in `folder`, or copy config.init there, train it and save it in bfloat16.

    Args:
        folder: see build_tiny_mllm.
        config: length, rate and people.
        seed: of weights, tokenizer and training pairs.
        instructions: long prompts to answer besides PLAIN_INSTRUCTIONS; those with a template in them by filling it in.

    Returns:
        (step, mean loss over the last 100 steps) every 100 steps.
    """
    import torch
    from transformers import AutoImageProcessor, AutoTokenizer, Qwen2_5_VLForConditionalGeneration

    from reid_ray.model.strict_loading import load_pretrained

    torch.set_num_threads(config.threads)
    folder = build_tiny_mllm(folder, seed, instructions) if config.init is None else _copied(config.init, Path(folder))
    tokenizer, processor = AutoTokenizer.from_pretrained(folder), AutoImageProcessor.from_pretrained(folder)
    model = load_pretrained(Qwen2_5_VLForConditionalGeneration, folder, dtype=torch.float32, attn_implementation="sdpa").train()
    _pretrain_vision(model.model.visual, config, seed, processor)
    vision = list(model.model.visual.parameters())
    of_vision = {id(parameter) for parameter in vision}
    groups = [
        {"params": [parameter for parameter in model.parameters() if id(parameter) not in of_vision], "lr": config.learning_rate},
        {"params": vision, "lr": config.learning_rate / 4},
    ]
    run = _OneCycleAdamW(groups, config.steps)
    history: list[tuple[int, float]] = []
    recent: list[float] = []
    batches = _batches(config, seed, instructions, tokenizer, processor)
    with progress_bar("answer", config.steps, unit="step") as bar:
        for step, batch in zip(range(1, config.steps + 1), batches, strict=False):
            recent.append(run.step(model(**batch).loss))
            if step % 100 == 0 or step == config.steps:
                history.append((step, round(float(np.mean(recent)), 4)))
                bar.set_postfix_str(f"loss {history[-1][1]:.3f}")
                recent = []
            bar.update(1)
    model.to(torch.bfloat16).save_pretrained(folder)
    return history


def _copied(init: str, folder: Path) -> Path:
    """The model's files of the folder that `init` names, without what says how they were made."""
    shutil.copytree(resolve_model(init, field="training.init"), folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST))
    return folder


class _OneCycleAdamW:
    """AdamW under a one-cycle schedule, gradients clipped at norm 1."""

    def __init__(self, groups: list[dict[str, Any]], steps: int) -> None:
        import torch

        self._parameters = [parameter for group in groups for parameter in group["params"]]
        self._clip = torch.nn.utils.clip_grad_norm_
        self._optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.01)
        peaks = [group["lr"] for group in groups]
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(self._optimizer, peaks, total_steps=steps, pct_start=0.1)

    def step(self, loss: Any) -> float:
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._clip(self._parameters, 1.0)
        self._optimizer.step()
        self._schedule.step()
        return float(loss.detach())


def _pretrain_vision(visual: Any, config: TinyMllmTrainingConfig, seed: int, processor: Any) -> None:
    """Supervised pre-training of the vision encoder, in place: linear classifiers of all attributes over its image tokens, then dropped."""
    import torch

    if not config.sight_steps:
        return
    torch.manual_seed(seed)
    tokens = (140 // 28) * (56 // 28)  # what the preprocessing makes of a 128x64 crop
    width = visual.config.out_hidden_size * tokens
    heads = torch.nn.ModuleDict({name: torch.nn.Linear(width, len(values)) for name, values in ATTRIBUTES.items()})
    run = _OneCycleAdamW([{"params": [*visual.parameters(), *heads.parameters()], "lr": config.learning_rate}], config.sight_steps)
    step, recent = 0, []
    with progress_bar("see", config.sight_steps, unit="step") as bar:
        for pictures, people in _sets(config, first_seed=config.first_seed + _PRETRAINING_SEEDS, large_every=0):
            code = draw_people(people.config.seed, people.shots().person_N).codes
            for first in range(0, len(pictures), config.batch_size):
                rows = slice(first, first + config.batch_size)
                pixels = processor(images=pictures[rows], return_tensors="pt")
                seen = visual(pixels["pixel_values"], grid_thw=pixels["image_grid_thw"]).pooler_output
                seen_ND = torch.cat(list(seen)).reshape(-1, width) if isinstance(seen, tuple | list) else seen.reshape(-1, width)
                losses = [torch.nn.functional.cross_entropy(heads[name](seen_ND), torch.as_tensor(code[name][rows])) for name in ATTRIBUTES]
                recent.append(run.step(torch.stack(losses).sum()))
                step += 1
                bar.update(1)
                if step % 100 == 0:
                    bar.set_postfix_str(f"loss {np.mean(recent[-100:]):.2f}")
                if step == config.sight_steps:
                    return


def _sets(config: TinyMllmTrainingConfig, *, first_seed: int, large_every: int) -> Iterator[tuple[list[Image.Image], SyntheticPeople]]:
    """Endless sets of new people in new streets, as decoded JPEG; every `large_every`-th set is drawn larger."""
    for number in range(1 << 30):
        large = large_every > 0 and number % large_every == large_every - 1
        size = {"height": 224, "width": 112} if large else {"height": 128, "width": 64}
        people = SyntheticPeople(SyntheticConfig(identities=config.people_per_set, images_per_identity=1, seed=first_seed + number, **size))
        yield [decode_image(encode_jpeg(Image.fromarray(pixels))) for pixels in people.pictures()], people


def _batches(
    config: TinyMllmTrainingConfig, seed: int, instructions: Sequence[str], tokenizer: Any, processor: Any
) -> Iterator[dict[str, Any]]:
    """Endless batches for the model's forward: every picture is seen once."""
    rng = random.Random(seed)
    step = 0
    for pictures, people in _sets(config, first_seed=config.first_seed, large_every=_LARGE_EVERY):
        attributes, hidden = people.attributes(), people.hidden()
        for first in range(0, len(pictures), config.batch_size):
            rows = range(first, min(first + config.batch_size, len(pictures)))
            short = step < config.plain_until * config.steps or rng.random() < 0.2
            # Prompts of one batch are of one kind, so that little of it is padding.
            asked = [rng.choice(PLAIN_INSTRUCTIONS if short else instructions or PLAIN_INSTRUCTIONS) for _ in rows]
            answers = [answer(text, attributes[row], hidden[row]) for text, row in zip(asked, rows, strict=True)]
            yield collate([pictures[row] for row in rows], asked, answers, tokenizer, processor)
            step += 1


def collate(
    pictures: Sequence[Image.Image], asked: Sequence[str], answers: Sequence[str], tokenizer: Any, processor: Any
) -> dict[str, Any]:
    """Pictures, instructions and answers -> the arguments of Qwen2_5_VLForConditionalGeneration.forward, padded on the right."""
    import torch

    pixels = processor(images=list(pictures), return_tensors="pt")
    merge = processor.merge_size**2
    image_token = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    rows, labels = [], []
    for text, reply, grid in zip(asked, answers, pixels["image_grid_thw"], strict=True):
        content = [{"type": "image"}, {"type": "text", "text": text}]
        prompt = tokenizer.apply_chat_template([{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True)
        prompt = prompt.replace("<|image_pad|>", "<|image_pad|>" * (int(grid.prod()) // merge))
        prompt_ids = chat_tokens(tokenizer, prompt).input_ids
        reply_ids = [*plain_tokens(tokenizer, [reply]).input_ids[0], tokenizer.eos_token_id]
        rows.append(torch.tensor(prompt_ids + reply_ids))
        labels.append(torch.tensor([_IGNORED] * len(prompt_ids) + reply_ids))
    input_ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id)
    lengths = torch.tensor([len(row) for row in rows])
    return {
        "input_ids": input_ids,
        "attention_mask": (torch.arange(input_ids.shape[1]) < lengths[:, None]).long(),
        "labels": torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=_IGNORED),
        "mm_token_type_ids": (input_ids == image_token).int(),
        "pixel_values": pixels["pixel_values"],
        "image_grid_thw": pixels["image_grid_thw"],
    }
