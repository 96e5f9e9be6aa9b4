"""A ClientHello arrives in any pieces and in any records, or is refused; and a node's handshake is
read as it passes, in any pieces."""

import contextlib
import itertools
import random
import threading
from collections import Counter

import pytest

from tests.core.handshakes import certificate, client_hello, extension, records, sni, vector
from tests.core.test_tls_hello import flights, mutated
from tests.harness import TIMEOUT, HttpNode, proxy, settings, until
from tests.harness.chop import ByteNode, Chopper, reframed
from tests.harness.hellos import KINDS, hello_of
from tests.harness.operator import status_of
from tests.harness.tls_client import TlsUser
from tests.harness.tls_node import TlsNode

PEM = certificate()
NAME = sni(b"www.example.com")


def passed(*nodes, server=None, timeouts=None, **keys):
    return settings(
        *nodes, persistence={"type": "ssl", **keys}, server={"protocol": "tls", **(server or {})},
        timeouts=timeouts,
    )  # fmt: skip


def causes(p):
    return {name: count for name, count in status_of(p)["causes"].items() if count}


# ---- real hellos ----


@pytest.fixture(scope="module")
def echo():
    """A proxy in front of a node that records."""
    with ByteNode("a", b"\x15\x03\x03\0\2\2\x28") as node, proxy(passed(node)) as p:
        yield p, node


def arrives(echo, sent, pieces):
    p, node = echo
    number = len(node.connections)
    with p.client() as client:
        for piece in pieces:
            client.send(piece)
        assert client.reader.exactly(7)
    assert node.received(number) == sent


@pytest.mark.parametrize("kind", KINDS)
def test_a_hello_byte_by_byte(echo, kind):
    data = hello_of(kind)
    arrives(echo, data, [data[at : at + 1] for at in range(len(data))])


@pytest.mark.parametrize("kind", KINDS)
def test_a_hello_in_random_pieces_and_records_with_more_behind_it(echo, kind):
    for seed in range(5):
        pick = random.Random(seed)
        data = reframed(hello_of(kind), pick.choice([1, 3, 40, 1000]), pick)
        data += pick.randbytes(pick.choice([0, 1, 5000]))
        cuts = sorted(
            {0, len(data), *(pick.randrange(len(data)) for _ in range(pick.randrange(9)))}
        )
        arrives(echo, data, [data[a:b] for a, b in itertools.pairwise(cuts)])


def test_the_longest_hello_that_is_taken(echo):
    room = 16384 - len(client_hello(extensions=NAME + extension(21, b"")))
    data = records(client_hello(extensions=NAME + extension(21, bytes(room))), 7, 500)
    arrives(echo, data, [data])
    arrives(echo, data, [data[at : at + 1000] for at in range(0, len(data), 1000)])


# ---- whole handshakes in other pieces ----


@pytest.mark.parametrize("tickets", [False, True], ids=["ids", "tickets"])
@pytest.mark.parametrize(("pieces", "framed"), [(1, 0), (0, 1), (3, 5), (200, 2000)])
def test_sessions_are_learned_from_a_handshake_in_any_pieces(tickets, pieces, framed):
    with TlsNode("a", PEM, version="1.2") as a, TlsNode("b", PEM, version="1.2") as b:
        with Chopper((a.host, a.port), pieces, framed) as at_a, \
                Chopper((b.host, b.port), pieces, framed) as at_b:  # fmt: skip
            nodes = [f"{host}:{port}" for host, port in (at_a.address, at_b.address)]
            with proxy(passed(*nodes)) as p, Chopper(p.address(), pieces, framed) as way:
                users = [TlsUser(way.address, "1.2", tickets) for _ in range(4)]
                for _ in range(3):
                    for user in users:
                        user.visit()
                assert Counter(p.outcomes(12)) == {"no-key": 4, "hit": 8}
    assert [user.reused for user in users] == [[False, True, True]] * 4
    assert {user.nodes[0] for user in users} == {"a", "b"}


# ---- bounds ----


