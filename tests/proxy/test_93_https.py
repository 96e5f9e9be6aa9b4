"""TLS that ends here: certificates by name, requests of every kind over it, ends in order and out
of it, reloads, and certificates of clients."""

import asyncio
import hashlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

from tests.harness import (
    Closed,
    HttpNode,
    Proxy,
    RawNode,
    Truncated,
    chunks,
    next_host,
    proxy,
    reply,
    request,
)  # fmt: skip
from tests.harness.certificates import Authority, Pair
from tests.harness.client import curl
from tests.harness.https import Bare, https
from tests.harness.node import Exchange
from tests.harness.tls_client import TlsClient, client_context, openssl
from tests.harness.wait import TIMEOUT, until
from tests.harness.wire import Reader, read_response

VERSIONS = ("1.2", "1.3")
BIG = 1_000_000
HUGE = 9_000_000  # more than the kernel takes for a client that does not read


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


# --- certificates -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "which"),
    [
        ("www.shop.test", "exact"),
        ("WWW.Shop.TEST", "exact"),
        ("api.shop.test", "wild"),
        ("a.b.shop.test", "default"),
        ("shop.test", "default"),
        ("wwwwshop.test", "default"),
        ("unknown.test", "default"),
        ("test", "default"),
        ("x" * 60 + "." + "y" * 60 + ".shop.test", "default"),
        (None, "default"),
    ],
)
@pytest.mark.parametrize("version", VERSIONS)
def test_the_certificate_is_the_one_for_the_name(
    p: Proxy, pairs: dict[str, Pair], name: str | None, which: str, version: str
) -> None:
    with TlsClient(p.address(), client_context(version), name=name) as c:
        shown = hashlib.sha256(c.tls.getpeercert(True) or b"").hexdigest()
        assert shown == pairs[which].fingerprint
        assert c.ask("/named").status == 200


def test_tools_that_verify(p: Proxy, authority: Authority) -> None:
    port = p.address()[1]
    done = curl(
        "--cacert", str(authority.file), "--resolve", f"api.shop.test:{port}:127.0.0.1",
        f"https://api.shop.test:{port}/curl",
    )  # fmt: skip
    assert b'"target": "/curl"' in done.stdout
    said = openssl(
        p.address(), "-servername", "www.shop.test", "-CAfile", str(authority.file),
        "-verify_return_error", "-verify_hostname", "www.shop.test", "-alpn", "h2,http/1.1",
    )  # fmt: skip
    assert said.returncode == 0
    assert said.field("Verify return code").startswith("0")
    assert said.field("ALPN protocol") == "http/1.1"
    assert p.log_of("/curl")["sni"] == "api.shop.test"


# --- requests -----------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_what_node_and_log_are_told(p: Proxy, version: str) -> None:
    target = f"/told/{version}"
    with TlsClient(p.address(), client_context(version), name="www.shop.test") as c:
        answer = c.ask(target, ("X-Forwarded-Proto", "http"))
    fields = dict(answer.json()["fields"])
    assert fields["X-Forwarded-Proto"] == "https"
    assert fields["X-Forwarded-For"] == "127.0.0.1"
    line = p.log_of(target)
    assert (line["tls"], line["sni"], line["status"]) == (version, "www.shop.test", 200)


def test_a_name_of_the_client_cannot_write_into_the_log(p: Proxy) -> None:
    with TlsClient(p.address(), name='a"b.shop.test') as c:
        c.ask("/quote")
    assert p.log_of("/quote")["sni"] == 'a"b.shop.test'


@pytest.mark.parametrize("version", VERSIONS)
def test_kept_alive_and_pipelined(p: Proxy, version: str) -> None:
    with TlsClient(p.address(), client_context(version)) as c:
        for i in range(5):
            assert c.ask(f"/{i}").json()["target"] == f"/{i}"
        c.send(b"".join(request(f"/p{i}") for i in range(20)))
        assert [one.json()["target"] for one in c.responses(20)] == [f"/p{i}" for i in range(20)]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("size", [1, 4095, 4096, 4097, 16384, 16385, 70_000, BIG])
