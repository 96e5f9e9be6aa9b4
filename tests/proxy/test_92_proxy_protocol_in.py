"""PROXY headers from proxies in front: who is believed, what becomes of the client's address, and
what happens to headers that are wrong, late, absent or in pieces."""

import itertools
import json
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.harness import HttpNode, Proxy, proxy, settings
from tests.harness.chop import ByteNode
from tests.harness.wait import TIMEOUT, until
from tests.harness.wire import Closed, Message, Reader, read_response

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
GET = b"GET /%s HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n"


def v1(source: str = "192.0.2.7", port: int = 4711, family: str = "TCP4") -> bytes:
    target = "192.0.2.1" if family == "TCP4" else "2001:db8::1"
    return f"PROXY {family} {source} {target} {port} 443\r\n".encode()


def v2(
    source: str = "192.0.2.7", port: int = 4711, tlvs: bytes = b"", command: int = 0x21
) -> bytes:
    ipv6 = ":" in source
    family = socket.AF_INET6 if ipv6 else socket.AF_INET
    target = "2001:db8::1" if ipv6 else "192.0.2.1"
    addresses = socket.inet_pton(family, source) + socket.inet_pton(family, target)
    body = addresses + struct.pack("!HH", port, 443) + tlvs
    return (
        SIGNATURE + bytes((command, 0x21 if ipv6 else 0x11)) + struct.pack("!H", len(body)) + body
    )


def tlv(kind: int, value: bytes) -> bytes:
    return bytes((kind,)) + struct.pack("!H", len(value)) + value


numbers = itertools.count(1000)
V2_LOCAL = SIGNATURE + b"\x20\x00\0\0"


@pytest.fixture(scope="module")
def node() -> Iterator[HttpNode]:
    with HttpNode("a") as a:
        yield a


def trusting(*nodes: Any, **more: Any) -> dict[str, Any]:
    server = {"proxy_protocol": True, "trusted_proxies": ["127.0.0.1/32"], **more.pop("server", {})}
    return settings(*nodes, server=server, **more)


@pytest.fixture(scope="module")
def p(node: HttpNode) -> Iterator[Proxy]:
    with proxy(trusting(node, timeouts={"handshake": "2s"})) as running:
        yield running


def seen(answer: Message) -> str:
    """What the node was told of the client."""
    return dict(answer.json()["fields"]).get("X-Forwarded-For", "")


def settled(p: Proxy) -> int:
    """Lines of the log, when all that has happened before is in it."""
    target = f"/{next(numbers)}"
    with p.client() as c:
        c.send(v1())
        c.ask(target)
    p.log_of(target)
    return len(p.log_lines())


# --- believed -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "client"),
    [
        (v1(), "192.0.2.7"),
        (v1("2001:db8::7", family="TCP6"), "2001:db8::7"),
        (v2(), "192.0.2.7"),
        (v2("2001:db8::7"), "2001:db8::7"),
        (v2(tlvs=tlv(0x02, b"shop.test") + tlv(0xE0, b"whatever") + tlv(0x04, b"")), "192.0.2.7"),
        (v2(tlvs=tlv(0x04, bytes(3000))), "192.0.2.7"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
        (b"PROXY UNKNOWN ffff:f...f and more\r\n", "127.0.0.1"),
        (V2_LOCAL, "127.0.0.1"),
        (v2(command=0x20), "127.0.0.1"),
    ],
)
def test_the_header_names_the_client(p: Proxy, header: bytes, client: str) -> None:
    target = f"/{hash(header) & 0xFFFFFF:x}"
    with p.client() as c:
        c.send(header + GET % target[1:].encode())
        assert seen(c.response()) == client
    assert p.log_of(target)["client"] == client


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", V2_LOCAL])
def test_who_has_no_name_does_not_give_himself_one(p: Proxy, header: bytes) -> None:
    """The proxy in front is believed, not what it passes on without a word of whose it is."""
    target = f"/nameless{next(numbers)}"
    with p.client() as c:
        c.send(header)
        answer = c.ask(target, ("X-Forwarded-For", "9.9.9.9"), ("X-Forwarded-Proto", "https"))
    assert dict(answer.json()["fields"])["X-Forwarded-Proto"] == "http"
    assert p.log_of(target)["client"] == "127.0.0.1"


def test_it_holds_for_all_requests_of_the_connection(p: Proxy) -> None:
    with p.client() as c:
        c.send(v1("198.51.100.1"))
        assert [seen(c.ask(f"/kept/{i}")) for i in range(3)] == ["198.51.100.1"] * 3


