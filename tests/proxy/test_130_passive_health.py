"""Nodes that fail without anybody saying so: requests show it. One that does is left out for a
while, one request tries it then, and it is back when it answers."""

import contextlib
import socket
import struct
import threading
from typing import Any

import pytest

from tests.harness import (
    HttpNode,
    Proxy,
    RawNode,
    command,
    next_host,
    proxy,
    reply,
    settings,
    sticky,
    until,
)  # fmt: skip
from tests.harness.node import Exchange
from tests.harness.tcp import Peer, TcpNode

LONG = {"failures": 3, "backoff": "1h", "backoff_max": "1h"}  # ejected to the end of the story
SHORT = {"failures": 3, "backoff": "100ms", "backoff_max": "100ms"}
ERRORS = {"failures": 0, "errors": 50, "errors_of": 4, "backoff": "1h", "backoff_max": "1h"}


class ResettingNode:
    """Takes each connection and resets it at once, as what stands in front of a dead server."""

    def __init__(self) -> None:
        self.listener = socket.create_server((next_host(), 0))
        self.address = "{}:{}".format(*self.listener.getsockname())
        self.taken = 0
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while True:
            try:
                one, _ = self.listener.accept()
            except OSError:
                return  # stopped
            self.taken += 1
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            one.close()

    def stop(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(10)


def node_of(p: Proxy, node: Any) -> dict[str, Any]:
    """What `fastlb status` says of a node."""
    address = node if isinstance(node, str) else node.address
    (found,) = [one for one in p.status()["pools"]["web"]["nodes"] if one["address"] == address]
    return found


def is_down(p: Proxy, node: Any) -> bool:
    found = node_of(p, node)
    assert (found["state"] == "down") == found["health"]["ejected"]
    return found["health"]["ejected"]


# ---- out ----


def test_one_that_refuses_is_asked_as_often_as_failures_says() -> None:
    with HttpNode("a") as a, HttpNode("b") as b:
        b.stop()
        with proxy(settings(a, b, pool={"passive": LONG})) as p:
            assert [p.get().node for _ in range(20)] == ["a"] * 20
            found = node_of(p, b)
            assert (found["state"], found["connect_failures"]) == ("down", 3)
            assert found["health"]["ejections"] == 1
            assert 3_500_000 < found["health"]["ejected_ms"] <= 3_600_000
            assert node_of(p, a)["health"] == {
                "ejected": False, "ejected_ms": 0, "failures": 0, "resets": 0, "errors": 0,
                "ejections": 0, "probes": 0,
            }  # fmt: skip
            table = command("status", "-c", str(p.file)).stdout
            assert "down (ejected)" in table


def test_one_that_resets_each_connection_is_left_out() -> None:
    node = ResettingNode()
    with contextlib.closing(node.listener), HttpNode("a") as a:
        with proxy(settings(node.address, a, pool={"passive": LONG})) as p:
            assert [p.get().node for _ in range(12)] == ["a"] * 12
            assert is_down(p, node)
            assert node.taken == 3
        node.stop()


def test_one_that_never_answers_is_left_out() -> None:
    with RawNode(Exchange.wait_end) as mute, HttpNode("a") as a:
        config = settings(mute, a, pool={"passive": LONG}, timeouts={"response": "1s"})
        with proxy(config) as p:
            statuses = [p.get().status for _ in range(10)]
            assert sorted(statuses) == [200] * 7 + [504] * 3
            assert is_down(p, mute)


def test_one_that_answers_with_errors_is_left_out_where_that_counts() -> None:
    with RawNode(reply(500, b"oops")) as sick, HttpNode("a") as a:
        with proxy(settings(sick, a, pool={"passive": ERRORS})) as p:
            statuses = [p.get().status for _ in range(20)]
            assert statuses.count(500) == 4
            assert is_down(p, sick)
            assert node_of(p, sick)["health"]["errors"] == 4
        with proxy(settings(sick, a)) as p:
            statuses = [p.get().status for _ in range(20)]
            assert statuses.count(500) == 10


def test_a_tcp_node_that_refuses_is_left_out() -> None:
    with TcpNode() as a, TcpNode() as b:
        b.stop()
        config = settings(
            a.address, b.address, server={"protocol": "tcp"}, pool={"passive": LONG}
        )  # fmt: skip
        with proxy(config) as p:
            for _ in range(12):
                with Peer.connect(p.address()) as client:
                    client.send(b"1")
                    assert a.accept().exactly(1) == b"1"
            assert node_of(p, b.address)["connect_failures"] == 3
            assert is_down(p, b.address)


def test_a_tcp_node_that_resets_each_connection_is_left_out() -> None:
    bad, good = ResettingNode(), GreetingNode()
    nodes = bad.address, good.address
    with proxy(settings(*nodes, server={"protocol": "tcp"}, pool={"passive": LONG})) as p:
        assert [_greeted(p) for _ in range(20)].count(False) <= 3
        assert is_down(p, bad.address)
        found = node_of(p, bad.address)
        assert found["health"]["resets"] + found["connect_failures"] == 3
    bad.stop()
    good.stop()


class GreetingNode(ResettingNode):
    """Says hello to each connection and ends it."""

    def _run(self) -> None:
        while True:
            try:
                one, _ = self.listener.accept()
            except OSError:
                return  # stopped
            one.sendall(b"hello")
            one.close()


def _greeted(p: Proxy) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(p.address(), 10) as client:
        return client.recv(10) == b"hello"
    return False


# ---- what is not the node's doing ----


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_request_that_no_node_survives_does_them_no_harm(method: str) -> None:
    def script(exchange: Exchange) -> None:
        exchange.read_body()
        if exchange.request.target == b"/poison":
            exchange.close()
        else:
            exchange.send(reply(200, exchange.node.name.encode()))

    with contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(RawNode(script, name=name)) for name in "abc"]
        by_user = {"type": "universal", "key": "header:X-User"}
        with proxy(settings(*nodes, persistence=by_user, pool={"passive": LONG})) as p:
            users = [("X-User", str(number)) for number in range(6)]
            homes = [p.get("/", user).body for user in users]
            assert set(homes) == {b"a", b"b", b"c"}
            for _ in range(10):
                with p.client() as client:
                    assert client.ask("/poison", method=method).status == 502
            assert [p.get("/", user).body for user in users] == homes
            health = [node_of(p, node)["health"] for node in nodes]
            # Not those of POSTs on the connections that the users have left.
            assert sum(one["resets"] for one in health) == (30 if method == "GET" else 7)
            assert [one["ejections"] for one in health] == [0, 0, 0]


