"""One try to reach a node: what is tried next when it fails, and the PROXY header ahead of it."""

import pytest

from tests.harness import HttpNode, RawNode, reply, settings
from tests.harness.tcp import Peer, TcpNode, nodes, proxy_v2
from tests.harness.worker import worker


def v1(source: tuple[str, int], destination: tuple[str, int]) -> bytes:
    return (
        f"PROXY TCP4 {source[0]} {destination[0]} {source[1]} {destination[1]}\r\n".encode()
    )  # fmt: skip


def tcp(*nodes: TcpNode, **pool: str):
    return settings(*[one.address for one in nodes], server={"protocol": "tcp"}, pool=pool)


# ---- the next try ----


@pytest.mark.parametrize("protocol", ["http", "tcp"])
@pytest.mark.parametrize("retries", [0, 1, 2])
def test_as_many_other_nodes_as_configured(protocol: str, retries: int) -> None:
    with nodes(4) as dead:
        for one in dead:
            one.stop()
        config = settings(
            *[one.address for one in dead], server={"protocol": protocol},
            pool={"retries": retries},
        )  # fmt: skip
        with worker(config) as w:
            if protocol == "tcp":
                assert Peer.turned_away(w.address()) == "reset"
            else:
                assert w.ask("/").status == 503
            w.wait_objects(exchanges=0)
            assert w.stats["retries"] == retries
            failures = [w.node_stats(slot)["connect_failures"] for slot in range(4)]
            assert sorted(failures, reverse=True) == [1] * (retries + 1) + [0] * (3 - retries)


@pytest.mark.parametrize("protocol", ["http", "tcp"])
def test_another_node_serves(protocol: str) -> None:
    with RawNode(reply(200, b"served")) as good, TcpNode() as dead:
        dead.stop()
        with worker(settings(dead.address, good, server={"protocol": protocol})) as w:
            assert [w.ask("/").body for _ in range(4)] == [b"served"] * 4
            assert w.stats["retries"] >= 1


def test_a_session_whose_node_is_gone_tries_a_new_one_without_retries() -> None:
    with TcpNode() as a, TcpNode() as b:
        config = settings(
            a.address, b.address, persistence={"type": "ip"}, pool={"retries": 0},
            server={"protocol": "tcp"},
        )  # fmt: skip
        with worker(config) as w:
            with Peer.connect(w.address()) as client:
                client.send(b"1")
                assert a.accept().exactly(1) == b"1"
            a.stop()
            with Peer.connect(w.address()) as client:
                client.send(b"2")
                assert b.accept().exactly(1) == b"2"


# ---- PROXY protocol ----


@pytest.mark.parametrize("first", [b"", b"hello", b"x" * 5000])
def test_version_1_is_ahead_of_the_clients_bytes(first: bytes) -> None:
    with TcpNode() as a, worker(tcp(a, proxy_protocol="v1")) as w:
        with w.frozen():
            client = Peer.connect(w.address())
            client.send(first)
        client.send(b"!")
        expected = v1(client.name, client.peer) + first + b"!"
        assert a.accept().exactly(len(expected)) == expected
        client.close()


def test_version_2_is_ahead_of_the_clients_bytes() -> None:
    with TcpNode() as a, worker(tcp(a, proxy_protocol="v2")) as w:
        with Peer.connect(w.address()) as client:
            client.send(b"hello")
            client.half_close()
            read = proxy_v2(a.accept().rest())
            assert read == (client.name, client.peer, {}, b"hello")


def test_a_node_that_speaks_first_gets_it_at_once() -> None:
    with TcpNode() as a, worker(tcp(a, proxy_protocol="v1")) as w:
        with Peer.connect(w.address()) as client:
            expected = v1(client.name, client.peer)
            there = a.accept()
            assert there.exactly(len(expected)) == expected
            there.send(b"220 hello")
            assert client.exactly(9) == b"220 hello"


def test_each_try_has_its_header() -> None:
    with TcpNode() as a, TcpNode() as b, worker(tcp(a, b, proxy_protocol="v1")) as w:
        a.stop()
        with Peer.connect(w.address()) as client:
            expected = v1(client.name, client.peer)
            assert b.accept().exactly(len(expected)) == expected


def test_http_connections_carry_one_client_and_are_never_pooled() -> None:
    with TcpNode() as a, worker(settings(a.address, pool={"proxy_protocol": "v1"})) as w:
        with w.client() as client:
            expected = v1(client.sock.getsockname(), client.sock.getpeername())
            for number in (1, 2):
                client.send(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number)
                there = a.accept()
                assert there.exactly(len(expected)) == expected
                assert there.exactly(6) == b"GET /%d" % number
                there.send(reply(200, b"fine"))
                assert client.response().body == b"fine"
                w.wait_objects(exchanges=0, node_connections=0)
        assert w.node_stats()["connects"] == 2
        assert w.node_stats()["reuses"] == 0


def test_without_it_they_are_pooled() -> None:
    with HttpNode("a") as a, worker(settings(a)) as w, w.client() as client:
        for _ in range(2):
            assert client.ask("/").status == 200
        assert w.node_stats()["reuses"] == 1