@pytest.mark.parametrize("header", [v1(), v2("2001:db8::7", tlvs=tlv(0x02, b"shop.test"))])
def test_in_single_bytes(p: Proxy, header: bytes) -> None:
    with p.client() as c:
        c.drip(header + GET % b"drip", 1)
        assert seen(c.response()) in ("192.0.2.7", "2001:db8::7")


@pytest.mark.parametrize("header", [v1(), v2()])
def test_cut_anywhere(p: Proxy, header: bytes) -> None:
    data = header + GET % b"cut"
    for at in range(1, len(header) + 2, 3):
        with p.client() as c:
            c.send(data[:at])
            c.send(data[at:])
            assert seen(c.response()) == "192.0.2.7"


def test_a_client_it_names_is_not_trusted_itself(p: Proxy) -> None:
    """X-Forwarded-For is believed from who stands in trusted_proxies, not from who is told of."""
    with p.client() as c:
        c.send(v1())
        answer = c.ask("/spoof", ("X-Forwarded-For", "203.0.113.9"))
    assert seen(answer) == "203.0.113.9, 192.0.2.7"
    assert p.log_of("/spoof")["client"] == "192.0.2.7"


def test_sessions_are_those_of_the_client_it_names(node: HttpNode) -> None:
    with HttpNode("b") as b:
        config = trusting(node, b, persistence={"type": "ip"})
        with proxy(config) as p:

            def asked(client: str) -> str:
                with p.client() as c:
                    c.send(v1(client) + GET % b"")
                    return c.response().json()["node"]

            first = [asked(f"198.51.100.{i}") for i in range(8)]
            again = [asked(f"198.51.100.{i}") for i in range(8)]
    assert first == again
    assert set(first) == {"a", "b"}


def test_the_destination_is_the_one_it_names(node: HttpNode) -> None:
    """`source+destination` means where the client connected to, not the proxy in front."""
    with HttpNode("b") as b, HttpNode("c") as c3:
        persistence = {"type": "hash", "on": "source+destination"}
        with proxy(trusting(node, b, c3, persistence=persistence)) as p:

            def asked(target: int) -> str:
                with p.client() as c:
                    c.send(f"PROXY TCP4 192.0.2.7 192.0.2.{target} 4711 443\r\n".encode())
                    return c.ask("/").json()["node"]

            assert len({asked(i) for i in range(1, 24)}) > 1


# --- not believed -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        GET % b"absent",
        b"\x16\x03\x01\x00\x05hello",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 4711\r\n" + GET % b"x",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 99999\r\n" + GET % b"x",
        b"PROXY TCP4 2001:db8::1 192.0.2.1 4711 443\r\n" + GET % b"x",
        b"PROXY TCP9 192.0.2.7 192.0.2.1 4711 443\r\n" + GET % b"x",
        b"PROXY  TCP4 192.0.2.7 192.0.2.1 4711 443\r\n" + GET % b"x",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\n" + GET % b"x",
        b"PROXY UNKNOWN" + b"x" * 200 + b"\r\n" + GET % b"x",
        b"proxy TCP4 192.0.2.7 192.0.2.1 4711 443\r\n" + GET % b"x",
        SIGNATURE + b"\x11\x11\x00\x0c" + bytes(12) + GET % b"x",
        SIGNATURE + b"\x22\x11\x00\x0c" + bytes(12) + GET % b"x",
        SIGNATURE + b"\x21\x11\x00\x04" + bytes(4) + GET % b"x",
        SIGNATURE + b"\x21\x11\xff\xff" + bytes(5000),
        v2(tlvs=b"\x02\xff\xff" + b"x"),
        b"\0" * 100,
    ],
)
def test_a_wrong_or_absent_header_closes(p: Proxy, node: HttpNode, data: bytes) -> None:
    lines = settled(p)
    before = len(node.requests)
    with p.client() as c:
        c.send_if_open(data)
        c.expect_closed()
    line = p.log(lines + 1)[-1]
    assert line["cause"] == "bad-proxy-header"
    assert line["client"] == "127.0.0.1"
    assert len(node.requests) == before


def test_a_stranger_is_served_as_it_is(node: HttpNode) -> None:
    config = trusting(node, server={"trusted_proxies": ["127.0.0.9/32"]})
    with proxy(config) as p:
        assert seen(p.get("/plain")) == "127.0.0.1"
        with p.client() as c:
            c.send(v1() + GET % b"spoof")
            assert c.response().status == 400
        with p.client("127.0.0.9") as c:
            c.send(v1() + GET % b"trusted")
            assert seen(c.response()) == "192.0.2.7"


