"""TLS towards nodes inside of one worker: sessions and pooled connections by slot and by name."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness import request, settings
from tests.harness.certificates import Authority, pem_of, pem_of_key
from tests.harness.node import Exchange
from tests.harness.tls_node import TlsNode
from tests.harness.worker import WorkerProcess, worker


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def pem(authority: Authority) -> bytes:
    pair = authority.certificate("one.test", "two.test")
    return pem_of_key(pair.key) + pem_of(pair.made)


class Closing(TlsNode):
    """Each answer ends its connection."""

    def _answer(self, exchange: Exchange) -> None:
        super()._answer(exchange)
        exchange.close()


def secured(authority: Authority, *nodes: Any, **tls: Any) -> dict[str, Any]:
    return settings(*nodes, pool={"tls": {"ca": str(authority.file), **tls}})


def ask(w: WorkerProcess, host: str) -> Any:
    with w.client() as c:
        c.send(request("/", host=host))
        return c.response()


@pytest.fixture
def node(pem: bytes) -> Iterator[TlsNode]:
    with TlsNode("a", pem) as a:
        yield a


def test_a_pooled_connection_keeps_its_tls(authority: Authority, node: TlsNode) -> None:
    with worker(secured(authority, node)) as w:
        for _ in range(3):
            assert ask(w, "one.test").status == 200
        stats = w.node_stats()
        assert (stats["connects"], stats["handshakes"], stats["reuses"]) == (1, 1, 2)
        w.wait_objects(clients=0, node_connections=1, tls_streams=1)


def test_it_serves_one_name_only(authority: Authority, node: TlsNode) -> None:
    with worker(secured(authority, node)) as w:
        for host in ("one.test", "two.test", "ONE.test", "two.test:443"):
            assert ask(w, host).status == 200
        assert w.node_stats()["connects"] == 2
        assert [one["sni"] for one in node.handshakes] == ["one.test", "two.test"]


def test_a_session_serves_one_name_only(authority: Authority, pem: bytes) -> None:
    with Closing("a", pem) as a, worker(secured(authority, a)) as w:
        for host in ("one.test", "one.test", "two.test", "two.test", "one.test"):
            assert ask(w, host).status == 200
        assert [one["reused"] for one in a.handshakes] == [False, True, False, True, False]
        assert w.node_stats()["handshakes_resumed"] == 2


def test_a_session_serves_one_plan_only(authority: Authority, pem: bytes) -> None:
    with Closing("a", pem) as a, worker(secured(authority, a)) as w:
        for _ in range(2):
            assert ask(w, "one.test").status == 200
        w.use(secured(authority, a))
        assert ask(w, "one.test").status == 200
        assert [one["reused"] for one in a.handshakes] == [False, True, False]


def test_failures_are_counted(authority: Authority, node: TlsNode) -> None:
    config = secured(authority, node)
    config["pools"]["web"]["tls"]["server_name"] = "three.test"
    with worker(config) as w:
        assert ask(w, "one.test").status == 503
        stats = w.node_stats()
        assert (stats["handshake_failures"], stats["connect_failures"]) == (1, 1)
        w.wait_objects(clients=0, node_connections=0, tls_streams=0)


def test_a_name_that_the_client_chose_is_no_failure_of_the_node(
    authority: Authority, pem: bytes
) -> None:
    with Closing("a", pem) as a, worker(secured(authority, a)) as w:
        assert ask(w, "one.test").status == 200
        assert ask(w, "three.test").status == 502
        stats = w.node_stats()
        assert (stats["handshake_failures"], stats["connect_failures"]) == (0, 0)
        assert ask(w, "one.test").status == 200
        assert [one["reused"] for one in a.handshakes] == [False, True]
        w.wait_objects(clients=0, node_connections=0, tls_streams=0)


def test_nor_is_it_left_out_for_any_number_of_them(authority: Authority, pem: bytes) -> None:
    with Closing("a", pem) as a:
        config = secured(authority, a)
        config["pools"]["web"]["passive"] = {"failures": 1, "backoff": "1h", "backoff_max": "1h"}
        with worker(config) as w:
            for _ in range(3):
                assert ask(w, "three.test").status == 502
            assert w.node_stats()["ejections"] == 0
            assert ask(w, "one.test").status == 200


def test_a_pooled_connection_that_says_something_is_closed(
    authority: Authority, pem: bytes
) -> None:
    class Chatty(TlsNode):
        def _answer(self, exchange: Exchange) -> None:
            super()._answer(exchange)
            exchange.send(b"HTTP/1.1 408 Too slow\r\n\r\n")

    with Chatty("a", pem) as a, worker(secured(authority, a)) as w:
        for _ in range(3):
            assert ask(w, "one.test").status == 200
            w.wait_objects(node_connections=0, tls_streams=0)


def test_a_pooled_connection_that_ends_is_closed(authority: Authority, node: TlsNode) -> None:
    with worker(secured(authority, node)) as w:
        assert ask(w, "one.test").status == 200
        w.wait_objects(node_connections=1)
        node.connections[0].sock.shutdown(socket.SHUT_RDWR)
        w.wait_objects(node_connections=0, tls_streams=0)
        assert ask(w, "one.test").status == 200
