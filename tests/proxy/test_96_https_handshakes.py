"""Handshakes that are slow, in pieces, wrong, too many, or for another port."""

import itertools
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.harness import (
    HttpNode,
    Proxy,
    proxy,
    request,
)  # fmt: skip
from tests.harness.certificates import Authority, Pair
from tests.harness.chop import Chopper
from tests.harness.hellos import KINDS, recorded
from tests.harness.https import Bare, https
from tests.harness.tls_client import TlsClient, client_context, openssl
from tests.harness.wait import TIMEOUT, until
from tests.harness.wire import Reader, read_response

VERSIONS = ("1.2", "1.3")
numbers = itertools.count()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def pairs(authority: Authority) -> dict[str, Pair]:
    return {
        "default": authority.certificate("default.test"),
        "exact": authority.certificate("www.shop.test"),
        "wild": authority.certificate("*.shop.test", key="rsa"),
    }


@pytest.fixture(scope="module")
def node() -> Iterator[HttpNode]:
    with HttpNode("a") as a:
        yield a


@pytest.fixture(scope="module")
def p(pairs: dict[str, Pair], node: HttpNode) -> Iterator[Proxy]:
    with proxy(https(pairs, node, timeouts={"handshake": "2s"})) as running:
        yield running


# --- handshakes in pieces, slow and wrong -------------------------------------------------


@pytest.mark.parametrize(("pieces", "records"), [(1, 0), (0, 1), (3, 7), (50, 100)])
@pytest.mark.parametrize("version", VERSIONS)
def test_handshakes_in_any_pieces(p: Proxy, version: str, pieces: int, records: int) -> None:
    with (
        Chopper(p.address(), pieces=pieces, records=records, seed=pieces) as way,
        TlsClient(way.address, client_context(version)) as c,
    ):
        assert c.ask("/chopped").status == 200


def settled(p: Proxy) -> int:
    """Lines of the log, when all that has happened before is in it."""
    target = f"/settled/{next(numbers)}"
    with TlsClient(p.address()) as c:
        c.ask(target)
    p.log_of(target)
    return len(p.log_lines())


def causes(p: Proxy, before: int) -> str:
    return str(p.log(before + 1)[-1].get("cause"))


@pytest.mark.parametrize("stage", ["nothing", "a byte", "half a hello", "no answer to ours"])
def test_a_slow_handshake_is_closed(p: Proxy, stage: str) -> None:
    before = settled(p)
    with Bare(p.address()) as c:
        hello = c.flight()
        sent = {"nothing": 0, "a byte": 1, "half a hello": 100}.get(stage, len(hello))
        c.sock.sendall(hello[:sent])
        while c.sock.recv(65536):
            pass
    assert causes(p, before) == "opening-timeout"


def test_bytes_now_and_then_do_not_prolong_it(p: Proxy) -> None:
    before = settled(p)
    with Bare(p.address()) as c:
        hello = c.flight()
        c.sock.settimeout(0.1)
        with suppress(OSError):
            for byte in hello:
                c.sock.sendall(bytes((byte,)))
                with suppress(TimeoutError):
                    if not c.sock.recv(1):
                        break
    assert causes(p, before) == "opening-timeout"


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"P", b"HEAD /x HTTP/1.0"])
def test_plain_http_is_told_so(p: Proxy, data: bytes) -> None:
    before = settled(p)
    with p.client() as c:
        c.send(data)
        answer = c.answer_then_closed()
    assert answer is not None
    assert answer.status == 400
    assert b"plain HTTP" in answer.body
    assert causes(p, before) == "not-tls"


@pytest.mark.parametrize(
    "data", [b"\0" * 50, b"SSH-2.0-x"[::-1], b"\x80\x2e\x01\x03\x01" + b"x" * 40]
)
def test_what_is_not_tls_is_closed(p: Proxy, data: bytes) -> None:
    before = settled(p)
    with p.client() as c:
        c.send_if_open(data)
        c.expect_closed()
    assert causes(p, before) == "not-tls"


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x00\x08\x01\x00\x00\x04abcd",
        b"\x16\x03\x01\x48\x00" + b"\x01" * 100,
        b"\x16\x03\x01\x00\x04\x01\xff\xff\xff",
        b"\x16\x03\x01\x00\x02\x01\x00\x17\x03\x03\x00\x01x",
    ],
)
def test_a_bad_hello_gets_an_alert(p: Proxy, data: bytes) -> None:
    before = settled(p)
    with p.client() as c:
        c.send_if_open(data)
        assert c.reader.rest() == b"\x15\x03\x03\x00\x02\x02\x32"
    assert causes(p, before) == "bad-hello"