def test_off_is_off(node: HttpNode) -> None:
    config = settings(node, server={"trusted_proxies": ["127.0.0.1/32"]})
    with proxy(config) as p, p.client() as c:
        c.send(v1() + GET % b"x")
        assert c.response().status == 400


def test_a_second_header_is_no_request(p: Proxy) -> None:
    with p.client() as c:
        c.send(v1() + v1("198.51.100.66") + GET % b"x")
        assert c.response().status == 400


# --- health checks, time-outs, ends -------------------------------------------------------


@pytest.mark.parametrize("data", [b"", V2_LOCAL, b"PROXY UNKNOWN\r\n", v1()])
def test_a_check_of_the_port_is_no_error(p: Proxy, data: bytes) -> None:
    before = settled(p)
    with p.client() as c:
        c.send(data)
    assert settled(p) == before + 1


def test_half_a_header_and_the_end(p: Proxy) -> None:
    lines = settled(p)
    with p.client() as c:
        c.send(v1()[:20])
        c.half_close()
        c.expect_closed()
    assert p.log(lines + 1)[-1]["cause"] == "client-closed"


@pytest.mark.parametrize("data", [b"", b"PROXY TCP4 192", SIGNATURE[:3], v2()[:27]])
def test_a_slow_header_ends_with_the_time_for_all_of_it(p: Proxy, data: bytes) -> None:
    lines = settled(p)
    with p.client() as c:
        c.send(data)
        c.expect_closed()
    assert p.log(lines + 1)[-1]["cause"] == "opening-timeout"


def test_a_drip_does_not_prolong_it(p: Proxy) -> None:
    lines = settled(p)
    with p.client() as c:
        c.sock.settimeout(0.2)
        with suppress(OSError):
            for byte in b"PROXY TCP4 192.0.2.7 192.0.2.1 47":
                c.sock.sendall(bytes((byte,)))
                with suppress(TimeoutError):
                    if c.sock.recv(1) == b"":
                        break
        c.sock.settimeout(TIMEOUT)
        c.expect_closed()
    assert p.log(lines + 1)[-1]["cause"] == "opening-timeout"


# --- other protocols and sockets ----------------------------------------------------------


def test_ahead_of_tcp() -> None:
    with (
        ByteNode("a", b"bye", 5) as node,
        proxy(trusting(node, server={"protocol": "tcp"})) as p,
    ):
        for number, pieces in enumerate([[v2(), b"hello"], [v1("198.51.100.1") + b"hello"]]):
            with p.client() as c:
                c.send(*pieces)
                assert c.sock.recv(3, socket.MSG_WAITALL) == b"bye"
                c.half_close()
                c.expect_closed()
            assert node.received(number) == b"hello"
        until(lambda: len(p.log_lines()) == 2, "two lines")
        assert {line["client"] for line in p.log_lines()} == {"192.0.2.7", "198.51.100.1"}


def test_on_a_unix_socket_it_is_always_expected(node: HttpNode, tmp_path: Path) -> None:
    at = str(tmp_path / "shop.sock")
    config = trusting(node, server={"listen": ["127.0.0.1:0", f"unix:{at}"]})
    with proxy(config) as p:

        def ask(data: bytes, *, linger: bool = False) -> tuple[Message | None, bytes]:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(TIMEOUT)
                sock.connect(at)
                sock.sendall(data)
                reader = Reader(sock)
                with suppress(ConnectionError, Closed):
                    answer = read_response(reader)
                    if linger:  # what nobody reads must not be read as on TCP
                        with suppress(OSError):
                            sock.sendall(b"x" * 100_000)
                    with suppress(ConnectionResetError):
                        return answer, sock.recv(1)
                    return answer, b""
                return None, b""

        answer, _ = ask(v1() + GET % b"unix", linger=True)
        assert answer is not None
        assert seen(answer) == "192.0.2.7"
        assert ask(GET % b"absent")[0] is None
        assert seen(ask(V2_LOCAL + GET % b"local")[0] or pytest.fail("no answer")) == ""
        assert json.dumps(p.log(3)).count("bad-proxy-header") == 1


def test_many_connections_leave_nothing(p: Proxy) -> None:
    for i in range(200):
        with p.client() as c:
            c.send([b"", v1(), v2(), v1()[:9], b"GET"][i % 5])
            if i % 2:
                c.reset()
    until(lambda: p.status()["workers"][0]["connections"] == 0, "all closed")
