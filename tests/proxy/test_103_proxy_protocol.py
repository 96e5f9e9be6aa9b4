"""The PROXY protocol with real peers: nginx and HAProxy in front, nginx behind.

The client of every story is 127.0.0.88; whoever sees another address was told nothing.
"""

import contextlib
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.core.handshakes import certificate
from tests.harness import Client, HttpNode, changed, proxy, settings, until
from tests.harness.chop import ByteNode
from tests.harness.client import tool_environment
from tests.harness.nginx import Nginx
from tests.harness.operator import status_of
from tests.harness.proxy import free_port
from tests.harness.tls_client import TlsClient
from tests.harness.tls_node import TlsNode
from tests.harness.wait import TIMEOUT

PEM = certificate()
CLIENT = "127.0.0.88"
LOAD_STREAM = "load_module /usr/lib/nginx/modules/ngx_stream_module.so;"
TRUSTING = {"proxy_protocol": True, "trusted_proxies": ["127.0.0.1/32"]}


# ---- towards nodes ----


def nginx_behind(listen="proxy_protocol", **more):
    locations = """
    set_real_ip_from 127.0.0.0/8; real_ip_header proxy_protocol;
    location / { return 200 '{"node": "$server_addr", "client": "$remote_addr",
      "said": "$proxy_protocol_addr:$proxy_protocol_port",
      "to": "$proxy_protocol_server_addr:$proxy_protocol_server_port"}'; }
    """
    return Nginx(locations + more.pop("also", ""), more.pop("files", None), listen=listen, **more)


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("protocol", ["http", "tcp"])
def test_nginx_behind_sees_the_client(version, protocol):
    with nginx_behind() as node:
        config = settings(
            node.address, server={"protocol": protocol}, pool={"proxy_protocol": version}
        )
        with proxy(config) as p:
            for _ in range(2):
                with p.client(CLIENT) as client:
                    port = client.sock.getsockname()[1]
                    said = client.ask().json()
                    again = client.ask().json()
                assert said["client"] == CLIENT
                assert said["said"] == f"{CLIENT}:{port}"
                assert said["to"] == "{}:{}".format(*p.address())
                assert again == said


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_nginx_behind_sees_the_client_of_passed_through_tls(version):
    tls = "ssl_certificate both.pem; ssl_certificate_key both.pem;"
    with nginx_behind("ssl proxy_protocol", also=tls, files={"both.pem": PEM}) as node:
        config = settings(
            node.address, server={"protocol": "tls"}, pool={"proxy_protocol": version},
            persistence={"type": "ssl"},
        )  # fmt: skip
        with proxy(config) as p, TlsClient(p.address(), source=CLIENT) as client:
            assert client.ask().json()["client"] == CLIENT


def test_two_clients_share_no_node_connection():
    """What a connection was introduced as, it is to its end."""
    with nginx_behind() as node:
        with proxy(settings(node.address, pool={"proxy_protocol": "v1"})) as p:
            with p.client("127.0.0.88") as one, p.client("127.0.0.89") as two:
                for _ in range(3):
                    assert one.ask().json()["client"] == "127.0.0.88"
                    assert two.ask().json()["client"] == "127.0.0.89"
            assert p.get(source="127.0.0.90").json()["client"] == "127.0.0.90"


def test_names_go_to_the_node_in_version_2():
    """What a node that does not read the ClientHello wants to know: SNI and ALPN."""
    with ByteNode("a", b"answer") as node:
        config = settings(node, server={"protocol": "tls"}, pool={"proxy_protocol": "v2"})
        with proxy(config) as p, contextlib.suppress(OSError):
            TlsClient(p.address(), name="shop.example.com", source=CLIENT)
        sent = node.received()
    assert sent[:12] == b"\r\n\r\n\0\r\nQUIT\n"
    end = 16 + int.from_bytes(sent[14:16], "big")
    assert sent[16:20] == socket.inet_aton(CLIENT)
    assert b"\x02\0\x10shop.example.com" in sent[28:end]
    assert sent[end] == 22


# ---- from proxies in front ----