def test_a_handshake_that_cannot_be_gets_an_alert(p: Proxy) -> None:
    before = settled(p)
    failed = p.status()["virtual_servers"]["shop"]["tls"]["failed"]
    said = openssl(p.address(), "-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
    assert "alert" in said.text
    assert causes(p, before) == "handshake-failed:unsupported protocol"
    assert p.status()["virtual_servers"]["shop"]["tls"]["failed"] == failed + 1


def test_a_client_that_does_not_trust_us(p: Proxy) -> None:
    before = settled(p)
    context = ssl.create_default_context()
    with socket.create_connection(p.address(), TIMEOUT) as sock, pytest.raises(ssl.SSLError):
        context.wrap_socket(sock, server_hostname="www.shop.test")
    assert causes(p, before) in ("handshake-failed:tlsv1 alert unknown ca", "client-closed")


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_real_hello_cut_anywhere_never_hangs(p: Proxy, kind: str) -> None:
    hello = recorded(KINDS[kind])
    for at in range(0, len(hello), 37):
        with p.client() as c:
            c.send(hello[:at])
            c.half_close()
            with suppress(ConnectionResetError):
                c.reader.rest()


def test_changed_hellos_never_hang(p: Proxy) -> None:
    """A byte of a real hello at a time made another one."""
    with Bare(p.address()) as c:
        hello = c.flight()
    for at in range(0, len(hello), 5):
        changed = hello[:at] + bytes((hello[at] ^ 0x55,)) + hello[at + 1 :]
        with p.client() as c2:
            c2.send_if_open(changed)
            with suppress(OSError):  # it is closed already
                c2.half_close()
            with suppress(ConnectionError):
                c2.reader.rest()
    with TlsClient(p.address()) as c3:
        assert c3.ask("/after").status == 200


def test_a_check_of_the_port_is_no_error(p: Proxy) -> None:
    before = settled(p)
    for _ in range(3):
        p.client().sock.close()
    with TlsClient(p.address()) as c:
        c.ask("/check-after")
    p.log_of("/check-after")
    assert len(p.log_lines()) == before + 1


def commanded(p: Proxy, *options: str, command: str, answered: bytes, times: int) -> str:
    """What openssl says to one of its commands, given some times, and to a request."""
    host, port = p.address()
    process = subprocess.Popen(
        ["openssl", "s_client", "-connect", f"{host}:{port}", *options],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    watchdog = threading.Timer(TIMEOUT, process.kill)
    watchdog.start()
    text = b""
    with suppress(BrokenPipeError):
        for number in range(times):
            # One at a time: of what one read gives it, it looks at the first byte.
            process.stdin.write(command.encode() + b"\n")
            process.stdin.flush()
            while text.count(answered) <= number and (line := process.stdout.readline()):
                text += line
        process.stdin.write(request("/commanded", ("Connection", "close")))
        process.stdin.flush()
    # Its input stays open, or it would leave before the answer.
    text += process.stdout.read()
    watchdog.cancel()
    process.communicate(timeout=TIMEOUT)
    return text.decode("latin-1")


def test_renegotiation_is_refused(p: Proxy) -> None:
    text = commanded(p, "-tls1_2", command="R", answered=b"RENEGOTIATING", times=1)
    assert "RENEGOTIATING" in text
    assert "HTTP/1.1 200" not in text


def test_updates_of_keys(p: Proxy) -> None:
    """Each asks for one of ours."""
    text = commanded(p, "-tls1_3", command="K", answered=b"KEYUPDATE", times=10)
    assert text.count("KEYUPDATE") == 10
    assert "HTTP/1.1 200" in text


# --- limits -------------------------------------------------------------------------------


def waiting(p: Proxy) -> int:
    return int(p.status()["virtual_servers"]["shop"]["tls"]["waiting"])


def test_handshakes_under_way_are_bounded(pairs: dict[str, Pair], node: HttpNode) -> None:
    config = https(pairs, node, limits={"handshakes": 1}, timeouts={"handshake": "10s"})
    with proxy(config) as p:
        with Bare(p.address()) as slow, Bare(p.address()) as second, Bare(p.address()) as third:
            slow.sock.sendall(slow.flight())
            assert slow.fill()
            second.sock.sendall(second.flight())
            third.sock.sendall(third.flight())
            until(lambda: waiting(p) == 2, "two in the queue")
            second.sock.close()
            until(lambda: waiting(p) == 1, "one has left the queue")
            slow.handshake()
            third.handshake()
            third.sendall(request("/third"))
            assert read_response(Reader(third)).status == 200  # type: ignore[arg-type]
            assert waiting(p) == 0
        assert {line.get("cause") for line in p.log(2)} == {None, "client-closed"}


def test_who_waits_too_long_is_closed(pairs: dict[str, Pair], node: HttpNode) -> None:
    config = https(pairs, node, limits={"handshakes": 1}, timeouts={"handshake": "2s"})
    with proxy(config) as p, Bare(p.address()) as slow, Bare(p.address()) as second:
        slow.sock.sendall(slow.flight())
        second.sock.sendall(second.flight())
        while second.sock.recv(1000):
            pass
        assert [line["cause"] for line in p.log(2)] == ["opening-timeout"] * 2
        assert waiting(p) == 0
        with TlsClient(p.address()) as c:
            assert c.ask("/").status == 200


def test_handshakes_in_a_second_are_bounded(pairs: dict[str, Pair], node: HttpNode) -> None:
    with proxy(https(pairs, node, limits={"handshakes_per_second": 5})) as p:
        began = time.monotonic()
        for _ in range(12):
            with TlsClient(p.address()) as c:
                assert c.ask("/").status == 200
        assert time.monotonic() - began > 1.0, "12 at 5 a second, of which 5 at once"


def test_a_stampede_is_served_in_the_end(pairs: dict[str, Pair], node: HttpNode) -> None:
    with proxy(https(pairs, node)) as p, TlsClient(p.address()) as running:
        crowd = [Bare(p.address(), VERSIONS[i % 2]) for i in range(60)]
        for one in crowd:
            one.sock.sendall(one.flight())
        assert running.ask("/meanwhile").status == 200
        for one in crowd:
            with one:
                one.handshake()
                one.sendall(request("/crowd"))
                assert read_response(Reader(one)).status == 200  # type: ignore[arg-type]
        assert p.status()["virtual_servers"]["shop"]["tls"]["handshakes"] == 61
