"""TLS towards nodes inside of one worker: sessions and pooled connections by slot and by name."""

import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness import reply, request, settings
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


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_lies_on_a_pooled_connection_is_nobodys_answer(
    authority: Authority, pem: bytes, method: str
) -> None:
    """The worker sees it and the next request in one turn, the request first."""
    go, sent = threading.Event(), threading.Event()

    class Forger(TlsNode):
        def _answer(self, exchange: Exchange) -> None:
            super()._answer(exchange)
            if exchange.request.target == b"/first":
                exchange.wait(go)
                exchange.send(reply(200, b"unasked"))
                sent.set()

    with Forger("a", pem) as a, worker(secured(authority, a)) as w, w.client() as c:
        c.send(request("/first", host="one.test"))
        assert c.response().json()["target"] == "/first"
        w.wait_objects(exchanges=0)
        with w.frozen():
            c.send(request("/second", host="one.test", method=method, body=b"x"))
            go.set()
            assert sent.wait(10)
        assert c.response().json()["target"] == "/second"
        c.send(request("/third", host="one.test"))
        assert c.response().json()["target"] == "/third"


def test_a_pooled_connection_that_ends_is_closed(authority: Authority, node: TlsNode) -> None:
    with worker(secured(authority, node)) as w:
        assert ask(w, "one.test").status == 200
        w.wait_objects(node_connections=1)
        node.connections[0].sock.shutdown(socket.SHUT_RDWR)
        w.wait_objects(node_connections=0, tls_streams=0)
        assert ask(w, "one.test").status == 200


# ---- names that clients make up ----

FRAGILE = {"failures": 1, "backoff": "1h", "backoff_max": "1h"}  # one failure, and it is out
MADE_UP = ["-", ".", "..", "a", "a.", "x" * 64 + ".test", "x" * 200 + ".test", "a!b", "[::1]", "*"]


def strict(node: TlsNode, names: tuple[str, ...], how: str) -> TlsNode:
    """The node refuses every other name: with an alert, or by ending the connection."""

    def look(sock: Any, name: str | None, context: Any) -> int | None:
        if name in names:
            node._note_name(sock, name, context)
            return None
        if how == "end":
            socket.socket.shutdown(sock, socket.SHUT_RDWR)
            return None
        return int(getattr(ssl, f"ALERT_DESCRIPTION_{how}"))

    node.context.sni_callback = look
    return node


def fragile(authority: Authority, *nodes: Any, **more: Any) -> dict[str, Any]:
    tls = {"ca": str(authority.file)} if more.pop("verify", True) else {"verify": False}
    pool = {"tls": tls, "passive": FRAGILE, **more.pop("pool", {})}
    return settings(*nodes, pool=pool, **more)


@pytest.mark.parametrize("verify", [True, False])
def test_a_name_that_nobody_can_have_harms_no_node(
    authority: Authority, node: TlsNode, verify: bool
) -> None:
    with worker(fragile(authority, node, verify=verify)) as w:
        for host in MADE_UP:
            assert ask(w, host).status == (502 if verify else 200), host
        assert w.node_stats()["ejections"] == w.node_stats()["connect_failures"] == 0
        assert ask(w, "one.test").status == 200


def test_nor_does_a_request_without_a_name(authority: Authority, node: TlsNode) -> None:
    with worker(fragile(authority, node)) as w:
        with w.client() as c:
            c.send(b"GET / HTTP/1.0\r\n\r\n")
            assert c.response().status == 502
        assert w.node_stats()["ejections"] == 0


HOW = ["INTERNAL_ERROR", "UNRECOGNIZED_NAME", "HANDSHAKE_FAILURE", "end"]


@pytest.mark.parametrize("how", HOW)
def test_a_node_that_refuses_other_names_is_well(
    authority: Authority, pem: bytes, how: str
) -> None:
    with Closing("a", pem) as a, Closing("b", pem) as b:
        strict(a, ("one.test",), how)
        strict(b, ("one.test",), how)
        with worker(fragile(authority, a, b)) as w:
            for _ in range(3):
                assert ask(w, "nowhere.test").status in (502, 503)
            for slot in (0, 1):
                assert w.node_stats(slot)["ejections"] == 0
            assert {ask(w, "one.test").json()["node"] for _ in range(4)} == {"a", "b"}


@pytest.mark.parametrize("how", HOW)
def test_no_session_moves_for_a_name_that_a_client_makes_up(
    authority: Authority, pem: bytes, how: str
) -> None:
    with Closing("a", pem) as a, Closing("b", pem) as b:
        strict(a, ("one.test",), how)
        strict(b, ("one.test",), how)
        with worker(fragile(authority, a, b, persistence={"type": "ip"})) as w:
            home = ask(w, "one.test").json()["node"]
            for _ in range(3):
                assert ask(w, "nowhere.test").status == 502
            assert ask(w, "one.test").json()["node"] == home


@pytest.mark.parametrize("how", HOW[:1] + HOW[2:])
def test_a_node_that_refuses_what_another_one_serves_is_not(
    authority: Authority, pem: bytes, how: str
) -> None:
    """Nothing is known of the name: that the other node has it shows who has failed."""
    with Closing("a", pem) as a, Closing("b", pem) as b:
        strict(a, (), how)
        with worker(fragile(authority, a, b)) as w:
            assert [ask(w, "one.test").json()["node"] for _ in range(6)] == ["b"] * 6
            assert w.node_stats(0)["ejections"] == 1
            assert len(a.failed) == 1


@pytest.mark.parametrize("how", HOW[:1] + HOW[2:])
def test_nor_is_one_that_refuses_what_it_served_before(
    authority: Authority, pem: bytes, how: str
) -> None:
    """Its sessions move then."""
    with Closing("a", pem) as a, Closing("b", pem) as b:
        pool = {"retries": 0}
        with worker(fragile(authority, a, b, persistence={"type": "ip"}, pool=pool)) as w:
            home = ask(w, "one.test").json()["node"]
            strict(a if home == "a" else b, (), how)
            other = "b" if home == "a" else "a"
            assert [ask(w, "one.test").json()["node"] for _ in range(3)] == [other] * 3
            assert w.node_stats(0 if home == "a" else 1)["ejections"] == 1


def test_nor_is_one_that_leaves_handshakes_lying(authority: Authority, pem: bytes) -> None:
    """As a process that hangs: the kernel goes on taking connections for it."""
    with socket.create_server(("127.0.0.9", 0)) as hung, Closing("b", pem) as b:
        address = f"127.0.0.9:{hung.getsockname()[1]}"
        config = fragile(authority, address, b, timeouts={"connect": "1s"})
        with worker(config) as w:
            assert [ask(w, "one.test").json()["node"] for _ in range(6)] == ["b"] * 6
            assert w.node_stats(0)["ejections"] == 1
