"""Protocol tls: handshakes that nobody opens, on the node that granted the session."""

import random
import threading

import pytest

from tests.core.handshakes import certificate, client_hello, extension, records, server_flight, sni
from tests.harness import changed, proxy, settings
from tests.harness.chop import Chopper
from tests.harness.settings import Config
from tests.harness.tcp import Peer, TcpNode, nodes, proxy_v2
from tests.harness.tls_client import TlsClient, TlsUser, client_context
from tests.harness.tls_node import TlsNode
from tests.harness.wait import until

PEM = certificate()
SSL = {"type": "ssl"}
ID = bytes(range(32))
TICKET = b"ticket" * 20


def tls(*among: TlsNode | TcpNode, **more) -> Config:
    server = {"protocol": "tls", **more.pop("server", {})}
    return settings(*[one.address for one in among], server=server, **more)


def three(**more) -> list[TlsNode]:
    return [TlsNode(name, PEM, **more) for name in "abc"]


class Running:
    """Three nodes that share no session."""

    def __init__(self, **more) -> None:
        self.nodes = three(**more)

    def __enter__(self) -> list[TlsNode]:
        return [one.__enter__() for one in self.nodes]

    def __exit__(self, *exc: object) -> None:
        for one in self.nodes:
            one.__exit__(*exc)


def told(p, key: str) -> list:
    return [line.get(key) for line in p.log_lines()]


# ---- sessions ----


@pytest.mark.parametrize("tickets", [False, True])
def test_every_resumption_reaches_the_node_that_granted_it(tickets: bool) -> None:
    with Running(version="1.2", tickets=tickets) as among:
        with proxy(tls(*among, persistence=SSL, workers=2)) as p:
            users = [TlsUser(p.address(), "1.2", tickets) for _ in range(12)]
            for _ in range(4):
                for user in users:
                    user.visit()
            for user in users:
                assert user.reused == [False, True, True, True]
                assert len(set(user.nodes)) == 1
            assert {user.nodes[0] for user in users} == {"a", "b", "c"}
            p.log(48)
            assert set(told(p, "tls")) == {"1.2"}
            assert set(told(p, "sni")) == {"www.example.com"}
            # Of a ticket OpenSSL renews, the session has a second map.
            entries = p.status()["persistence"]["shop"]["entries"]
            assert entries >= 12


def test_without_persistence_they_do_not() -> None:
    with Running(version="1.2") as among, proxy(tls(*among)) as p:
        user = TlsUser(p.address(), "1.2")
        for _ in range(4):
            user.visit()
        assert user.reused == [False] * 4


@pytest.mark.parametrize("tickets", [False, True])
def test_a_node_that_forgot_grants_anew_and_keeps_the_user(tickets: bool) -> None:
    with Running(version="1.2", tickets=tickets) as among:
        with proxy(tls(*among, persistence=SSL)) as p:
            user = TlsUser(p.address(), "1.2", tickets)
            user.visit()
            for one in among:
                one.forget()
            for _ in range(3):
                user.visit()
            assert user.reused == [False, False, True, True]
            assert len(set(user.nodes)) == 1


def test_tls13_is_recognised_and_the_fallback_decides() -> None:
    classes = {"by-ip": {"type": "ip"}}
    with Running(version="1.3") as among:
        config = tls(*among, persistence={**SSL, "fallback": "by-ip"}, classes=classes)
        with proxy(config) as p:
            user = TlsUser(p.address(), "1.3", source="127.0.9.1")
            for _ in range(3):
                user.visit()
            assert len(set(user.nodes)) == 1
            assert user.reused == [False, True, True]
            assert sorted(p.outcomes(3)) == ["hit", "hit", "tls13"]
            assert told(p, "tls") == ["1.3"] * 3
            status = p.status()["persistence"]
            assert status["shop"]["entries"] == 0
            assert status["shop"]["outcomes"]["tls13"] == 1


