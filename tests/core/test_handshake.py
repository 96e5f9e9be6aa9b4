"""Handshakes inside of one worker: the context that is chosen, the queue, the counters, and what
is left when they end in any way."""

import hashlib
import ssl
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from tests.harness import HttpNode, request, settings
from tests.harness.certificates import Authority, Pair
from tests.harness.tls_client import TlsClient, client_context, openssl
from tests.harness.wait import until
from tests.harness.worker import WorkerProcess, worker


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def pairs(authority: Authority) -> dict[str, Pair]:
    names = ("default.test", "a.test", "*.a.test", "b.a.test", "*.b.a.test", "zz.test")
    return {name: authority.certificate(name) for name in names}


@pytest.fixture(scope="module")
def node() -> Iterator[HttpNode]:
    with HttpNode("a") as a:
        yield a


def https(pairs: dict[str, Pair], node: Any, **more: Any) -> dict[str, Any]:
    tls = {"certificates": [one.table() for one in pairs.values()]}
    return settings(node, server={"protocol": "https", "tls": tls}, **more)


@pytest.fixture(scope="module")
def w(pairs: dict[str, Pair], node: HttpNode) -> Iterator[WorkerProcess]:
    with worker(https(pairs, node, timeouts={"handshake": "3s"})) as running:
        yield running


@pytest.mark.parametrize(
    ("name", "which"),
    [
        ("a.test", "a.test"),
        ("A.TEST", "a.test"),
        ("a.test.", "a.test"),
        ("x.a.test", "*.a.test"),
        ("b.a.test", "b.a.test"),
        ("x.b.a.test", "*.b.a.test"),
        ("x.y.a.test", "default.test"),
        ("*.a.test", "*.a.test"),
        (".a.test", "default.test"),
        (".", "default.test"),
        ("..", "default.test"),
        ("0", "default.test"),
        ("zz.test", "zz.test"),
        ("zzz.test", "default.test"),
        ("test", "default.test"),
        ("default.test", "default.test"),
    ],
)
def test_every_name_has_its_certificate(
    w: WorkerProcess, pairs: dict[str, Pair], name: str, which: str
) -> None:
    said = openssl(w.address(), "-servername", name)
    assert said.field("subject").replace(" ", "").endswith(f"CN={which}")
    assert said.returncode == 0


