"""One training step of a tiny Qwen2.5-VL, on the meta device or for real, alone or on two DeepSpeed workers that say what they held."""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function
from transformers import AutoConfig, AutoModelForImageTextToText

from reid_ray.model.mllm.config import MllmConfig
from reid_ray.model.mllm.families import family_of
from reid_ray.model.mllm.lora import set_trainable
from reid_ray.train.config import DeepSpeedConfig

TINY = Path(__file__).resolve().parents[2] / "reid_ray" / "assets" / "tiny_mllm"
ROWS = 8


def qwen(device: str, *, lora: bool, checkpointing: bool):
    config = AutoConfig.from_pretrained(TINY)
    config.text_config.num_hidden_layers, config.text_config.layer_types = 6, ["full_attention"] * 6
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
        if lora:
            set_trainable(model, family_of(config, origin="tiny"), MllmConfig())
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model.train()


def loss_of(model, device: str) -> torch.Tensor:
    config = model.config
    row = [config.vision_start_token_id, *[config.image_token_id] * 10, config.vision_end_token_id, *range(10, 70)]
    ids = torch.tensor([row] * ROWS)
    return model(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        pixel_values=torch.zeros(ROWS * 40, 3 * 2 * 14 * 14, device=device),
        image_grid_thw=torch.tensor([[1, 10, 4]] * ROWS),
        mm_token_type_ids=(ids == config.image_token_id).int(),
        labels=ids,
        use_cache=False,
    ).loss


class Step(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return loss_of(self.model, "cpu")


def worker(rank: int, port: int, found) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    from reid_ray.train.zero import ZeroEngine

    for stage in (0, 2, 3):
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
            module = Step(qwen("cpu", lora=True, checkpointing=stage == 3))
            weights = [weight for weight in module.parameters() if weight.requires_grad]
            optimizer = torch.optim.AdamW([{"params": weights, "factor": 1.0}], fused=True)
            config = DeepSpeedConfig(zero_stage=stage, persistence_threshold=0)
            engine = ZeroEngine(module, optimizer, config=config, clip_norm=1.0, batch_size=ROWS)
            for _ in range(2):
                with record_function("training step"):
                    engine.step(engine.forward({"rows": torch.zeros(ROWS)}), lr=1e-3)
        events = sorted(seen.profiler.kineto_results.events(), key=lambda event: event.start_ns())
        second = [event.start_ns() for event in events if event.name() == "training step"][1]
        alive = peak = 0
        for event in events:
            if event.name() == "[memory]":
                alive += event.nbytes()
                peak = max(peak, alive) if event.start_ns() >= second else peak
        if rank == 0:
            found.put(peak)
    dist.destroy_process_group()