def test_bodies_both_ways(pairs: dict[str, Pair], p: Proxy, version: str, size: int) -> None:
    body = bytes(i * 7 & 255 for i in range(1024)) * (size // 1024 + 1)
    body = body[:size]
    with RawNode(lambda x: x.send(reply(200, x.read_body()[::-1]))) as node:
        with proxy(https(pairs, node)) as running:
            with TlsClient(running.address(), client_context(version)) as c:
                for _ in range(2):
                    answer = c.ask("/", method="POST", body=body)
                    assert answer.body == body[::-1]


def test_chunked_answers_and_answers_that_end_with_the_connection(pairs: dict[str, Pair]) -> None:
    def answer(exchange: Any) -> None:
        if exchange.request.target == b"/chunked":
            exchange.send(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                + chunks(b"a" * 20_000, b"b", b"c" * 40_000)
            )
        else:
            exchange.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"z" * 200_000)
            exchange.close()

    with RawNode(answer) as node, proxy(https(pairs, node)) as p:
        with TlsClient(p.address()) as c:
            assert len(c.ask("/chunked").body) == 60_001
            assert c.ask("/close").body == b"z" * 200_000
        with Bare(p.address()) as bare:
            bare.handshake()
            bare.sendall(request("/close"))
            reader = Reader(bare)  # type: ignore[arg-type]
            assert len(read_response(reader).body) == 200_000, "ended by close_notify"


def test_a_slow_reader_gets_all_of_it(pairs: dict[str, Pair]) -> None:
    with RawNode(reply(200, b"s" * HUGE)) as node, proxy(https(pairs, node)) as p:
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        raw.settimeout(TIMEOUT)
        raw.connect(p.address())
        with client_context("1.3").wrap_socket(raw, server_hostname="x.test") as secure:
            secure.sendall(request("/", ("Connection", "close")))
            got = 0
            while data := secure.recv(5000):
                got += len(data)
        assert got > HUGE


def test_an_answer_that_waits_for_its_reader_is_not_cut(pairs: dict[str, Pair]) -> None:
    """The last bytes were encrypted, and the socket was full: the end must not overtake them."""
    body = b"w" * HUGE
    answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % HUGE + body
    with RawNode(answer) as node, proxy(https(pairs, node)) as p:
        for version in VERSIONS:
            raw = socket.socket()
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.settimeout(TIMEOUT)
            raw.connect(p.address())
            with client_context(version).wrap_socket(raw) as secure:
                secure.sendall(request("/", ("Connection", "close")))
                node.wait_requests(1)
                time.sleep(0.1)
                assert read_response(Reader(secure)).body == body
                assert secure.recv(1) == b""


def test_a_websocket(pairs: dict[str, Pair], authority: Authority) -> None:
    async def echo(ws: Any) -> None:
        async for message in ws:
            await ws.send(message)

    async def story() -> None:
        async with serve(echo, next_host(), 0) as server:
            host, port = next(iter(server.sockets)).getsockname()[:2]
            with proxy(https(pairs, f"{host}:{port}")) as p:
                trusting = ssl.create_default_context(cafile=str(authority.file))
                sock = socket.create_connection(p.address())
                async with connect(
                    "wss://www.shop.test/", sock=sock, ssl=trusting, max_size=None
                ) as ws:
                    for size in (1, 5000, 1_000_000):
                        await ws.send(b"m" * size)
                        assert len(await ws.recv()) == size
                p.log(1)

    asyncio.run(story())
    assert websockets.__version__


def test_its_cookies_are_secure(pairs: dict[str, Pair], node: HttpNode) -> None:
    config = https(pairs, node, persistence={"type": "transparent"})
    with proxy(config) as p, TlsClient(p.address()) as c:
        (cookie,) = c.ask("/").all("Set-Cookie")
    assert b"; Secure" in cookie


# --- ends ---------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_close_notify_is_a_half_close(pairs: dict[str, Pair], version: str) -> None:
    go = threading.Event()

    def slow(exchange: Any) -> None:
        exchange.wait(go)
        exchange.send(reply(200, b"late"))

    with RawNode(slow) as node, proxy(https(pairs, node)) as p, Bare(p.address(), version) as c:
        c.handshake()
        c.sendall(request())
        c.close_notify()
        node.wait_requests(1)
        go.set()
        reader = Reader(c)  # type: ignore[arg-type]
        assert read_response(reader).body == b"late"
        assert c.recv(1) == b""