@pytest.mark.parametrize("sent", [b"", b"\x16", records(client_hello(extensions=NAME))[:-1]])
def test_a_slow_hello_is_closed_by_time_out(sent):
    with ByteNode("a") as node, proxy(passed(node, timeouts={"handshake": "300ms"})) as p:
        with p.client() as client:
            client.send(sent)
            client.expect_closed()
        until(lambda: causes(p) == {"opening-timeout": 1}, "the time-out is counted")
        assert p.log(1)[0]["cause"] == "opening-timeout"
    assert node.connections == []


def test_a_hello_that_drips_is_closed_by_the_same_time_out():
    """Progress does not prolong it."""
    data = records(client_hello(extensions=NAME + extension(21, bytes(9000))))
    with ByteNode("a") as node, proxy(passed(node, timeouts={"handshake": "500ms"})) as p:
        with p.client() as client:
            client.sock.settimeout(0.1)
            closed = False
            for at in range(100):
                client.send_if_open(data[at : at + 1])
                try:
                    closed = client.sock.recv(1) == b""
                except TimeoutError:
                    continue
                except ConnectionResetError:
                    closed = True
                break
            assert closed
        assert p.log(1)[0]["cause"] == "opening-timeout"
    assert node.connections == []


@pytest.mark.parametrize(
    ("sent", "cause"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "not-tls"),
        (b"SSH-2.0-client\r\n", "not-tls"),
        (b"\x80\x2e\x01\x03\x01", "not-tls"),
        (b"\0", "not-tls"),
        (b"\x16\x03\x01\0\0", "not-tls"),
        (b"\x15\x03\x01\0\2\1\0", "not-tls"),
        (records(client_hello(extensions=NAME + NAME)), "bad-hello"),
        (records(client_hello(b"s" * 33)), "bad-hello"),
        (records(client_hello(extensions=sni(b"a\0b"))), "bad-hello"),
        (records(client_hello()[:20]) + b"\x15\x03\x01\0\2\1\0", "bad-hello"),
        (b"\x16\x03\x01\xff\xff", "bad-hello"),
        (records(b"\x01\xff\xff\xff"), "bad-hello"),
    ],
)
def test_what_is_no_hello_is_closed_and_counted(echo, sent, cause):
    p, node = echo
    source = f"127.0.22.{next(SOURCES)}"
    before = len(node.connections), causes(p).get(cause, 0)
    with p.client(source) as client:
        client.send(sent)
        client.expect_closed()
    assert line_of(p, source)["cause"] == cause
    assert (len(node.connections), causes(p)[cause]) == (before[0], before[1] + 1)


SOURCES = itertools.count(1)


def line_of(p, source):
    def look():
        return [line for line in p.log_lines() if line["client"] == source]

    return until(look, f"the line of {source} in the access log")[0]


@pytest.mark.parametrize("ended", ["half", "reset"])
def test_a_client_that_leaves_within_its_hello(echo, ended):
    p, node = echo
    source = f"127.0.22.{next(SOURCES)}"
    before = len(node.connections)
    client = p.client(source)
    client.send(hello_of("python")[:100])
    if ended == "half":
        client.half_close()
        client.expect_closed()
        client.sock.close()
    else:
        client.reset()
    assert line_of(p, source)["cause"] == "client-closed"
    assert len(node.connections) == before


def test_many_hellos_at_once_byte_by_byte(echo):
    p, node = echo
    before = len(node.connections)
    data = hello_of("openssl 1.3")
    clients = [p.client() for _ in range(50)]
    for at in range(0, len(data), 9):
        for client in clients:
            client.send(data[at : at + 9])
    for client in clients:
        assert client.reader.exactly(7)
        client.sock.close()
    assert {node.received(before + n) for n in range(50)} == {data}


# ---- goodbyes ----


class Parting(ByteNode):
    """Ends as `how` says once its peer has begun."""

    def __init__(self, how):
        super().__init__("a")
        self.how = how

    def _serve(self, connection):
        connection.reader.more()
        self.how(connection)
        connection.finish("node")


