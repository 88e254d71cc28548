"""Fixtures that the whole test session shares: one local Ray, the street crops where they are at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("DS_ACCELERATOR", "cpu")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def local_ray():
    """One local Ray for every test that needs one; jobs called in this process join it."""
    from reid_ray.config.common import RayConfig
    from reid_ray.runtime import ray_session

    with ray_session(RayConfig(address="local")):
        yield


@pytest.fixture(scope="session")
def street() -> Path:
    """530 real pedestrian crops; users do not have them."""
    folder = ROOT.parent / "shared" / "street"
    if not folder.is_dir():
        pytest.skip("no ../shared/street here: the real pedestrian crops are not part of the repository")
    return folder