@pytest.mark.parametrize("polite", [True, False])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_client_that_closes_leaves_its_node(
    pairs: dict[str, Pair], version: str, polite: bool
) -> None:
    """With a close_notify, or without: its connection is gone, and it gets no answer."""
    with RawNode(Exchange.wait_end) as node, proxy(https(pairs, node)) as p:
        with Bare(p.address(), version) as c:
            c.handshake()
            if version == "1.3":
                c.fill()  # tickets: closing on unread bytes would reset the connection
            c.sendall(request("/gone"))
            node.wait_requests(1)
            if polite:
                c.close_notify()
            c.sock.close()
        assert node.connections[0].ended.wait(10), "the node's side is still open"
        assert p.log_of("/gone")["cause"] == "client-closed"


def test_a_cut_off_answer_does_not_look_whole(pairs: dict[str, Pair]) -> None:
    def die(exchange: Any) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        exchange.reset()

    with RawNode(die) as node, proxy(https(pairs, node)) as p, Bare(p.address()) as c:
        c.handshake()
        c.sendall(request())
        reader = Reader(c)  # type: ignore[arg-type]
        with pytest.raises((Truncated, Closed, ConnectionResetError)):
            read_response(reader)


def test_a_body_that_ends_without_close_notify_is_no_request(p: Proxy, node: HttpNode) -> None:
    with Bare(p.address()) as c:
        c.handshake()
        c.sendall(
            b"POST /cut HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
        )
        c.sock.shutdown(socket.SHUT_WR)
        with suppress(Truncated, ConnectionResetError):
            c.recv(1000)
    p.log_of("/cut")
    for one in node.connections:
        # The end may have come before the node was asked.
        if b"/cut" in [request.target for request in one.requests]:
            assert one.ended.wait(TIMEOUT)
            assert not one.received.endswith(b"0\r\n\r\n"), "the last chunk"


def test_a_reset_in_the_middle_frees_everything(pairs: dict[str, Pair]) -> None:
    with RawNode(lambda exchange: exchange.wait_end()) as node, proxy(https(pairs, node)) as p:
        c = Bare(p.address())
        c.handshake()
        c.sendall(request())
        node.wait_requests(1)
        c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        c.sock.close()
        assert p.log(1)[0]["cause"] == "client-closed"


def test_idle_connections_end_with_close_notify(pairs: dict[str, Pair], node: HttpNode) -> None:
    config = https(pairs, node, timeouts={"keep_alive": "1s"})
    with proxy(config) as p, Bare(p.address()) as c:
        c.handshake()
        c.sendall(request())
        read_response(Reader(c))  # type: ignore[arg-type]
        assert c.recv(1) == b""


# --- reload, workers ----------------------------------------------------------------------


def test_a_reload_leaves_connections_alone(
    authority: Authority, pairs: dict[str, Pair], node: HttpNode
) -> None:
    config = https(pairs, node)
    with proxy(config) as p, TlsClient(p.address()) as kept, Bare(p.address()) as middle:
        assert kept.ask("/before").status == 200
        middle.sock.sendall(middle.flight())
        assert middle.fill()
        other = {"default": authority.certificate("default.test")}
        assert p.reload(https(other, node)).returncode == 0
        assert kept.ask("/after").status == 200
        middle.handshake()
        middle.sendall(request("/middle"))
        assert read_response(Reader(middle)).status == 200  # type: ignore[arg-type]
        with TlsClient(p.address(), name="www.shop.test") as c:
            shown = hashlib.sha256(c.tls.getpeercert(True) or b"").hexdigest()
            assert shown == other["default"].fingerprint


@pytest.mark.parametrize("version", VERSIONS)
def test_a_session_outlives_its_worker(
    pairs: dict[str, Pair], node: HttpNode, version: str
) -> None:
    with proxy(https(pairs, node)) as p:

        def visit(session: ssl.SSLSession | None) -> tuple[ssl.SSLSession | None, bool]:
            context = client_context(version)
            with TlsClient(p.address(), context, session, name="www.shop.test") as c:
                assert c.ask("/").status == 200
                return c.session, c.reused

        session, reused = visit(None)
        assert not reused
        session, reused = visit(session)
        assert reused
        p.wait_worker_replaced(p.kill_worker(0))
        _, reused = visit(session)
        assert reused
        assert p.status()["virtual_servers"]["shop"]["tls"]["resumed"] >= 1