def test_tls13_without_a_fallback_says_why_nobody_sticks() -> None:
    with Running(version="1.3") as among, proxy(tls(*among, persistence=SSL)) as p:
        user = TlsUser(p.address(), "1.3")
        for _ in range(3):
            user.visit()
        assert p.outcomes(3) == ["tls13"] * 3
        assert p.status()["pools"]["web"]["nodes"][0]["sessions"] == 0


def test_a_hello_retry_request_is_tls13() -> None:
    with TlsNode("a", PEM, version="1.3", curve="secp521r1") as a:
        with proxy(tls(a, persistence=SSL)) as p:
            TlsUser(p.address(), "1.3").visit()
            assert p.outcomes(1) == ["tls13"]


def test_a_tls13_client_of_tls12_nodes() -> None:
    with Running(version="1.2") as among, proxy(tls(*among, persistence=SSL)) as p:
        user = TlsUser(p.address(), "any")
        for _ in range(3):
            user.visit()
        assert user.reused == [False, True, True]


@pytest.mark.parametrize(("pieces", "size"), [(1, 0), (7, 3), (0, 1), (0, 50)])
def test_any_segments_and_records(pieces: int, size: int) -> None:
    with TlsNode("a", PEM, version="1.2") as a, TlsNode("b", PEM, version="1.2") as b:
        with (
            proxy(tls(a, b, persistence=SSL)) as p,
            Chopper(p.address(), pieces=pieces, records=size, seed=5) as way,
        ):
            user = TlsUser(way.address, "1.2")
            for _ in range(3):
                user.visit()
            assert user.reused == [False, True, True]


def test_a_node_behind_a_chopper_is_read_all_the_same() -> None:
    with TlsNode("a", PEM, version="1.2") as a, TlsNode("b", PEM, version="1.2") as b:
        with (
            Chopper((a.host, a.port), pieces=3, records=5) as one,
            Chopper((b.host, b.port), pieces=2, records=9) as two,
        ):
            addresses = [f"{each.host}:{each.port}" for each in (one, two)]
            config = settings(*addresses, persistence=SSL, server={"protocol": "tls"})
            with proxy(config) as p:
                user = TlsUser(p.address(), "1.2")
                for _ in range(3):
                    user.visit()
                assert user.reused == [False, True, True]


def test_maps_outlive_a_killed_worker_and_a_reload() -> None:
    with Running(version="1.2") as among, proxy(tls(*among, persistence=SSL)) as p:
        users = [TlsUser(p.address(), "1.2") for _ in range(3)]
        for user in users:
            user.visit()
        p.wait_worker_replaced(p.kill_worker(0))
        for user in users:
            user.visit()
        assert p.reload(changed(p.config, "timeouts.tunnel", "30m")).returncode == 0
        for user in users:
            user.visit()
            assert user.reused == [False, True, True]


