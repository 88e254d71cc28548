"""What a log line says: rates without the time spent elsewhere, operations as counted by hand, the device's peak."""

from __future__ import annotations

import time

import pytest
import torch
from torch.nn import functional

from reid_ray.train.log.meter import PEAK_TFLOPS, Meter, counted_flops, peak_tflops
from reid_ray.train.parts import Loss

CPU = torch.device("cpu")


def _loss(value: float) -> Loss:
    term = torch.tensor(value)
    return Loss(2 * term, {"sdm": term}, {"sdm": 2 * term})


def test_operations_of_a_transformer_layer_are_those_of_its_matrices():
    tokens, width, heads = 12, 32, 4
    x_BTD = torch.randn(5, tokens, width)
    weights = torch.randn(3 * width, width), torch.randn(width, width), torch.randn(4 * width, width), torch.randn(width, 4 * width)
    with counted_flops() as counter:
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in functional.linear(x_BTD, weights[0]).chunk(3, dim=-1))
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        functional.linear(functional.gelu(functional.linear(functional.linear(mixed, weights[1]), weights[2])), weights[3])
    multiplications = 5 * tokens * (3 + 1 + 4 + 4) * width**2 + 2 * 5 * tokens**2 * width
    assert counter.get_total_flops() == 2 * multiplications


def test_mfu_is_three_forward_passes_per_sample_over_time_and_peak():
    meter = Meter(device=CPU, peak=1e-3)
    weight = torch.randn(64, 64)
    for _ in range(4):
        with meter.forward(10):
            torch.randn(10, 64) @ weight
        meter.add(_loss(1.0), norm=1.0, samples=10)
    line = meter.line()
    # 4 steps of 10 samples with 64 x 64 multiplications and additions each.
    assert line["mfu"] == pytest.approx(3 * 2 * 64 * 64 * line["images_per_second"] / 1e9)
    unknown = Meter(device=CPU, peak=None)
    unknown.add(_loss(1.0), norm=1.0, samples=10)
    assert unknown.line()["mfu"] is None


@pytest.mark.slow
def test_time_elsewhere_slows_no_rate_and_waiting_is_a_share():
    meter = Meter(device=CPU, peak=None)
    with meter.excluded():
        time.sleep(0.5)
    with meter.data_wait():
        time.sleep(0.05)
    meter.add(_loss(1.0), norm=3.0, samples=4)
    meter.add(_loss(2.0), norm=5.0, samples=4)
    line = meter.line()
    assert line["steps_per_second"] > 2 / 0.5
    assert line["images_per_second"] == pytest.approx(4 * line["steps_per_second"])
    assert 0.05 * line["steps_per_second"] / 2 <= line["data_wait_share"] <= 1
    assert (line["loss"], line["sdm"], line["weighted_sdm"], line["grad_norm"]) == (3.0, 1.5, 3.0, 4.0)
    meter.add(_loss(7.0), norm=1.0, samples=4)
    assert meter.line()["sdm"] == 7.0  # a line starts anew


def test_a_gpu_is_known_by_its_name(monkeypatch):
    assert peak_tflops("bf16", given=5.0) == 5.0
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    names = {
        "NVIDIA H100 80GB HBM3": ("H100", 989),
        "NVIDIA H100 PCIe": ("H100 PCIe", 756),
        "NVIDIA H200": ("H200", 989),
        "NVIDIA A100-SXM4-80GB": ("A100", 312),
        "NVIDIA A10G": ("A10", 125),
        "NVIDIA L40S": ("L40S", 362),
        "NVIDIA L4": ("L4", 121),
        "NVIDIA GeForce RTX 4090": ("RTX 4090", 165),
    }
    for name, (key, peak) in names.items():
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda name=name: name)
        assert peak_tflops("bf16", given=None) == peak == PEAK_TFLOPS[key]["bf16"]
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Somebody's Accelerator")
    assert peak_tflops("bf16", given=None) is None
