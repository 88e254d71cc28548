"""What no job may leave in a Ray that others use too."""

from __future__ import annotations

import pytest
from kills import wait_for


@pytest.fixture(autouse=True)
def no_board_is_left():
    """The boards of a job's passes end with the job, however it ends."""
    yield
    import ray

    if ray.is_initialized():
        assert wait_for(lambda: not _boards(ray), seconds=20), "boards of a job that has ended are alive"


def _boards(ray) -> list[str]:
    found = ray._private.state.actors().values()
    return [each["ActorID"] for each in found if each["ActorClassName"] == "AttemptBoard" and each["State"] != "DEAD"]
