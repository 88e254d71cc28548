"""A port that the replicas of one service share, and nobody else has; how many replicas there should be."""

import select
import socket
from types import SimpleNamespace

import pytest
from ray.serve.config import AutoscalingConfig, AutoscalingContext
from refusals import refused

from reid_ray.errors import ConfigError, ResourceError
from reid_ray.serve.on_ray.deployment import Replica
from reid_ray.serve.on_ray.direct_ingress import IN_HAND, claimed, claimed_port, replicas_for_searches
from reid_ray.serve.process.http_thread import ServerThread, bound_socket

HOST = "127.0.0.1"


def test_a_claimed_port_is_free_for_replicas_and_for_no_other_service():
    with claimed_port(HOST, 0) as port:
        with refused(ConfigError, f"serve.port {port}", "another search service"), claimed_port(HOST, port):
            pass
        with bound_socket(HOST, port, shared=True), bound_socket(HOST, port, shared=True):
            with refused(ConfigError, f"serve.port {port}"), claimed_port(HOST, port):
                pass
            with refused(ConfigError, f"serve.port {port}"):
                bound_socket(HOST, port)
    with claimed_port(HOST, port) as again:
        assert again == port


def test_what_one_claims_nobody_else_does_until_it_ends():
    with claimed("Ray at nowhere") as first, claimed("Ray at nowhere") as second, claimed("Ray elsewhere") as other:
        assert (first, second, other) == (True, False, True)
    with claimed("Ray at nowhere") as again:
        assert again


def test_a_port_that_something_else_listens_at_is_neither_claimed_nor_shared():
    with bound_socket(HOST, 0) as other:
        port = other.getsockname()[1]
        with refused(ConfigError, f"serve.port {port}"), claimed_port(HOST, port):
            pass
        with refused(ConfigError, f"serve.port {port}"):
            bound_socket(HOST, port, shared=True)


def test_callers_are_divided_among_those_who_share_a_port_and_the_rest_goes_to_who_stays():
    with bound_socket(HOST, 0, shared=True) as first:
        port = first.getsockname()[1]
        reached = {first: 0}
        with bound_socket(HOST, port, shared=True) as second:
            reached[second] = 0
            for _ in range(64):
                with socket.create_connection((HOST, port)):
                    (one,) = select.select(list(reached), [], [], 5)[0]
                    one.accept()[0].close()
                    reached[one] += 1
            assert min(reached.values()) > 8, "one of two got next to nothing"
        with socket.create_connection((HOST, port)):
            first.settimeout(5)
            first.accept()[0].close()


def of_searches(*in_hand, target=16.0):
    """What Ray Serve's controller tells its policy of replicas with so many searches in hand."""
    unused = {"total_num_requests": 0.0, "total_queued_requests": 0.0, "raw_metrics": None, "policy_state": {}}
    unused |= dict.fromkeys(("last_scale_up_time", "last_scale_down_time", "current_time", "app_name", "deployment_id"))
    return AutoscalingContext(
        deployment_name="Replica",
        current_num_replicas=len(in_hand),
        target_num_replicas=len(in_hand),
        running_replicas=[],
        aggregated_metrics={IN_HAND: {f"{number}": each for number, each in enumerate(in_hand)}} if in_hand else None,
        capacity_adjusted_min_replicas=1,
        capacity_adjusted_max_replicas=8,
        config=AutoscalingConfig(min_replicas=1, max_replicas=8, target_ongoing_requests=target),
        **unused,
    )


@pytest.mark.parametrize(("in_hand", "wanted"), [((), 0), ((0.0,), 0), ((16.0,), 1), ((60.0, 4.0), 4), ((1.0, 1.0), 0.125)])
def test_there_should_be_as_many_replicas_as_have_their_share_of_the_searches(in_hand, wanted):
    assert replicas_for_searches(of_searches(*in_hand)) == (wanted, {})


def test_a_replica_whose_http_server_has_ended_is_not_well():
    async def application(scope, receive, send):
        raise AssertionError

    server = ServerThread(application, bound_socket(HOST, 0), None)
    replica = SimpleNamespace(_server=server)
    server.start()
    Replica.check_health(replica)
    server.stop()
    with refused(ResourceError, "HTTP server has ended"):
        Replica.check_health(replica)
    Replica.check_health(SimpleNamespace(_server=None))
