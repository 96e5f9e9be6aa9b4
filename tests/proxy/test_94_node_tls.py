"""TLS towards nodes: verified by name, resumed, pooled by name, refused where it must be."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Proxy, RawNode, proxy, reply, request, settings
from tests.harness.certificates import Authority, pem_of, pem_of_key
from tests.harness.chop import Chopper
from tests.harness.client import Client
from tests.harness.node import Exchange
from tests.harness.tcp import Peer
from tests.harness.tls_client import TlsClient
from tests.harness.tls_node import TlsNode
from tests.harness.wait import TIMEOUT, until

UPGRADE = [("Connection", "Upgrade"), ("Upgrade", "echo")]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def pem(authority: Authority, *names: str, **more: Any) -> bytes:
    pair = authority.certificate(*names, **more)
    return pem_of_key(pair.key) + pem_of(pair.made, *pair.chain)


def secured(authority: Authority, *nodes: Any, tls: Any = None, **more: Any) -> dict[str, Any]:
    table = {"ca": str(authority.file), "server_name": "web.internal", **(tls or {})}
    pool = {"tls": {key: value for key, value in table.items() if value is not None}}
    return settings(*nodes, pool={**pool, **more.pop("pool", {})}, **more)


@pytest.fixture
def node(authority: Authority) -> Iterator[TlsNode]:
    with TlsNode("a", pem(authority, "web.internal")) as a:
        yield a


def visit(p: Proxy, target: str = "/", *fields: tuple[str, str]) -> Any:
    with p.client() as c:
        return c.ask(target, *fields)


# --- who it is ----------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_node_that_is_who_it_has_to_be(authority: Authority, version: str) -> None:
    with TlsNode("a", pem(authority, "web.internal"), version=version) as a:
        with proxy(secured(authority, a)) as p:
            answer = visit(p).json()
            assert (answer["sni"], answer["version"]) == ("web.internal", f"TLSv{version}")


@pytest.mark.parametrize(
    ("names", "more", "word"),
    [
        (("other.internal",), {}, "mismatch"),
        (("*.internal.test",), {}, "mismatch"),
        (("web.internal",), {"days": -0.5, "begins": -3}, "expired"),
        (("web.internal",), {"begins": 2}, "not yet valid"),
    ],
)
def test_a_node_that_is_not(
    authority: Authority, names: tuple[str, ...], more: dict[str, Any], word: str
) -> None:
    with TlsNode("bad", pem(authority, *names, **more)) as bad:
        with proxy(secured(authority, bad)) as p:
            assert visit(p).status == 503
            cause = p.log(1)[0]["cause"]
            assert cause.startswith("node-handshake-failed:")
            assert word in cause
        assert not bad.requests


def test_a_node_of_a_stranger(authority: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "somebody else")
    with TlsNode("bad", pem(stranger, "web.internal")) as bad:
        with proxy(secured(authority, bad)) as p:
            assert visit(p).status == 503
            assert "certificate" in p.log(1)[0]["cause"]
        with proxy(secured(authority, bad, tls={"verify": False, "ca": None})) as p:
            assert visit(p).status == 200


def test_another_node_is_tried(authority: Authority, node: TlsNode) -> None:
    with TlsNode("bad", pem(authority, "other.internal")) as bad:
        with proxy(secured(authority, bad, node, pool={"retries": 1})) as p:
            answers = [visit(p, f"/{i}").json()["node"] for i in range(4)]
            assert answers == ["a"] * 4
            assert sum(line["retries"] for line in p.log(4)) >= 1


def test_a_node_without_tls(authority: Authority) -> None:
    class Plain(RawNode):
        def _serve(self, connection: Any) -> None:
            connection.sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.reader.rest()
            connection.finish("fin")

    with Plain() as plain, proxy(secured(authority, plain)) as p:
        assert visit(p).status == 503
        assert p.log(1)[0]["cause"] == "node-handshake-failed:wrong version number"


def test_a_node_that_does_not_answer_the_hello(authority: Authority) -> None:
    class Mute(RawNode):
        def _serve(self, connection: Any) -> None:
            connection.reader.rest()
            connection.finish("fin")

    config = secured(authority, Mute(), timeouts={"connect": "300ms"})
    with config["pools"]["web"]["nodes"][0], proxy(config) as p:
        assert visit(p).status == 504
        assert p.log(1)[0]["cause"] == "connect-timeout"


def test_the_name_is_the_requests_where_none_is_given(authority: Authority) -> None:
    with TlsNode("a", pem(authority, "shop.test", "other.test")) as a:
        with proxy(secured(authority, a, tls={"server_name": None})) as p:
            for host in ("shop.test", "other.test", "shop.test", "SHOP.test:80"):
                with p.client() as c:
                    c.send(request("/", host=host))
                    assert c.response().json()["sni"] == host.split(":")[0].lower()
            assert len(a.handshakes) == 2, "a pooled connection is for one name"
            with p.client() as c:
                c.send(request("/", host="wrong.test"))
                assert c.response().status == 502


def test_an_address_as_name(authority: Authority) -> None:
    with TlsNode("a", pem(authority, "127.0.3.3"), host="127.0.3.3") as a:
        with proxy(secured(authority, a, tls={"server_name": None})) as p:
            with p.client() as c:
                c.send(request("/", host="127.0.3.3"))
                answer = c.response()
                assert answer.json()["sni"] is None


@pytest.mark.parametrize(("name", "status"), [("192.0.2.7", 200), ("192.0.2.8", 503)])
def test_an_address_that_is_configured_as_name(
    authority: Authority, name: str, status: int
) -> None:
    with TlsNode("a", pem(authority, "192.0.2.7")) as a:
        with proxy(secured(authority, a, tls={"server_name": name})) as p:
            assert visit(p).status == status


def test_our_own_certificate(authority: Authority) -> None:
    us = authority.certificate("proxy-1", client=True)
    ca = authority.file.read_bytes()
    with TlsNode("a", pem(authority, "web.internal"), client_ca=ca) as a:
        with proxy(secured(authority, a, tls=us.table())) as p:
            assert "proxy-1" in str(visit(p).json()["subject"])
        with proxy(secured(authority, a, pool={"retries": 0})) as p:
            assert visit(p).status in (502, 503)


# --- connections and sessions -------------------------------------------------------------


@pytest.mark.parametrize(("version", "tickets"), [("1.2", True), ("1.2", False), ("1.3", True)])
def test_a_new_connection_resumes_the_session(
    authority: Authority, version: str, tickets: bool
) -> None:
    class Closing(TlsNode):
        def _answer(self, exchange: Exchange) -> None:
            super()._answer(exchange)
            exchange.close()

    with Closing("a", pem(authority, "web.internal"), version=version, tickets=tickets) as a:
        with proxy(secured(authority, a)) as p:
            for i in range(5):
                assert visit(p, f"/{i}").status == 200
            assert [one["reused"] for one in a.handshakes] == [False] + [True] * 4
            a.forget()
            assert visit(p).status == 200
            assert a.handshakes[-1]["reused"] is False
            assert visit(p).status == 200
            assert a.handshakes[-1]["reused"] is True


def test_connections_are_pooled(authority: Authority, node: TlsNode) -> None:
    with proxy(secured(authority, node)) as p:
        for i in range(10):
            assert visit(p, f"/{i}").status == 200
        assert len(node.handshakes) == 1


def test_a_reload_that_demands_more_is_obeyed(authority: Authority, tmp_path: Path) -> None:
    """Neither a pooled connection nor a session outlives the demands that it was made under."""
    stranger = Authority(tmp_path, "somebody else")
    with TlsNode("a", pem(stranger, "web.internal")) as a:
        loose = secured(authority, a, tls={"verify": False, "ca": None})
        with proxy(loose) as p:
            assert visit(p).status == 200
            assert p.reload(secured(authority, a)).returncode == 0
            until(lambda: visit(p).status == 503, "the demand in force")
            assert p.reload(settings(a)).returncode == 0
            until(lambda: visit(p).status != 200, "no TLS connection lent as a plain one")


# --- what goes over it --------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_large_bodies_both_ways(authority: Authority, version: str) -> None:
    class Mirror(TlsNode):
        def _answer(self, exchange: Exchange) -> None:
            exchange.send(reply(200, exchange.read_body()[::-1]))

    body = bytes(range(256)) * 4000
    with Mirror("a", pem(authority, "web.internal"), version=version) as a:
        with proxy(secured(authority, a)) as p, p.client() as c:
            for _ in range(2):
                assert c.ask("/", method="POST", body=body).body == body[::-1]


def test_in_any_pieces(authority: Authority, node: TlsNode) -> None:
    host, port = node.address.split(":")
    with Chopper((host, int(port)), pieces=7, records=30) as way:
        config = secured(authority, f"{way.host}:{way.port}")
        with proxy(config) as p:
            assert visit(p).json()["node"] == "a"


def test_an_upgrade_over_it(authority: Authority) -> None:
    class Echo(TlsNode):
        def _answer(self, exchange: Exchange) -> None:
            exchange.send(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
            )
            exchange.send(exchange.read(5).upper())
            exchange.send(b"got " + exchange.read_rest())
            exchange.close()

    with Echo("a", pem(authority, "web.internal")) as a, proxy(secured(authority, a)) as p:
        with p.client() as c:
            c.send(request("/", *UPGRADE))
            assert c.response().status == 101
            c.send(b"hello")
            assert c.reader.exactly(5) == b"HELLO"
            c.send(b"all of it")
            c.half_close()
            assert c.reader.rest() == b"got all of it"


def test_https_in_front_and_behind(authority: Authority, node: TlsNode) -> None:
    certificate = authority.certificate("shop.test").table()
    server = {"protocol": "https", "tls": {"certificates": [certificate]}}
    with proxy(secured(authority, node, server=server)) as p:
        with TlsClient(p.address()) as c:
            for i in range(5):
                fields = dict(c.ask(f"/{i}").json()["fields"])
                assert fields["X-Forwarded-Proto"] == "https"


def test_many_at_once(authority: Authority, node: TlsNode) -> None:
    with proxy(secured(authority, node)) as p:
        done: list[int] = []

        def some() -> None:
            for i in range(5):
                done.append(visit(p, f"/{i}").status)

        threads = [threading.Thread(target=some) for _ in range(8)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        assert done == [200] * 40


def test_a_node_that_dies_in_its_answer(authority: Authority) -> None:
    class Dying(TlsNode):
        def _answer(self, exchange: Exchange) -> None:
            exchange.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf of ")
            raw = exchange.connection.sock
            raw._sslobj = None  # the socket ends without close_notify
            exchange.connection.finish("node")

    with Dying("a", pem(authority, "web.internal")) as a, proxy(secured(authority, a)) as p:
        with p.client() as c:
            c.send(request())
            with pytest.raises(ConnectionResetError):
                c.reader.rest()
        assert p.log(1)[0]["cause"] == "node-closed"


def test_nothing_is_left(authority: Authority, node: TlsNode) -> None:
    with proxy(secured(authority, node)) as p:
        for i in range(20):
            client = Client(p.address())
            client.send(request(f"/{i}"))
            if i % 2:
                client.reset()
            else:
                client.response()
                client.sock.close()
        until(lambda: p.status()["workers"][0]["connections"] == 0, "all closed")


# --- tcp in front -------------------------------------------------------------------------


class EarlyEnd:
    """A TLS node that says at once that it has nothing to say, and reads when it is told to."""

    def __init__(self, pem: bytes, folder: Path):
        file = folder / "early-end.pem"
        file.write_bytes(pem)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(file)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(TIMEOUT)
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.may_read = threading.Event()
        self.received = 0
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        with self.listener:
            connection = self.listener.accept()[0]
        connection.settimeout(TIMEOUT)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self.context.wrap_bio(incoming, outgoing, server_side=True)
        with connection:
            self.until_done(tls.do_handshake, connection, incoming, outgoing)
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.unwrap()
            connection.sendall(outgoing.read())
            assert self.may_read.wait(TIMEOUT)
            with contextlib.suppress(ssl.SSLZeroReturnError):  # close_notify
                while data := self.until_done(
                    lambda: tls.read(65536), connection, incoming, outgoing
                ):
                    self.received += len(data)

    @staticmethod
    def until_done(call: Any, connection: Any, incoming: Any, outgoing: Any) -> Any:
        while True:
            try:
                result = call()
            except ssl.SSLWantReadError:
                connection.sendall(outgoing.read())
                data = connection.recv(65536)
                if not data:
                    return b""
                incoming.write(data)
            else:
                connection.sendall(outgoing.read())
                return result


def test_the_last_bytes_reach_a_node_that_takes_its_time(
    authority: Authority, tmp_path: Path
) -> None:
    """Both sides have ended while cipher text still waits for the node's socket."""
    node = EarlyEnd(pem(authority, "web.internal"), tmp_path)
    with proxy(secured(authority, node.address, server={"protocol": "tcp"})) as p:
        client = Peer.connect(p.address())
        assert client.sock.recv(1) == b""
        sent = client.flood()
        client.half_close()
        node.may_read.set()
        node.thread.join()
        client.close()
        assert node.received == sent
        assert p.log(1)[0].get("cause") is None
