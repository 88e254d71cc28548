"""Tuning as one plain torch process does it: transformers' own forward and loss, torch's batch norm, no Ray or DeepSpeed."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch.nn import functional

from reid_ray.config.base import load_config
from reid_ray.config.common import SyntheticConfig
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.model.mllm.inputs import Chat
from reid_ray.model.mllm.model_folder import ADAPTER, HEADS, TRAINED, open_mllm
from reid_ray.records import CAPTIONS, IMAGES
from reid_ray.storage import Counts, TableWriter
from reid_ray.train.mllm.config import TuneJob
from reid_ray.train.mllm.instruction_feed import InstructionFeed
from reid_ray.train.mllm.job import MllmRecipe
from reid_ray.train.mllm.worker_parts import build_module
from reid_ray.train.recipe import DATA

PEOPLE = SyntheticConfig(identities=14, images_per_identity=2, val_share=0.2, test_share=0.2)


def write_people(folder: Path) -> Path:
    made = SyntheticPeople(PEOPLE)
    with TableWriter(folder / "images", IMAGES) as images, TableWriter(folder / "captions", CAPTIONS) as captions:
        images.append(made.image_table())
        captions.append(made.caption_table())
    return folder


def job(people: Path, out: Path, *overrides: str) -> TuneJob:
    values = [
        f"images.path={people}/images",
        "images.val_split=null",
        f"captions.paths=[{people}/captions]",
        f"output.path={out}",
        "model.lora={rank: 4, alpha: 8, llm: [q_proj, v_proj, down_proj]}",
        "batches.size=8",
        "batches.samples_per_identity=2",
        "batches.crop_padding=4",
        "optimizer.name=adamw",
        "optimizer.lr=0.002",
        "optimizer.weight_decay=0.05",
        # Where a gradient is rounding noise, Adam with a tiny eps turns its sign into a step of full size.
        "optimizer.eps=0.0001",
        "schedule.epochs=20",
        "schedule.max_steps=4",
        "schedule.log_every=1",
        "workers.count=2",
        "workers.num_cpus=0.5",
        "engine.persistence_threshold=0",
        *overrides,
    ]
    return load_config(TuneJob, None, values)


def plain_torch_run(config: TuneJob, folder: Path) -> tuple[list[float], dict[str, torch.Tensor]]:
    """One process: transformers' own forward and loss, torch's batch norm, no Ray, DeepSpeed, gathering or loss of the package."""
    torch.set_num_threads(1)
    folder.mkdir(exist_ok=True)
    MllmRecipe(config).prepare(folder, Counts())
    opened = open_mllm(config.model, seed=config.batches.seed)
    model, family, image_token = opened.mllm.model, opened.mllm.family, opened.mllm.image_token
    feed = InstructionFeed(folder / DATA, config, chat=Chat(opened.processor, context=opened.mllm.context), rank=0, world=1)
    module = build_module(config, opened, persons=feed.persons)  # for the heads' first weights
    heads = dict(module.heads.named_parameters())
    running = {name: value.clone() for name, value in module.heads.named_buffers()}
    trained = {name: weight for name, weight in module.named_parameters() if weight.requires_grad}
    optimizer = torch.optim.AdamW(
        [
            {"params": [weight], "weight_decay": 0.05 if weight.ndim > 1 else 0.0, "factor": 5.0 if name.startswith("heads.") else 1.0}
            for name, weight in trained.items()
        ],
        eps=1e-4,
    )
    steps, losses, last = config.schedule.max_steps, [], config.objective.pooling == "last"
    for step in range(steps):
        batch = feed.make(step)
        own = batch.inputs
        pictures = {name: own[name] for name in ("pixel_values", "image_grid_thw") if name in own}
        marks = {"mm_token_type_ids": (own["image_ids"] == image_token).int()} if "image_grid_thw" in own else {}
        seen = model(
            input_ids=own["image_ids"],
            attention_mask=own["image_mask"],
            labels=own["image_labels"],
            output_hidden_states=True,
            **pictures,
            **marks,
        )
        read = model(
            input_ids=own["caption_ids"], attention_mask=own["caption_mask"], labels=own["caption_labels"], output_hidden_states=True
        )
        latent = _pooled(seen.hidden_states[-1], own["image_shown"], heads.get("pool.query"), last=last)
        text = _pooled(read.hidden_states[-1], own["caption_shown"], heads.get("pool.query"), last=last)
        visual = _visual(model, family, pictures)
        loss = seen.loss + read.loss
        for name, feature in (("latent", latent), ("visual", visual)):
            if not getattr(config.objective, f"{name}_id").weight:
                continue
            logits = functional.batch_norm(
                feature,
                running[f"identity.{name}.neck.mean"],
                running[f"identity.{name}.neck.var"],
                weight=heads[f"identity.{name}.neck.weight"],
                training=True,
            )
            logits = logits @ heads[f"identity.{name}.classify.weight"].T
            loss = loss + functional.cross_entropy(logits, batch.person_A, label_smoothing=0.1) + _batch_hard(feature, batch.person_A)
        if config.objective.sdm.weight:
            loss = loss + _sdm(latent, text, batch.person_A)
        warmup = round(0.1 * steps)
        lr = 0.002 * ((step + 1) / warmup if step < warmup else 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))))
        for group in optimizer.param_groups:
            group["lr"] = lr * group["factor"]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.values(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    weights = {name.removeprefix("mllm.model.").removeprefix("heads."): weight.detach() for name, weight in trained.items()}
    return losses, weights | running


def _pooled(hidden, shown, query, *, last):
    rows = []
    for states, mask in zip(hidden, shown, strict=True):
        kept = states[mask][-1:] if last else states[mask]
        weight = torch.full((len(kept),), 1 / len(kept)) if query is None else (kept @ query / kept.shape[1] ** 0.5).softmax(0)
        rows.append(weight @ kept)
    return torch.stack(rows)


def _visual(model, family, pictures):
    visual = family.part(model, family.visual)
    if "image_grid_thw" not in pictures:
        return visual(pictures["pixel_values"]).pooler_output
    norm = visual.merger.ln_q if hasattr(visual.merger, "ln_q") else visual.merger.norm
    patches = norm(visual(pictures["pixel_values"], grid_thw=pictures["image_grid_thw"]).last_hidden_state)
    return torch.stack([part.mean(0) for part in patches.split(pictures["image_grid_thw"].prod(1).tolist())])


def _batch_hard(feature, person):
    unit = feature / feature.norm(dim=1, keepdim=True)
    costs = []
    for a in range(len(unit)):
        far = torch.stack([(unit[a] - unit[c]).norm() for c in range(len(unit)) if person[c] != person[a]]).min()
        near = torch.stack([(unit[a] - unit[c]).norm() for c in range(len(unit)) if person[c] == person[a] and c != a]).max()
        costs.append((near - far + 0.3).clamp_min(0))
    return torch.stack(costs).mean()


def _sdm(image, text, person):
    cosine = (image / image.norm(dim=1, keepdim=True)) @ (text / text.norm(dim=1, keepdim=True)).T
    same = (person[:, None] == person[None]).float()
    target = same / same.sum(1, keepdim=True)
    return sum((p * torch.log(p / (target + 1e-8))).sum(1).mean() for p in ((cosine / 0.02).softmax(1), (cosine.T / 0.02).softmax(1)))


def weights_in(model: Path) -> dict[str, torch.Tensor]:
    adapter = load_file(model / ADAPTER / "adapter_model.safetensors")
    weights = {name.removeprefix("base_model.model.").replace(".weight", ".default.weight"): value for name, value in adapter.items()}
    return weights | load_file(model / TRAINED) | load_file(model / HEADS)


def assert_same(result, expected) -> None:
    np.testing.assert_allclose(result[0], expected[0], rtol=2e-5)
    assert set(result[1]) == set(expected[1])
    for name, weight in expected[1].items():
        # A 40th of one Adam step: plain torch differs from itself by 1.6e-5 with other kernels (ATEN_CPU_CAPABILITY=default).
        torch.testing.assert_close(result[1][name], weight, rtol=1e-3, atol=5e-5, msg=lambda text, at=name: f"{at}: {text}")
