"""What an actor says to the user when its engine cannot start reaches the user as one sentence, whatever Ray keeps of the error."""

import pytest
from ray.exceptions import ActorDiedError, RayTaskError

from reid_ray.caption.drain import _unwrapped_errors
from reid_ray.errors import ConfigError


def test_an_actor_that_dies_in_its_init_is_told_in_its_own_words():
    told = "captioners.llava: vLLM cannot start an engine so; change captioners.llava.engine"
    traceback = f"Traceback (most recent call last):\n  File x\nValueError: inner\n\nTraceback:\nreid_ray.errors.ConfigError: {told}"
    died = ActorDiedError(RayTaskError("MapWorker.__init__", traceback, ValueError("x")))

    def tables():
        yield 1
        raise died from SystemError()

    with pytest.raises(ConfigError) as found:
        list(_unwrapped_errors(tables()))
    assert str(found.value) == told


def test_an_actor_that_dies_of_something_else_is_a_fault():
    died = ActorDiedError(RayTaskError("MapWorker.__init__", "Traceback:\nMemoryError: no room", MemoryError()))

    def tables():
        yield 1
        raise died from SystemError()

    with pytest.raises(ActorDiedError):
        list(_unwrapped_errors(tables()))