def test_all_is_given_back(w: WorkerProcess) -> None:
    def half() -> None:
        with w.client() as c:
            c.send(ssl_hello())
            c.sock.recv(100)

    def refused() -> None:
        said = openssl(w.address(), "-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
        assert said.returncode

    def served() -> None:
        with TlsClient(w.address()) as c:
            assert c.ask("/").status == 200

    def reset() -> None:
        c = w.client()
        c.send(ssl_hello())
        c.sock.recv(10)
        c.reset()

    for one in (half, refused, served, reset):
        one()
        w.wait_objects(clients=0, tls_streams=0, buffers=0, exchanges=0)


def ssl_hello() -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        client_context("1.3").wrap_bio(incoming, outgoing).do_handshake()
    return outgoing.read()


def test_no_handshake_takes_the_gil(w: WorkerProcess) -> None:
    before = w.stats["gil_acquisitions"]
    for version in ("1.2", "1.3"):
        with TlsClient(w.address(), client_context(version)) as c:
            assert c.ask("/").status == 200
    assert w.stats["gil_acquisitions"] == before


def test_an_idle_connection_holds_no_buffer(w: WorkerProcess) -> None:
    with TlsClient(w.address()) as c:
        assert c.ask("/").status == 200
        w.wait_objects(clients=1, tls_streams=1, buffers=0, exchanges=0)


def test_they_are_counted(w: WorkerProcess) -> None:
    before = w.server_stats()["tls"]
    session = None
    for version, resumed in (("1.2", 0), ("1.3", 0), ("1.3", 1)):
        session = session if resumed else None
        with TlsClient(w.address(), client_context(version), session) as c:
            c.ask("/")
            session = c.session
    after = w.server_stats()["tls"]
    grown = {key: after[key] - before[key] for key in after}
    assert grown == {"handshakes": 3, "resumed": 1, "tls13": 2, "failed": 0, "waiting": 0}


def test_the_queue_is_first_come_first_served(pairs: dict[str, Pair], node: HttpNode) -> None:
    config = https(pairs, node, limits={"handshakes": 1}, timeouts={"handshake": "10s"})
    with worker(config) as w:
        crowd = [w.client() for _ in range(4)]
        for number, one in enumerate(crowd):
            one.send(ssl_hello())
            until(lambda want=number: w.server_stats()["tls"]["waiting"] == want, "its place")
        w.wait_objects(clients=4, tls_streams=1)
        for one in crowd:
            assert one.sock.recv(1) == b"\x16", "the turn of the next one"
            one.sock.close()
        w.wait_objects(clients=0, tls_streams=0)
        assert w.server_stats()["tls"]["waiting"] == 0


def test_who_waits_and_leaves_makes_no_hole(pairs: dict[str, Pair], node: HttpNode) -> None:
    config = https(pairs, node, limits={"handshakes": 1}, timeouts={"handshake": "10s"})
    for gone in range(1, 4):
        with worker(config) as w:
            crowd = [w.client() for _ in range(4)]
            for number, one in enumerate(crowd):
                one.send(ssl_hello())
                until(lambda n=number: w.server_stats()["tls"]["waiting"] == n, "its place")
            crowd[gone].reset()
            until(lambda: w.server_stats()["tls"]["waiting"] == 2, "one has left")
            for number, one in enumerate(crowd):
                if number != gone:
                    assert one.sock.recv(1) == b"\x16"
                    one.sock.close()
            w.wait_objects(clients=0, tls_streams=0, buffers=0)


def test_a_reload_while_some_wait(
    authority: Authority, pairs: dict[str, Pair], node: HttpNode
) -> None:
    """Who waits gets the certificate of the plan in force when it has its turn."""
    config = https(pairs, node, limits={"handshakes": 1}, timeouts={"handshake": "10s"})
    with worker(config) as w, w.client() as first, w.client() as second:
        first.send(ssl_hello())
        first.sock.recv(1)
        second.send(ssl_hello())
        until(lambda: w.server_stats()["tls"]["waiting"] == 1, "one waits")
        fewer = {"new.test": authority.certificate("new.test")}
        w.use(https(fewer, node, timeouts={"handshake": "10s"}))
        first.sock.close()
        assert second.sock.recv(1) == b"\x16"
        w.use(settings(node))  # http there now
        second.sock.close()
        w.wait_objects(clients=0, tls_streams=0)


def test_a_stop_with_handshakes_of_all_kinds(pairs: dict[str, Pair], node: HttpNode) -> None:
    config = https(pairs, node, limits={"handshakes": 1}, timeouts={"handshake": "10s"})
    with worker(config) as w:
        begun, waits, silent = w.client(), w.client(), w.client()
        with begun, waits, silent, suppress(OSError):
            begun.send(ssl_hello())
            begun.sock.recv(1)
            waits.send(ssl_hello())
            until(lambda: w.server_stats()["tls"]["waiting"] == 1, "one waits")
            w.stop(drain_ms=300)
            assert waits.sock.recv(100) == b""


def test_a_request_may_come_with_the_handshake(w: WorkerProcess) -> None:
    """Finished and request in one segment; tickets and answer in another."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client_context("1.3").wrap_bio(incoming, outgoing)
    with w.client() as c:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                if data := outgoing.read():
                    c.send(data)
                incoming.write(c.sock.recv(65536))
        tls.write(request("/together"))
        c.send(outgoing.read())
        incoming.write(c.sock.recv(65536))
        assert b"200" in tls.read(1000)[:20]


def test_the_certificate_is_what_it_says(w: WorkerProcess, pairs: dict[str, Pair]) -> None:
    with TlsClient(w.address(), name="a.test") as c:
        shown = hashlib.sha256(c.tls.getpeercert(True) or b"").hexdigest()
    assert shown == pairs["a.test"].fingerprint
