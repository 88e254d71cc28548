"""Whether a port of Ray takes work from anybody is asked of the port itself, by a question without a token."""

from concurrent.futures import ThreadPoolExecutor

import grpc
import psutil
import pytest
from refusals import refused

from reid_ray.errors import ResourceError
from reid_ray.serve.on_ray.open_ports import _HEAD, _answers_anybody, keep_replica_on_loopback


class Answers(grpc.GenericRpcHandler):
    """Answers each question by a status, or not at all."""

    def __init__(self, status):
        self._status = status

    def service(self, call):
        def answer(asked, context):
            assert call.method == _HEAD
            if self._status is not grpc.StatusCode.OK:
                context.abort(self._status, "no")
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


@pytest.mark.parametrize(("status", "open_to_all"), [("OK", True), ("UNAUTHENTICATED", False), ("PERMISSION_DENIED", False)])
def test_a_port_that_answers_without_a_token_is_open(status, open_to_all):
    server = grpc.server(ThreadPoolExecutor(1), handlers=[Answers(grpc.StatusCode[status])])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        assert _answers_anybody(f"127.0.0.1:{port}", _HEAD) == open_to_all
    finally:
        server.stop(None)


def test_a_port_that_says_nothing_is_not_taken_for_a_closed_one():
    with refused(ResourceError, "127.0.0.1:1"):
        _answers_anybody("127.0.0.1:1", _HEAD)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray Serve's models, under today's pydantic
@pytest.mark.parametrize(("node", "beyond"), [("127.0.0.1", False), ("192.0.2.7", True)])
def test_a_replica_on_the_loopback_opens_its_port_there_and_another_where_others_reach_it(monkeypatch, node, beyond):
    from ray.serve._private import replica

    monkeypatch.setattr(replica, "add_port_to_grpc_server", replica.add_port_to_grpc_server)
    monkeypatch.setattr("ray.util.get_node_ip_address", lambda: node)
    keep_replica_on_loopback()
    server = grpc.server(ThreadPoolExecutor(1))
    port = replica.add_port_to_grpc_server(server, "[::]:0")
    server.start()
    listening = {each.laddr.ip for each in psutil.Process().net_connections("inet") if each.laddr.port == port}
    server.stop(None)
    assert (listening <= {"127.0.0.1", "::ffff:127.0.0.1"}) != beyond