def test_clients_that_leave_do_a_node_no_harm() -> None:
    with RawNode(Exchange.wait_end) as a, proxy(settings(a, pool={"passive": LONG})) as p:
        for number in range(6):
            with p.client() as client:
                client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                a.wait_requests(number + 1)
                client.reset()
        p.log(6)
        assert node_of(p, a)["health"]["failures"] == 0
        with p.client() as client:
            client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab")
            a.wait_requests(7)
            client.reset()
        p.log(7)
        assert node_of(p, a)["health"]["failures"] == 0


def test_kept_connections_that_the_node_has_closed_do_it_no_harm() -> None:
    """The node closes each connection when the second request on it comes."""

    def script(exchange: Exchange) -> None:
        if len(exchange.connection.requests) == 1:
            exchange.send(reply(200, b"a"))
        else:
            exchange.close()

    with RawNode(script) as a:
        with proxy(settings(a, pool={"passive": LONG})) as p:
            for _ in range(10):
                assert p.get().status == 200
            found = node_of(p, a)["health"]
            assert (found["failures"], found["resets"], found["ejections"]) == (0, 0, 0)


# ---- back ----


def test_it_is_back_as_soon_as_it_answers_its_probe() -> None:
    with HttpNode("a") as a, HttpNode("b") as b:
        b.stop()
        with proxy(settings(a, b, pool={"passive": SHORT})) as p:
            for _ in range(8):
                p.get()
            assert node_of(p, b)["health"]["ejections"] >= 1
            b.start()
            until(lambda: p.get().node == "b", "the node is back")
            found = node_of(p, b)
            assert (found["state"], found["health"]["failures"]) == ("up", 0)
            assert found["health"]["probes"] >= 1
            assert [p.get().node for _ in range(6)].count("b") == 3


def test_the_operator_is_told() -> None:
    slow = {"failures": 3, "backoff": "3s", "backoff_max": "3s"}  # longer than between two looks
    with HttpNode("a") as a, HttpNode("b") as b:
        b.stop()
        with proxy(settings(a, b, pool={"passive": slow})) as p:
            until(lambda: p.get() and f"{b.address} of [pools.web] is left out" in p.stderr(), "it")
            assert "FLB-S186" in p.stderr()
            b.start()
            until(lambda: p.get() and f"{b.address} of [pools.web] is back" in p.stderr(), "that")


def test_one_request_probes_at_a_time() -> None:
    """The probe hangs: no other request follows it there."""
    hold = threading.Event()

    def script(exchange: Exchange) -> None:
        exchange.wait(hold)
        exchange.send(reply(200, b"b"))

    with HttpNode("a") as a, RawNode(script) as b:
        b.stop()
        with proxy(settings(a, b, pool={"passive": SHORT}, timeouts={"connect": "5m"})) as p:
            for _ in range(8):
                p.get()
            until(lambda: node_of(p, b)["health"]["ejected_ms"] == 0, "the back-off is over")
            b.start()
            with p.client() as first, p.client() as second:
                first.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                second.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                b.wait_requests(1)
                assert [p.get().node for _ in range(10)] == ["a"] * 10
                assert len(b.requests) == 1
                assert is_down(p, b)
                hold.set()
                assert {first.response().body, second.response().body} >= {b"b"}
            assert {p.get().body for _ in range(4)} >= {b"b"}