def test_a_stop_lets_answers_finish(pairs: dict[str, Pair]) -> None:
    go = threading.Event()

    def slow(exchange: Any) -> None:
        exchange.wait(go)
        exchange.send(reply(200, b"after all"))

    with RawNode(slow) as node:
        with proxy(https(pairs, node, timeouts={"drain": "10s"})) as p:
            with TlsClient(p.address()) as c:
                c.send(request())
                node.wait_requests(1)
                stopper = threading.Thread(target=p.process.terminate)  # type: ignore[union-attr]
                stopper.start()
                stopper.join()
                go.set()
                assert c.response().body == b"after all"
                assert c.reader.rest() == b""


def test_a_proxy_header_ahead_of_tls(pairs: dict[str, Pair], node: HttpNode) -> None:
    server = {"proxy_protocol": True, "trusted_proxies": ["127.0.0.1/32"]}
    header = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n"
    with proxy(https(pairs, node, server=server)) as p:
        with TlsClient(p.address(), first=header) as c:
            assert dict(c.ask("/seen").json()["fields"])["X-Forwarded-For"] == "192.0.2.7"
        assert p.log_of("/seen")["client"] == "192.0.2.7"
        with pytest.raises((ssl.SSLError, ConnectionError)):
            TlsClient(p.address())


def test_files_are_not_left_open(p: Proxy) -> None:
    assert Path(f"/proc/{p.worker_pids()[0]}/fd").exists()
    until(lambda: p.status()["workers"][0]["connections"] == 0, "all closed")


# --- certificates of clients --------------------------------------------------------------


def with_certificate(pair: Pair | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if pair is not None:
        context.load_cert_chain(pair.certificate_path, pair.key_path)
    return context


SPOOFED = [
    ("X-Client-Certificate", "verified"),
    ("x_client_certificate", "verified"),
    ("X-CLIENT-CERTIFICATE-SUBJECT", "CN=admin"),
    ("X-Client-Certificate_Subject", "CN=admin"),
]


@pytest.mark.parametrize("version", VERSIONS)
def test_nodes_are_told_who_a_client_is(
    authority: Authority, pairs: dict[str, Pair], node: HttpNode, version: str
) -> None:
    demands = {"client_certificates": "optional", "client_ca": str(authority.file)}
    alice = with_certificate(authority.certificate("alice", client=True))
    nobody = with_certificate(None)
    for context in (alice, nobody):
        if version == "1.2":
            context.maximum_version = ssl.TLSVersion.TLSv1_2
    with proxy(https(pairs, node, tls=demands)) as p:

        def told(context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> Any:
            with TlsClient(p.address(), context, session) as c:
                fields = c.ask("/", *SPOOFED).json()["fields"]
                return c.session, c.reused, [f for f in fields if "ertificate" in f[0].lower()]

        session, _, fields = told(alice)
        known = [
            ["X-Client-Certificate", "verified"],
            ["X-Client-Certificate-Subject", "CN=alice"],
        ]
        assert fields == known
        _, reused, fields = told(alice, session)
        assert reused
        assert fields == known, "a resumed session is the same client's"
        assert told(nobody)[2] == [["X-Client-Certificate", "none"]]


def test_a_client_without_the_certificate_that_is_required(
    authority: Authority, pairs: dict[str, Pair], node: HttpNode, tmp_path: Path
) -> None:
    demands = {"client_certificates": "required", "client_ca": str(authority.file)}
    stranger = Authority(tmp_path, "somebody else").certificate("mallory", client=True)
    before = len(node.requests)
    with proxy(https(pairs, node, tls=demands)) as p:
        for number, (pair, why) in enumerate(((None, "did not return"), (stranger, "issuer"))):
            with pytest.raises((ssl.SSLError, ConnectionError, Closed)):
                with TlsClient(p.address(), with_certificate(pair)) as c:
                    c.ask("/")
            line = p.log(number + 1)[-1]
            assert line["cause"].startswith("handshake-failed:")
            assert why in line["cause"]
            assert line["sni"] == "www.example.com"
        with TlsClient(
            p.address(), with_certificate(authority.certificate("bob", client=True))
        ) as c:
            assert c.ask("/").status == 200
    assert len(node.requests) == before + 1
