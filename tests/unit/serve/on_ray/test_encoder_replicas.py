"""Encoders of a service that die, are slow or fail, seen by who asks them; and how many Ray Serve is asked for."""

import json

import numpy as np
import pytest
from PIL import Image
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import DeploymentUnavailableError
from refusals import refused

from reid_ray.config.base import load_config
from reid_ray.errors import ConfigError, ResourceError
from reid_ray.serve.config import EncodersConfig, ServeJob
from reid_ray.serve.on_ray.deployment import application
from reid_ray.serve.on_ray.encoder_replicas import RemoteEncoder, encoders_application

pytestmark = pytest.mark.slow  # Ray Serve is imported


class Handle:
    """Of a deployment whose calls end as told, the last way for good."""

    def __init__(self, *ends):
        self.ends, self.asked = list(ends), []

    def options(self, **how):
        return self

    def __getattr__(self, name):
        return Call(self, name)


class Call:
    def __init__(self, handle, name):
        self.handle, self.name = handle, name

    def remote(self, *words):
        self.handle.asked.append((self.name, *words))
        return self

    def result(self, *, timeout_s):
        if self.name == "about":
            assert timeout_s == 600  # weights are read
            return 4, 77, True, "who", True
        assert timeout_s == 7
        end = self.handle.ends.pop(0) if len(self.handle.ends) > 1 else self.handle.ends[0]
        if isinstance(end, Exception):
            raise end
        return end


def remote(*ends):
    return RemoteEncoder(Handle(*ends), timeout_s=7, start_timeout_s=600)


VECTORS = np.eye(4, dtype=np.float32)[:2]


def test_an_encoder_says_what_it_is_and_its_arrays_come_back_as_they_are():
    encoder = remote((VECTORS, np.array([3, 4])))
    assert (encoder.dim, encoder.context, encoder.reads_texts, encoder.fingerprint) == (4, 77, True, "who")
    assert encoder.drawn_people_only
    assert encoder.encode_texts(("a", "b")) is VECTORS
    assert encoder._encoders.asked[-1] == ("encode_and_measure", ["a", "b"])


def test_a_batch_whose_encoder_dies_is_encoded_by_another():
    assert (remote(RayActorError(), RayActorError(), VECTORS).encode_images([]) == VECTORS).all()
    with refused(ResourceError, "the encoders that were asked died"):
        remote(RayActorError()).encode_images([])


@pytest.mark.parametrize(
    ("end", "said"),
    [(TimeoutError(), "the encoders do not answer in time"), (DeploymentUnavailableError(None), "no encoder is there")],
    ids=["slow", "none"],
)
def test_encoders_that_do_not_answer_are_a_resource_that_lacks(end, said):
    with refused(ResourceError, said):
        remote(end).encode_images([])


def test_pictures_that_one_message_would_not_take_are_sent_in_several():
    pictures = [Image.new("RGB", size) for size in [(2000, 2000)] * 5 + [(10, 10)]]
    encoder = remote(VECTORS[:2], VECTORS[:2], np.zeros((2, 4)))
    assert encoder.encode_images(pictures).shape == (6, 4)
    assert [len(words) for what, *words in [(name, *given) for name, given in encoder._encoders.asked[1:]]] == [2, 2, 2]


def test_what_an_encoder_raises_is_raised_here():
    with refused(ValueError, "half a picture"):
        remote(RayTaskError("encode_images", "where", ValueError("half a picture"))).encode_images([])


def test_the_number_of_encoders_is_fixed_or_follows_their_batches():
    fixed = encoders_application("model", EncodersConfig(replicas=3, num_gpus=1), batch_size=8)._bound_deployment
    assert (fixed.num_replicas, fixed.ray_actor_options["num_gpus"]) == (3, 1)
    grows = encoders_application("model", EncodersConfig(replicas=1, max_replicas=4), batch_size=8)._bound_deployment
    scale = grows._deployment_config.autoscaling_config
    assert (scale.min_replicas, scale.max_replicas, scale.target_ongoing_requests) == (1, 4, 2)


def test_searchers_and_encoders_take_large_messages_of_each_other():
    whole = {"index": "i", "encoder": "model", "runs_on": "ray"}
    apart = application(ServeJob.model_validate({**whole, "encoders": {"replicas": 1}}))._bound_deployment
    encoder = encoders_application("model", EncodersConfig(replicas=1), batch_size=8)._bound_deployment
    for each in (apart, encoder):
        assert int(each.ray_actor_options["runtime_env"]["env_vars"]["RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH"]) >= 64 << 20
    assert not application(ServeJob.model_validate(whole))._bound_deployment.ray_actor_options.get("runtime_env")


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ({"encoders": {"replicas": 2}}, "encoders.replicas is 2, which needs Ray"),
        ({"runs_on": "ray", "encoders": {"replicas": 2, "max_replicas": 1}}, "max_replicas 1 is below replicas 2"),
        ({"runs_on": "ray", "encoders": {"max_replicas": 2}}, "searchers encode by themselves; set replicas to 1"),
        ({"runs_on": "ray", "encoders": {"replicas": 1, "target_ongoing_batches": 17}}, "no encoder would ever be added"),
        ({"runs_on": "ray", "encoders": {"replicas": 1}, "searcher": {"num_gpus": 1}}, "searcher.num_gpus is 1, but the encoders encode"),
    ],
    ids=["process", "below", "none", "never", "gpu"],
)
def test_numbers_that_contradict_each_other_are_refused(job, said):
    with refused(ConfigError, said):
        load_config(ServeJob, None, [f"{section}={json.dumps(value)}" for section, value in {"index": "i", **job}.items()])