@contextlib.contextmanager
def haproxy(target, how):
    """HAProxy in front of `target`, telling it of its clients as `how`; its address."""
    host, port = target
    own = free_port()
    with tempfile.TemporaryDirectory(prefix="fastlb-haproxy-") as folder:
        file = Path(folder, "haproxy.cfg")
        file.write_text(
            "global\n  nbthread 1\ndefaults\n  mode tcp\n  timeout connect 5s\n"
            "  timeout client 30s\n  timeout server 30s\n"
            f"listen front\n  bind 127.0.0.1:{own}\n"
            f"  server shop {host}:{port} {how} source 127.0.0.1\n"
        )
        running = subprocess.Popen(
            ["haproxy", "-db", "-f", str(file)], env=tool_environment(),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            until(lambda: listening(("127.0.0.1", own)), "HAProxy accepting")
            yield "127.0.0.1", own
        finally:
            running.terminate()
            running.wait(TIMEOUT)


def listening(address):
    try:
        Client(address).sock.close()
    except ConnectionRefusedError:
        return False
    return True


@contextlib.contextmanager
def nginx_stream(target):
    host, port = target
    own = f"127.0.0.1:{free_port()}"
    top = f"""{LOAD_STREAM}
stream {{ server {{ listen {own}; proxy_protocol on; proxy_bind 127.0.0.1;
  proxy_pass {host}:{port}; }} }}
"""
    with Nginx("", top=top):
        yield "127.0.0.1", int(own.rpartition(":")[2])


FRONTS = {
    "haproxy-v1": lambda target: haproxy(target, "send-proxy"),
    "haproxy-v2": lambda target: haproxy(target, "send-proxy-v2"),
    "haproxy-v2-with-options": lambda target: haproxy(
        target, "send-proxy-v2 proxy-v2-options crc32c,unique-id,ssl,authority"
    ),
    "nginx": nginx_stream,
}


@pytest.mark.parametrize("front", FRONTS)
def test_the_client_behind_another_proxy_is_seen(front):
    with HttpNode("a") as a, HttpNode("b") as b, HttpNode("c") as c:
        config = settings(a, b, c, persistence={"type": "ip"}, server=TRUSTING)
        with proxy(config) as p, FRONTS[front](p.address()) as address:
            homes = {}
            for _ in range(3):
                for number in range(1, 7):
                    source = f"127.0.23.{number}"
                    with Client(address, source) as client:
                        answer = client.ask()
                    assert homes.setdefault(source, answer.node) == answer.node
                    assert forwarded(answer) == source
            assert {line["client"] for line in p.log(18)} == set(homes)
    assert sorted(homes.values()).count("a") == 2


def forwarded(answer):
    (value,) = [v for k, v in answer.json()["fields"] if k.lower() == "x-forwarded-for"]
    return value


@pytest.mark.parametrize("front", ["haproxy-v1", "haproxy-v2", "nginx"])
def test_passed_through_tls_behind_another_proxy(front):
    """TLS 1.3 falls back to the address, which is the one that the header tells."""
    with TlsNode("a", PEM) as a, TlsNode("b", PEM) as b:
        config = settings(
            a, b, server={**TRUSTING, "protocol": "tls"},
            persistence={"type": "ssl", "fallback": "by-ip"}, classes={"by-ip": {"type": "ip"}},
        )  # fmt: skip
        with proxy(config) as p, FRONTS[front](p.address()) as address:
            homes = {}
            for _ in range(3):
                for number in range(1, 5):
                    with TlsClient(address, source=f"127.0.24.{number}") as client:
                        node = client.ask().node
                    assert homes.setdefault(number, node) == node
            assert {line["client"] for line in p.log(12)} == {f"127.0.24.{n}" for n in homes}
    assert sorted(homes.values()) == ["a", "a", "b", "b"]


@pytest.mark.parametrize("out", ["v1", "v2"])
def test_a_header_in_becomes_a_header_out(out):
    """nginx on both sides: what the one in front tells is what the one behind hears."""
    with nginx_behind() as node:
        config = settings(
            node.address, server={**TRUSTING, "protocol": "tcp"}, pool={"proxy_protocol": out}
        )
        with proxy(config) as p, nginx_stream(p.address()) as address:
            with Client(address, CLIENT) as client:
                port = client.sock.getsockname()[1]
                said = client.ask().json()
    assert said["said"] == f"{CLIENT}:{port}"
    assert said["to"] == "{}:{}".format(*address)


V1 = f"PROXY TCP4 {CLIENT} 127.0.0.1 4711 80\r\n".encode()
V2 = (
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes([127, 0, 0, 88, 127, 0, 0, 1]) + b"\x12\x67\0\x50"
)
V2_LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"


@pytest.fixture(scope="module")
def trusting():
    with HttpNode("a") as node, proxy(settings(node, server=TRUSTING)) as p:
        yield p


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_header_in_any_pieces(trusting, header, size):
    with trusting.client() as client:
        client.drip(header + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", size)
        assert forwarded(client.response()) == CLIENT


@pytest.mark.parametrize("header", [V2_LOCAL, b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN x y\r\n"])
def test_a_header_that_tells_no_client(trusting, header):
    with trusting.client() as client:
        client.send(header)
        assert forwarded(client.ask()) == "127.0.0.1"


@pytest.mark.parametrize(
    "sent",
    [
        b"PROXY TCP4 1.2.3.4\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 99999\r\n",
        b"PROXY " + b"x" * 200,
        V2[:13] + b"\x11\xff\xff" + bytes(100),
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c" + bytes(12),
    ],
)
def test_a_malformed_header_is_closed(trusting, sent):
    before = counted(trusting)
    with trusting.client() as client:
        client.send(sent)
        client.expect_closed()
    until(lambda: counted(trusting) > before, "it is counted")


def counted(p):
    return status_of(p)["causes"].get("bad-proxy-header", 0)


def test_who_is_not_trusted_is_a_client_like_any_other():
    """A client that forges a header is not believed, and its own request is answered."""
    with HttpNode("a") as a:
        config = settings(a, server={**TRUSTING, "trusted_proxies": ["127.0.0.99/32"]})
        with proxy(config) as p:
            with p.client() as client:
                assert forwarded(client.ask()) == "127.0.0.1"
            with p.client() as client:
                client.send(V1)
                answer = client.answer_then_closed()
                assert answer is None or answer.status == 400
            with p.client("127.0.0.99") as client:
                client.send(V1)
                assert forwarded(client.ask()) == CLIENT
        assert [request.get("X-Forwarded-For") for request in a.requests] == [
            b"127.0.0.1", CLIENT.encode(),
        ]  # fmt: skip


def test_a_header_that_does_not_come_is_waited_for_no_longer_than_configured():
    with HttpNode("a") as a:
        config = settings(a, server=TRUSTING, timeouts={"handshake": "300ms"})
        with proxy(config) as p:
            with p.client() as client:
                client.send(V1[:10])
                client.expect_closed()
            assert p.log(1)[0]["cause"] == "opening-timeout"
            assert p.reload(changed(config, "timeouts.handshake", "10s")).returncode == 0