def test_a_node_that_left_resets_what_comes_too_late_and_that_is_no_failure():
    """So most connections of TLS end: a close_notify answers the other, and finds nobody."""
    with Parting(lambda connection: connection.sock.sendall(b"last words")) as node:
        with proxy(passed(node)) as p:
            with p.client() as client:
                client.send(hello_of("python"))
                assert client.reader.rest() == b"last words"
                client.send(b"goodbye")
                with contextlib.suppress(ConnectionError):
                    client.reader.rest()
            assert "cause" not in p.log(1)[0]
            assert causes(p) == {}


def test_a_client_that_left_may_be_sent_what_it_does_not_want():
    gone = threading.Event()

    def late(connection):
        assert connection.reader.rest().endswith(b"goodbye")
        assert gone.wait(TIMEOUT)
        with contextlib.suppress(OSError):
            for _ in range(3):
                connection.sock.sendall(b"goodbye to you")
            connection.reader.more()

    with Parting(late) as node, proxy(passed(node)) as p:
        with p.client() as client:
            client.send(hello_of("python"), b"goodbye")
            client.half_close()
        gone.set()
        assert "cause" not in p.log(1)[0]
        assert causes(p) == {}


# ---- what an enemy sends ----


def test_mutated_hellos_leave_the_proxy_as_it_was(echo):
    p, node = echo
    workers = p.worker_pids()
    for seed in range(200):
        pick = random.Random(seed)
        data = reframed(hello_of(pick.choice(list(KINDS))), pick.choice([0, 5, 90]), pick)
        data = mutated(data, pick, pick.randint(1, 4))
        before = len(node.connections)
        with p.client() as client:
            for piece in data[:40], data[40:]:
                client.send_if_open(piece)
            with contextlib.suppress(OSError):
                client.half_close()
                assert client.reader.rest() in (b"", node.answer)
        if len(node.connections) > before:
            assert node.received(before) in (data, b""), seed
    assert p.worker_pids() == workers
    arrives(echo, hello_of("curl"), [hello_of("curl")])


def test_a_node_that_answers_anything_is_relayed_byte_for_byte():
    """The reader of the node's handshake is no filter."""
    with Strange("a") as node, proxy(passed(node)) as p:
        workers = p.worker_pids()
        for number in range(100):
            with p.client() as client:
                client.send(hello_of("openssl 1.2"))
                assert client.reader.rest() == strange_answer(number)
        assert p.worker_pids() == workers


def strange_answer(number):
    pick = random.Random(number)
    flight = mutated(pick.choice(flights()).server, pick, pick.randint(0, 4))
    return flight + pick.randbytes(30)


class Strange(ByteNode):
    """Answers each connection's first bytes with something else, and closes."""

    def _serve(self, connection):
        connection.reader.more()
        answer = strange_answer(self.connections.index(connection))
        half = len(answer) // 2
        for part in (answer[:half], answer[half:]):
            connection.sock.sendall(part)
        connection.finish("node")


# ---- not TLS, relayed ----


