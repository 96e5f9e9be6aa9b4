"""The beginning of connections inside of one worker: what is held meanwhile, what is counted, and
how it ends when the worker does."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.core.handshakes import client_hello, records, sni
from tests.harness import HttpNode, request, settings
from tests.harness.chop import ByteNode
from tests.harness.wait import until
from tests.harness.worker import WorkerProcess, worker

HEADER = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n"
TRUST = {"proxy_protocol": True, "trusted_proxies": ["127.0.0.1/32"]}
HELLO = records(client_hello(extensions=sni(b"www.shop.test")))


@pytest.fixture(scope="module")
def node() -> Iterator[HttpNode]:
    with HttpNode("a") as a:
        yield a


@pytest.fixture(scope="module")
def w(node: HttpNode) -> Iterator[WorkerProcess]:
    config = settings(node, server=TRUST, timeouts={"handshake": "3s"})
    with worker(config) as running:
        yield running


def tls(node: Any, **server: Any) -> dict[str, Any]:
    return settings(node, server={"protocol": "tls", **server}, timeouts={"handshake": "3s"})


def test_a_buffer_is_held_only_while_bytes_are_pending(w: WorkerProcess) -> None:
    with w.client() as c:
        w.wait_objects(clients=1, buffers=0)
        c.send(HEADER[:10])
        w.wait_objects(buffers=1)
        c.send(HEADER[10:])
        w.wait_objects(buffers=0)
        assert c.ask("/").status == 200
    w.wait_objects(clients=0, buffers=0, exchanges=0)


def test_what_goes_wrong_is_counted_by_its_cause(w: WorkerProcess) -> None:
    def count() -> int:
        return int(w.stats["causes"].get("bad-proxy-header", 0))

    before = count()
    for data in (b"GET / HTTP/1.1\r\n\r\n", HEADER[:-2] + b"\n", b"\r\n\r\n\0\r\nQUIT\r"):
        with w.client() as c:
            c.send_if_open(data)
            c.expect_closed()
    until(lambda: count() == before + 3, "three more")
    w.wait_objects(clients=0, buffers=0, exchanges=0)


def test_who_says_nothing_is_not_counted(w: WorkerProcess) -> None:
    before = w.stats["causes"]
    for reset in (False, True):
        c = w.client()
        w.wait_objects(clients=1)
        if reset:
            c.reset()
        else:
            c.sock.close()
        w.wait_objects(clients=0)
    assert w.stats["causes"] == before


def test_a_hello_in_single_bytes_takes_one_turn_each() -> None:
    """No byte is looked at twice: the progress of the parse is kept."""
    with ByteNode("a", b"!", len(HELLO)) as node, worker(tls(node)) as w, w.client() as c:
        c.drip(HELLO)
        assert c.sock.recv(1) == b"!"
        c.half_close()
        c.expect_closed()
        assert node.received() == HELLO


@pytest.mark.parametrize("sizes", [(1,) * 40, (3, 1, 500), (4,)])
def test_a_hello_in_many_records(sizes: tuple[int, ...]) -> None:
    hello = records(client_hello(extensions=sni(b"www.shop.test")), *sizes)
    with ByteNode("a", b"!", len(hello)) as node, worker(tls(node)) as w, w.client() as c:
        c.send(hello)
        assert c.sock.recv(1) == b"!"


def test_a_hello_larger_than_a_small_buffer() -> None:
    padding = b"\x00\x15" + (15_000).to_bytes(2, "big") + bytes(15_000)
    hello = records(client_hello(extensions=sni(b"www.shop.test") + padding), *([50] * 400))
    assert len(hello) > 16 * 1024
    with ByteNode("a", b"!", len(hello)) as node, worker(tls(node)) as w, w.client() as c:
        c.send(hello[:9000])
        w.wait_objects(buffers=1)
        c.send(hello[9000:])
        assert c.sock.recv(1) == b"!"


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"SSH-2.0-OpenSSH\r\n", "not-tls"),
        (b"\x16\x03\x01\x00\x08\x01\x00\x00\x04abcd", "bad-hello"),
        (b"\x16\x03\x01\x00\x04\x01\x00\xff\xff", "bad-hello"),
        (b"\x16\x03\x01\x00\x01\x01\x17\x03\x01\x00\x01x", "bad-hello"),
    ],
)
def test_no_node_sees_what_is_no_hello(data: bytes, cause: str) -> None:
    with ByteNode("a") as node, worker(tls(node)) as w:
        with w.client() as c:
            c.send(data)
            c.expect_closed()
        until(lambda: w.stats["causes"] == {cause: 1}, cause)
        assert not node.connections


def test_what_is_not_tls_may_be_relayed() -> None:
    with ByteNode("a", b"!", 5) as node, worker(tls(node, not_tls="tcp")) as w, w.client() as c:
        c.send(b"S")
        c.send(b"SH-2")
        assert c.sock.recv(1) == b"!"
        c.half_close()
        c.expect_closed()
        assert node.received() == b"SSH-2"


def test_a_stop_closes_what_is_being_opened(w: WorkerProcess, node: HttpNode) -> None:
    with worker(settings(node, server=TRUST)) as other:
        silent, half, served = other.client(), other.client(), other.client()
        with silent, half, served:
            half.send(HEADER[:9])
            served.send(HEADER + request("/"))
            assert served.response().status == 200
            other.wait_objects(clients=3)
            other.stop(drain_ms=500)
            for one in (silent, half, served):
                one.expect_closed()


def test_a_reload_that_takes_the_virtual_server_away(node: HttpNode) -> None:
    config = settings(node, server=TRUST)
    config["virtual_servers"]["other"] = {"listen": ["127.0.0.1:0"], "pool": "web"}
    with worker(config) as w, w.client() as c:
        c.send(HEADER[:9])
        w.wait_objects(clients=1, buffers=1)
        without = settings(node, server=TRUST)
        without["virtual_servers"] = {"other": config["virtual_servers"]["other"]}
        w.use(without)
        c.send(HEADER[9:])
        c.expect_closed()
        w.wait_objects(clients=0, buffers=0)