def test_where_nothing_else_is_usable_it_is_used_all_the_same() -> None:
    with HttpNode("a") as a, HttpNode("b") as b:
        a.stop()
        b.stop()
        with proxy(settings(a, b, pool={"passive": LONG})) as p:
            assert {p.get().status for _ in range(8)} == {503}
            assert is_down(p, a)
            assert is_down(p, b)
            a.start()
            answers = [p.get() for _ in range(6)]
            assert [answer.status for answer in answers] == [200] * 6
            assert not is_down(p, a)
            assert is_down(p, b)


# ---- sessions ----


def user_of(p: Proxy, node: str) -> Any:
    """A user whose session is on the node of that name."""
    for number in range(50):
        user = p.user(f"u{number}")
        if user.get().node == node:
            return user
    raise AssertionError(f"no session on {node} of 50")


def eject(p: Proxy, node: HttpNode) -> None:
    """The node refuses; requests without a session find that out."""
    node.stop()
    until(lambda: p.get() and is_down(p, node), "the node is left out")


def test_sessions_of_a_node_that_is_left_out_move() -> None:
    with HttpNode("a") as a, HttpNode("b") as b, proxy(sticky(a, b, pool={"passive": LONG})) as p:
        user = user_of(p, "b")
        eject(p, b)
        failures = node_of(p, b)["connect_failures"]
        assert user.get("/moved").node == "a"
        assert p.log_of("/moved")["outcome"] == "node-down"
        b.start()
        assert [user.get().node for _ in range(4)] == ["a"] * 4
        assert node_of(p, b)["connect_failures"] == failures


def test_sessions_that_stay_get_their_node_back_first() -> None:
    passive = {"failures": 3, "backoff": "100ms", "backoff_max": "1h"}
    with HttpNode("a") as a, HttpNode("b") as b:
        config = sticky(
            a, b, pool={"passive": passive}, failure_mode="close", delete_on_failure=False
        )
        with proxy(config) as p:
            user = user_of(p, "b")
            eject(p, b)
            for _ in range(8):  # each probe fails, and the back-off is soon beyond a minute
                until(lambda: _tried(p, user, b), "a probe of the session's own")
            assert node_of(p, b)["health"]["ejected_ms"] > 5_000
            b.start()
            until(lambda: user.get().status == 200, "the session is served again")
            assert user.nodes[-1] == "b"
            assert not is_down(p, b)


def _tried(p: Proxy, user: Any, node: HttpNode) -> bool:
    before = node_of(p, node)["health"]["ejections"]
    assert user.get().status == 503
    return node_of(p, node)["health"]["ejections"] > before


@pytest.mark.parametrize("mode", ["new-node", "close"])
def test_sessions_stay_where_every_node_fails(mode: str) -> None:
    """Errors all over, of a database say: nobody is sent to and fro, nor turned away."""
    with HttpNode("a") as a, HttpNode("b") as b:
        passive = {**ERRORS, "errors_of": 2}
        with proxy(sticky(a, b, pool={"passive": passive}, failure_mode=mode)) as p:
            user = user_of(p, "b")
            scripts = a.script, b.script
            a.script = b.script = reply(500, b"no database")
            until(lambda: p.get() and is_down(p, a) and is_down(p, b), "both are left out")
            assert [user.get().status for _ in range(5)] == [500] * 5
            a.script, b.script = scripts
            assert [user.get().node for _ in range(5)] == ["b"] * 5


def test_after_an_outage_of_all_no_session_moves_to_the_first_that_is_back() -> None:
    with HttpNode("a") as a, HttpNode("b") as b:
        with proxy(sticky(a, b, pool={"passive": LONG}, delete_on_failure=False,
                          failure_mode="close")) as p:  # fmt: skip
            users = [user_of(p, name) for name in "ab"]
            a.stop()
            b.stop()
            until(lambda: p.get() and is_down(p, a) and is_down(p, b), "both are left out")
            a.start()
            b.start()
            assert p.get().status == 200
            assert [user.get().node for user in users] == ["a", "b"]
            assert not is_down(p, a)
            assert not is_down(p, b)


def test_one_that_is_still_dead_then_is_out_again_by_the_first_failure() -> None:
    with HttpNode("a") as a, HttpNode("b") as b:
        with proxy(settings(a, b, pool={"passive": LONG})) as p:
            a.stop()
            b.stop()
            until(lambda: p.get() and is_down(p, a) and is_down(p, b), "both are left out")
            a.start()
            before = node_of(p, b)["connect_failures"]
            assert [p.get().node for _ in range(20)] == ["a"] * 20
            assert is_down(p, b)
            assert node_of(p, b)["connect_failures"] - before <= 2
