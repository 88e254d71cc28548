"""Tests that need an NVIDIA GPU: each is skipped, with the reason, where there is none."""

import pytest


@pytest.fixture(autouse=True)
def needs_a_gpu():
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU here: torch.cuda.is_available() is false")
