"""Ray session and resource pre-check: joins or starts Ray, and asks before launch whether the cluster can give what a job needs.

The only file that calls ray.init. Knows resources; not what runs on them.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import queue
import resource
import secrets
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from reid_ray.config.called import called
from reid_ray.config.common import OptionalRayConfig, PoolConfig, RayConfig
from reid_ray.errors import ReidRayError, ResourceError, reason_of
from reid_ray.exit_codes import kept_signals
from reid_ray.scratch import scratch_folder

T = TypeVar("T")

IN_PROCESS_ROWS = 5_000  # at most, where a job may choose; 15 s of a tiny encoder on one core


@dataclass(frozen=True)
class Need:
    """What one part of a job asks of the cluster: `count` processes of num_cpus and num_gpus each.

    `field` is the dotted config section that says so; it is named when the cluster cannot give it.
    """

    field: str
    count: int
    num_cpus: float = 0.0
    num_gpus: float = 0.0


def stays_in_process(config: OptionalRayConfig, rows: int, pool: PoolConfig) -> bool:
    """Whether a job does its work in its own process, as `config.execution` says: starting Ray takes longer than embedding few rows."""
    if config.execution != "auto":
        return config.execution == "in_process"
    ray = sys.modules.get("ray")
    there = config.address or os.environ.get("RAY_ADDRESS") or (ray is not None and ray.is_initialized())
    return rows <= IN_PROCESS_ROWS and not pool.num_gpus and not there


def pool_need(field: str, pool: PoolConfig) -> Need:
    """The need of a Ray Data actor pool at its smallest size."""
    return Need(field=field, count=pool.replicas, num_cpus=pool.num_cpus, num_gpus=pool.num_gpus)


PROXY_CHECKS = {"RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1"}
"""Environment of a Ray that serves; its processes read it when they start. Ray Serve starts a proxy anew once three looks in a row found it
dead, its default ten seconds apart. A cluster that is joined has its own; cluster/ sets the same."""


@contextmanager
def ray_session(config: RayConfig) -> Iterator[None]:
    """Join the cluster of `config` (or the one this process is in already), else start a local Ray; stop only what was started here."""
    import ray

    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    _leave_no_core()
    address = config.address or os.environ.get("RAY_ADDRESS")
    if address and address != "local":
        try:
            with kept_signals():
                ray.init(address=address, log_to_driver=True)
        except ConnectionError as error:
            raise ResourceError(
                f"{called('ray.address')}: no Ray cluster answers at {address} ({error}); start one or leave {called('ray.address')} null"
            ) from None
        try:
            yield
        finally:
            _shut_down()
    else:
        for name, value in PROXY_CHECKS.items():
            os.environ.setdefault(name, value)
        # What does not fit into the object store goes to the disk, pictures among it; Ray's own folder is open to everybody.
        with scratch_folder() as spilled:
            with kept_signals(), _on_loopback():
                _start(
                    address="local",
                    num_cpus=config.local_cpus,
                    object_store_memory=config.object_store_mb << 20,
                    object_spilling_directory=os.environ.get("RAY_object_spilling_directory") or str(spilled),  # noqa: SIM112 - as Ray spells it
                    include_dashboard=False,
                    log_to_driver=True,
                )
            try:
                yield
            finally:
                _shut_down()


def _start(**arguments: Any) -> None:
    """Start a local Ray; a second time if the first does not come up.

    Ray 2.60 gives its own processes 30 s to find each other, and its GCS was seen to answer nobody for a minute on a machine with other
    work; it leaves those processes to run.

    Raises:
        ResourceError: neither came up.
    """
    import ray

    for last in (False, True):
        try:
            ray.init(**arguments)
        except Exception as error:
            started = _started_in(error)
            if started is None:
                raise
            started.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
            if last:
                raise ResourceError(
                    f"a Ray of this machine did not start, twice ({reason_of(error)}); start the job when the machine has less to do, or "
                    f"join a cluster ({called('ray.address')})"
                ) from None
        else:
            return


def _started_in(error: BaseException) -> Any | None:
    """Ray's Node whose start raised an error, for Ray keeps none that it has not started whole; None if none had begun."""
    from ray._private.node import Node

    selves = (frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__))
    return next((node for node in selves if isinstance(node, Node)), None)


@contextmanager
def _on_loopback() -> Iterator[None]:
    """A Ray that is started inside listens on 127.0.0.1 alone, and its token is this user's to read alone.

    Ray 2.60 listens on all interfaces unless it takes the loopback for the node's address; it does where clusters are switched off, as on
    macOS, and refuses it as an argument. Its token file has whatever mode the umask leaves.
    """
    from ray._private import ray_constants

    _keep_token_private()
    name, were = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, ray_constants.ENABLE_RAY_CLUSTER
    before = os.environ.get(name)
    os.environ[name], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = were
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _keep_token_private() -> None:
    """Make the token that a local Ray would make, or take it from others' eyes; where one is given otherwise it is left alone."""
    given = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys()
    if given or os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return
    file = Path.home() / ".ray" / "auth_token"
    with contextlib.suppress(OSError):  # Ray says itself what it cannot read or make
        file.parent.mkdir(mode=0o700, exist_ok=True)
        if file.exists():
            file.chmod(0o600)
        else:
            with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as made:
                made.write(secrets.token_hex(32))