def test_many_at_once() -> None:
    with Running(version="1.2") as among, proxy(tls(*among, persistence=SSL, workers=2)) as p:
        users = [TlsUser(p.address(), "1.2") for _ in range(24)]

        def live(mine: list[TlsUser]) -> None:
            for _ in range(4):
                for user in mine:
                    user.visit()

        threads = [threading.Thread(target=live, args=(users[i::6],)) for i in range(6)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        assert [user.reused for user in users] == [[False, True, True, True]] * 24


# ---- a node played by the test ----


class Hand:
    """A proxy with ssl persistence whose nodes the test plays byte by byte."""

    def __init__(self, p, among: list[TcpNode]):
        self.p = p
        self.nodes = among

    def shake(self, hello: bytes, answer: bytes) -> TcpNode:
        """One handshake; the node that had it."""
        with Peer.connect(self.p.address()) as client:
            client.send(hello)
            node = self._taken()
            there = node.peers[-1]
            assert there.exactly(len(hello)) == hello
            there.send(answer)
            assert client.exactly(len(answer)) == answer
            there.close()
            assert client.rest() == b""
        return node

    def _taken(self) -> TcpNode:
        found: list[TcpNode] = []

        def look() -> bool:
            found.extend(one for one in self.nodes if one.waiting())
            return bool(found)

        until(look, "a connection at a node")
        return found[0]

    def entries(self) -> int:
        return self.p.status()["persistence"]["shop"]["entries"]


@pytest.fixture
def hand():
    with nodes(3) as among, proxy(tls(*among, persistence=SSL)) as p:
        yield Hand(p, among)


def test_a_flood_of_made_up_ids_leaves_the_cache_empty(hand: Hand) -> None:
    pick = random.Random(3)
    for number in range(60):
        made_up = pick.randbytes(32)
        offered = extension(35, pick.randbytes(100)) if number % 2 else b""
        client = Peer.connect(hand.p.address())
        client.send(records(client_hello(made_up, offered)))
        client.close()

    def over() -> bool:
        for one in hand.nodes:
            while one.waiting():
                one.peers[-1].close()
        return len(hand.p.log_lines()) == 60

    until(over, "60 lines in the access log")
    assert hand.entries() == 0


def test_a_handshake_that_is_not_gone_through_grants_nothing(hand: Hand) -> None:
    hand.shake(records(client_hello()), server_flight(ID, done=False))
    assert hand.entries() == 0


def test_what_is_granted_in_the_last_byte(hand: Hand) -> None:
    first = hand.shake(records(client_hello()), server_flight(ID))
    assert hand.entries() == 1
    assert hand.shake(records(client_hello(ID)), server_flight(ID)) is first
    assert hand.entries() == 1


def test_a_renewed_ticket_leads_to_the_same_node(hand: Hand) -> None:
    asking = records(client_hello(b"", extension(35, b"")))
    first = hand.shake(asking, server_flight(b"", TICKET))
    resuming = records(client_hello(ID, extension(35, TICKET)))
    renewed = server_flight(ID, b"renewed" * 20)
    assert hand.shake(resuming, renewed) is first
    again = records(client_hello(bytes(32), extension(35, b"renewed" * 20)))
    assert hand.shake(again, server_flight(bytes(32))) is first
    assert hand.entries() == 2  # both tickets; no id that was only echoed


@pytest.mark.parametrize("answer", [
    b"\x15\x03\x03\x00\x02\x02\x28",
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    bytes(3000),
    b"\x16\x03\x03\xff\xff" + bytes(70000),
])  # fmt: skip
def test_whatever_a_node_says_is_passed_on(hand: Hand, answer: bytes) -> None:
    hand.shake(records(client_hello(ID)), answer)
    assert hand.entries() == 0


def test_what_came_behind_the_hello_goes_with_it(hand: Hand) -> None:
    hello = records(client_hello(ID)) + b"early" * 3000
    hand.shake(hello, server_flight(ID))


# ---- not TLS, and too slow ----


@pytest.mark.parametrize(("data", "cause"), [
    (b"GET / HTTP/1.1\r\n\r\n", "not-tls"),
    (b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", "bad-hello"),
    (b"\x16\x03\x01\xff\xff", "bad-hello"),
])  # fmt: skip
def test_what_is_no_hello_is_closed(hand: Hand, data: bytes, cause: str) -> None:
    assert Peer.turned_away(hand.p.address(), first=data) == "reset"
    (line,) = hand.p.log(1)
    assert (line["cause"], line["virtual_server"]) == (cause, "shop")
    assert not any(one.waiting() for one in hand.nodes)


def test_not_tls_may_be_relayed() -> None:
    with TcpNode() as a, proxy(tls(a, server={"not_tls": "tcp"}, persistence=SSL)) as p:
        with Peer.connect(p.address()) as client:
            client.send(b"SSH-2.0-x\r\n")
            there = a.accept()
            assert there.exactly(11) == b"SSH-2.0-x\r\n"
            there.send(b"SSH-2.0-y\r\n")
            assert client.exactly(11) == b"SSH-2.0-y\r\n"
            there.close()
        assert p.outcomes(1) == ["no-key"]


def test_who_is_too_slow_is_closed() -> None:
    with TcpNode() as a, proxy(tls(a, timeouts={"handshake": "200ms"})) as p:
        for first in (b"", b"\x16\x03\x01"):
            assert Peer.turned_away(p.address(), first=first) == "reset"
        assert {line["cause"] for line in p.log(2)} == {"opening-timeout"}


# ---- where to ----


def test_routes_by_name_and_protocol() -> None:
    with nodes(3) as (a, b, c):
        config = tls(a)
        config["pools"] |= {"b": {"nodes": [b.address]}, "c": {"nodes": [c.address]}}
        config["virtual_servers"]["shop"]["routes"] = [
            {"sni": "*.example.com", "alpn": "h2", "pool": "b"},
            {"sni": "c.example.com", "pool": "c"},
        ]
        with proxy(config) as p:
            h2 = extension(16, b"\0\x0c\x02h2\x08http/1.1")
            for name, more, node in (
                (b"WWW.Example.com", h2, b), (b"c.example.com.", b"", c), (b"c.example.com", h2, b),
                (b"www.example.com", b"", a), (b"", b"", a),
            ):  # fmt: skip
                with Peer.connect(p.address()) as client:
                    hello = records(client_hello(b"", (sni(name) if name else b"") + more))
                    client.send(hello)
                    assert node.accept().exactly(len(hello)) == hello
                    node.peers[-1].close()


def test_universal_by_server_name() -> None:
    with Running(version="1.3") as among:
        config = tls(*among, persistence={"type": "universal", "key": "sni"})
        with proxy(config) as p:
            names = {}
            for name in (
                "one.example",
                "two.example",
                "ONE.example",
                "one.example.",
                "Two.Example",
            ):
                with TlsClient(p.address(), client_context("1.3"), name=name.rstrip(".")) as client:
                    names[name] = client.ask("/").json()["node"]
            assert names["one.example"] == names["ONE.example"] == names["one.example."]
            assert names["two.example"] == names["Two.Example"] != names["one.example"]


def test_hash_by_server_name() -> None:
    with Running(version="1.3") as among:
        config = tls(*among, persistence={"type": "hash", "on": "sni"})
        with proxy(config) as p:
            user = TlsUser(p.address(), "1.3", name="one.example")
            assert len({user.visit() for _ in range(4)}) == 1
            assert p.outcomes(4) == ["hashed"] * 4


def test_proxy_header_ahead_of_the_hello() -> None:
    with TcpNode() as a, proxy(tls(a, pool={"proxy_protocol": "v2"})) as p:
        with Peer.connect(p.address()) as client:
            alpn = extension(16, b"\0\x0c\x02h2\x08http/1.1")
            hello = records(client_hello(b"", sni(b"www.example.com") + alpn))
            client.send(hello)
            client.half_close()
            source, destination, more, rest = proxy_v2(a.accept().rest())
            assert (source, destination) == (client.name, client.peer)
            assert more == {1: b"h2", 2: b"www.example.com"}
            assert rest == hello
            a.peers[-1].close()


# ---- failures ----


def test_a_dead_node_is_forgotten_and_the_new_one_grants() -> None:
    with Running(version="1.2", tickets=False) as among:
        with proxy(tls(*among, persistence=SSL)) as p:
            user = TlsUser(p.address(), "1.2", tickets=False)
            gone = user.visit()
            left = [one.address for one in among if one.name != gone]
            assert p.reload(changed(p.config, "pools.web.nodes", left)).returncode == 0
            for _ in range(3):
                user.visit()
            assert user.reused == [False, False, True, True]
            assert gone not in user.nodes[1:]
            assert sorted(p.outcomes(4)) == ["hit", "hit", "no-key", "node-removed"]
            assert p.status()["persistence"]["shop"]["entries"] == 1