def test_what_is_not_tls_is_relayed_if_so_configured():
    with HttpNode("a") as a, proxy(passed(a, server={"not_tls": "tcp"})) as p:
        with p.client() as client:
            assert client.ask("/first").node == "a"
            assert client.ask("/second").node == "a"
        with p.client() as client:
            client.drip(b"GET /third HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.response().node == "a"


def test_tls_beside_it_is_passed_with_its_session():
    with TlsNode("a", PEM, version="1.2") as a, TlsNode("b", PEM, version="1.2") as b:
        with proxy(passed(a, b, server={"not_tls": "tcp"})) as p:
            users = [TlsUser(p.address()) for _ in range(4)]
            for _ in range(3):
                for user in users:
                    user.visit()
            with p.client() as client:
                client.send(b"plain")
                client.half_close()
                client.reader.rest()
    assert [user.reused for user in users] == [[False, True, True]] * 4


def test_a_bad_hello_is_closed_even_there():
    with ByteNode("a") as node, proxy(passed(node, server={"not_tls": "tcp"})) as p:
        with p.client() as client:
            client.send(records(client_hello(extensions=NAME + NAME)))
            client.expect_closed()
        assert p.log(1)[0]["cause"] == "bad-hello"
    assert node.connections == []


# ---- routes ----


def routed(routes, **pools):
    """The pool "web" is the default; each pool has one node of its name."""
    config = settings(pools["web"], server={"protocol": "tls", "routes": routes})
    for name, node in pools.items():
        config["pools"].setdefault(name, {"nodes": [node]})
    return config


@pytest.fixture(scope="module")
def by_name():
    names = ("web", "exact", "wild", "two")
    nodes = {name: ByteNode(name, name.encode().ljust(8)) for name in names}
    routes = [
        {"sni": "shop.example.com", "alpn": "h2", "pool": "two"},
        {"sni": "shop.example.com", "pool": "exact"},
        {"sni": "*.example.com", "pool": "wild"},
        {"alpn": "acme-tls/1", "pool": "two"},
    ]
    for node in nodes.values():
        node.start()
    try:
        with proxy(routed(routes, **nodes)) as p:
            yield p
    finally:
        for node in nodes.values():
            node.stop()


def pool_of(p, hello):
    with p.client() as client:
        client.send(hello)
        return client.reader.exactly(8).decode().strip()


@pytest.mark.parametrize(
    ("name", "pool"),
    [
        (b"shop.example.com", "exact"),
        (b"SHOP.Example.COM", "exact"),
        (b"shop.example.com.", "exact"),
        (b"other.example.com", "wild"),
        (b"a.b.Example.com", "wild"),
        (b"other.example.com.", "wild"),
        (b"example.com", "web"),
        (b"xexample.com", "web"),
        (b"shop.example.com.evil.test", "web"),
        (b"shop.example.com..", "web"),
        (b".example.com", "web"),
        (None, "web"),
    ],
)
def test_the_server_name_routes(by_name, name, pool):
    extensions = b"" if name is None else sni(name)
    assert pool_of(by_name, records(client_hello(extensions=extensions))) == pool


def alpn(*names):
    return extension(16, vector(b"".join(vector(name, 1) for name in names), 2))


@pytest.mark.parametrize(
    ("name", "names", "pool"),
    [
        (b"shop.example.com", [b"h2", b"http/1.1"], "two"),
        (b"shop.example.com", [b"http/1.1", b"h2"], "two"),
        (b"shop.example.com", [b"http/1.1"], "exact"),
        (b"shop.example.com", [b"H2"], "exact"),
        (b"other.test", [b"acme-tls/1"], "two"),
        (b"other.test", [b"h2"], "web"),
    ],
)
def test_alpn_routes(by_name, name, names, pool):
    hello = records(client_hello(extensions=sni(name) + alpn(*names)), 5, 1, 9)
    assert pool_of(by_name, hello) == pool


def test_real_clients_are_routed_by_name():
    with TlsNode("web", PEM) as web, TlsNode("api", PEM) as api:
        config = routed([{"sni": "api.example.com", "pool": "api"}], web=web, api=api)
        with proxy(config) as p:
            assert TlsUser(p.address(), name="api.example.com").visit() == "api"
            assert TlsUser(p.address(), name="www.example.com").visit() == "web"


def test_the_server_name_as_a_key():
    """Every client of a name meets at one node."""
    with TlsNode("a", PEM) as a, TlsNode("b", PEM) as b, TlsNode("c", PEM) as c:
        config = settings(
            a, b, c, persistence={"type": "universal", "key": "sni"}, server={"protocol": "tls"}
        )
        with proxy(config) as p:
            homes = {}
            for turn in range(3):
                for number in range(6):
                    name = f"shop{number}.example.com"
                    name = name.upper() if turn == 1 else name
                    node = TlsUser(p.address(), name=name).visit()
                    assert homes.setdefault(number, node) == node
    assert set(homes.values()) == {"a", "b", "c"}