def _shut_down(*, patience_s: float = 30.0) -> None:
    """Leave Ray, and stop it if it was started here, without waiting for ever.

    Ray 2.60 joins threads that print its workers' logs, and these were seen to wait without a limit for an answer of the GCS
    (GcsSubscriberPoll, in a process of long standing). After `patience_s` the processes of a Ray that was started here are killed, and a
    shutdown that still waits is left to a daemon thread, which ends with this process.
    """
    import ray
    from ray._private import worker

    failed: list[BaseException] = []

    def leave() -> None:
        try:
            ray.shutdown()
        except BaseException as error:  # noqa: BLE001 - raised below, in the thread that asked
            failed.append(error)

    leaving = threading.Thread(target=leave, name="ray-shutdown", daemon=True)
    leaving.start()
    leaving.join(patience_s)
    if leaving.is_alive() and worker._global_node is not None:
        worker._global_node.kill_all_processes(check_alive=False, allow_graceful=False)
        leaving.join(patience_s)
    if leaving.is_alive():
        atexit.unregister(ray.shutdown)
    if failed:
        raise failed[0]


def _leave_no_core() -> None:
    """No process of a local Ray leaves its memory, which holds pictures and texts, on the disk when it crashes."""
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


def object_store_bytes(*, patience_s: float = 30.0) -> float | None:
    """Size of the cluster's object store, bytes; None if the cluster does not say so in time.

    Asked in a thread of its own: Ray 2.60 waits without a limit for this answer, and was seen to lose it in a process of long standing.
    """
    import ray

    said: queue.SimpleQueue[float] = queue.SimpleQueue()

    def ask() -> None:
        said.put(float(ray.cluster_resources().get("object_store_memory", 0)))

    threading.Thread(target=ask, name="object-store-size", daemon=True).start()
    try:
        return said.get(timeout=patience_s)
    except queue.Empty:
        return None


def require_resources(needs: Sequence[Need], *, spare_cpus: float = 1.0) -> None:
    """Check that the running cluster can hold all `needs` at once, with `spare_cpus` left for readers and writers.

    Ray itself would wait in silence for resources that never come.

    Raises:
        ResourceError: names the section that asks for too much, what the cluster has, and the remedy.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    check_needs(needs, nodes, spare_cpus=spare_cpus)


def on_each_node(work: Callable[[], T], need: Need) -> list[T]:
    """What `work` gives on every node that can hold one process of `need`, all nodes at the same time; it takes no CPU from others.

    Raises:
        ReidRayError: of `work`, as itself.
    """
    import ray
    from ray.exceptions import RayTaskError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    each = {"CPU": need.num_cpus, "GPU": need.num_gpus}
    nodes = [
        node for node in ray.nodes() if node["Alive"] and all(node["Resources"].get(kind, 0.0) >= amount for kind, amount in each.items())
    ]

    def run() -> T:  # Ray takes no other callable
        return work()

    task = ray.remote(num_cpus=0)(run)
    places = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
    try:
        return ray.get([task.options(scheduling_strategy=place).remote() for place in places])
    except RayTaskError as error:
        if isinstance(error.cause, ReidRayError):
            raise error.cause from None
        raise


def check_needs(needs: Sequence[Need], nodes: Sequence[dict[str, float]], *, spare_cpus: float = 1.0) -> None:
    """The pure part of require_resources: `nodes` are resource dictionaries such as {"CPU": 8.0, "GPU": 1.0}."""
    for kind, per_process in (("CPU", "num_cpus"), ("GPU", "num_gpus")):
        total = sum(node.get(kind, 0.0) for node in nodes)
        largest = max((node.get(kind, 0.0) for node in nodes), default=0.0)
        for need in needs:
            each = getattr(need, per_process)
            if each > largest:
                raise ResourceError(
                    f"{called(need.field)} asks for {each:g} {kind} per process, but the largest of {len(nodes)} nodes has {largest:g}; "
                    f"lower {called(f'{need.field}.{per_process}')} or join a cluster that has it ({called('ray.address')})"
                )
        asked = sum(need.count * getattr(need, per_process) for need in needs)
        spare = spare_cpus if kind == "CPU" else 0.0
        if asked and asked + spare > total:
            listing = " + ".join(
                f"{called(need.field)} {need.count} x {getattr(need, per_process):g}" for need in needs if getattr(need, per_process)
            )
            reserve = f" + {spare:g} for reading and writing" if spare else ""
            raise ResourceError(
                f"the job needs {asked + spare:g} {kind} ({listing}{reserve}), but the cluster has {total:g}; "
                f"lower replicas or {per_process}, join a larger cluster ({called('ray.address')})"
                + (f", or raise {called('ray.local_cpus')} (logical CPUs of a local Ray)" if kind == "CPU" else "")
            )
