import os
import resource
import threading
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import ray
from refusals import refused

from reid_ray.config.common import OptionalRayConfig, PoolConfig, RayConfig
from reid_ray.errors import ResourceError
from reid_ray.runtime import IN_PROCESS_ROWS, Need, _on_loopback, _shut_down, check_needs, object_store_bytes, ray_session, stays_in_process

NODES = [{"CPU": 4.0}, {"CPU": 8.0, "GPU": 2.0}]


@pytest.mark.parametrize(
    ("needs", "words"),
    [
        ([Need("caption.pool", 1, num_gpus=4)], ["caption.pool", "4 GPU", "largest of 2 nodes has 2"]),
        ([Need("caption.pool", 3, num_gpus=1)], ["3 GPU", "cluster has 2"]),
        ([Need("caption.pool", 2, num_cpus=4), Need("rewrite.pool", 1, num_cpus=4)], ["13 CPU", "cluster has 12", "rewrite.pool 1 x 4"]),
    ],
)
def test_what_the_cluster_cannot_give_is_named_before_launch(needs, words):
    with pytest.raises(ResourceError) as caught:
        check_needs(needs, NODES)
    for word in words:
        assert word in str(caught.value)


def test_what_fits_is_let_through():
    check_needs([Need("caption.pool", 2, num_cpus=4, num_gpus=1), Need("rewrite.pool", 1, num_cpus=3)], NODES)


@pytest.fixture
def started(monkeypatch) -> dict:
    """What a local Ray is started with; none starts."""
    seen: dict = {}

    def init(**options) -> None:
        spilled = Path(options["object_spilling_directory"])
        seen.update(options, core=resource.getrlimit(resource.RLIMIT_CORE)[0], rights=oct(spilled.parent.stat().st_mode & 0o777))

    for name in ("RAY_ADDRESS", "RAY_object_spilling_directory"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    return seen


def test_processes_of_a_local_ray_leave_no_memory_on_the_disk_when_they_crash(started):
    before = resource.getrlimit(resource.RLIMIT_CORE)
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
        with ray_session(RayConfig()):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)
    assert started["core"] == 0


def test_what_a_local_ray_puts_on_the_disk_is_this_users_alone_and_gone_at_the_end(started):
    with ray_session(RayConfig()):
        spilled = Path(started["object_spilling_directory"])
        assert started["rights"] == "0o700"
        (spilled / "object").write_text("a picture")
    assert not spilled.parent.exists()


@pytest.mark.slow  # Ray starts
@pytest.mark.parametrize("failures", [1, 2])
def test_a_local_ray_that_does_not_come_up_is_ended_and_started_once_more(monkeypatch, failures):
    from ray._private import services

    look, halves = services.get_node, []

    def fail_at_first(*arguments):
        if len(halves) < failures:
            halves.append([child for child in psutil.Process().children() if child.name() in ("gcs_server", "raylet")])
            raise Exception("The current node timed out during startup. Perhaps the GCS has become overloaded.")
        return look(*arguments)

    monkeypatch.setattr(services, "get_node", fail_at_first)
    config = RayConfig(local_cpus=2, object_store_mb=80)
    if failures == 1:
        with ray_session(config):
            assert ray.is_initialized()
    else:
        with refused(ResourceError, "did not start, twice", "timed out during startup", "ray.address"), ray_session(config):
            pytest.fail("no Ray is there")
    assert not ray.is_initialized()
    assert len(halves) == failures
    for half in halves:
        assert len(half) == 2
        assert not any(child.is_running() for child in half)


def test_a_size_that_the_cluster_does_not_say_is_waited_for_no_longer_than_told(monkeypatch):
    silence = threading.Event()

    def answered_too_late() -> dict:
        silence.wait()
        return {}

    monkeypatch.setattr(ray, "cluster_resources", answered_too_late)
    assert object_store_bytes(patience_s=0.05) is None
    silence.set()
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"object_store_memory": 7.0})
    assert object_store_bytes() == 7.0


def test_a_shutdown_that_waits_for_ever_is_not_waited_for_and_its_processes_are_killed(monkeypatch):
    never, killed = threading.Event(), []
    monkeypatch.setattr(ray, "shutdown", never.wait)
    node = SimpleNamespace(kill_all_processes=lambda **_: killed.append("ray"))
    monkeypatch.setattr("ray._private.worker._global_node", node)
    leaving = threading.Thread(target=lambda: _shut_down(patience_s=0.1), daemon=True)
    leaving.start()
    leaving.join(10)
    assert not leaving.is_alive()
    assert killed == ["ray"]
    never.set()


def test_a_local_ray_is_bound_to_the_loopback_and_its_token_is_this_users_alone(tmp_path, monkeypatch):
    from ray._private import ray_constants, services

    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR):
        monkeypatch.delenv(name, raising=False)
    token = tmp_path / ".ray" / "auth_token"
    for _ in range(2):
        with _on_loopback():
            assert services.get_node_ip_address() in ("127.0.0.1", "::1")
            assert os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] == "0"
        assert ray_constants.ENABLE_RAY_CLUSTER
        assert ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR not in os.environ
        assert token.stat().st_mode & 0o777 == 0o600
        assert len(token.read_text()) == 64
        token.chmod(0o644)  # as Ray would have left it


def test_few_images_need_no_ray_unless_one_is_named_or_there(monkeypatch):
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    auto, here, cpus = OptionalRayConfig(), OptionalRayConfig(execution="in_process"), PoolConfig()
    assert stays_in_process(auto, IN_PROCESS_ROWS, cpus)
    assert not stays_in_process(auto, IN_PROCESS_ROWS + 1, cpus)
    assert not stays_in_process(auto, 1, PoolConfig(num_gpus=1))
    assert not stays_in_process(OptionalRayConfig(address="auto"), 1, cpus)
    assert not stays_in_process(OptionalRayConfig(execution="ray"), 1, cpus)
    assert stays_in_process(here, 10**9, PoolConfig(num_gpus=1))
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    assert not stays_in_process(auto, 1, cpus)
    assert stays_in_process(here, 1, cpus)
