"""Clients and nodes that do with TLS what nobody should, and what must come of it."""

import socket
import ssl
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.harness import HttpNode, RawNode, proxy, request, settings
from tests.harness.certificates import Authority, pem_of, pem_of_key
from tests.harness.tcp import Peer
from tests.harness.tls_client import TlsClient
from tests.harness.tls_node import TlsNode
from tests.harness.wait import TIMEOUT


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def pem(authority: Authority, *names: str) -> bytes:
    pair = authority.certificate(*names)
    return pem_of_key(pair.key) + pem_of(pair.made, *pair.chain)


def secured(authority: Authority, *nodes: Any, **more: Any) -> dict[str, Any]:
    """TLS towards the nodes, by the name that the client's Host gives."""
    pool = {"tls": {"ca": str(authority.file)}, **more.pop("pool", {})}
    return settings(*nodes, pool=pool, **more)


# --- the ends of tunnels ------------------------------------------------------------------


class HalfClosing(RawNode):
    """Speaks TLS, says at once that it has nothing to say, and reads when told to."""

    def __init__(self, both: bytes, folder: Path):
        super().__init__()
        (folder / "both.pem").write_bytes(both)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(folder / "both.pem")
        self.go = threading.Event()
        self.got = bytearray()
        self.closed = ""
        self.over = threading.Event()

    def _serve(self, connection: Any) -> None:
        sock = connection.sock
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self.context.wrap_bio(incoming, outgoing, server_side=True)
        for step in (tls.do_handshake, tls.unwrap):
            while True:
                with suppress(ssl.SSLWantReadError):
                    step()
                    break
                sock.sendall(outgoing.read())
                if step == tls.unwrap:
                    break
                incoming.write(sock.recv(65536))
        self.go.wait(TIMEOUT)
        while True:
            try:
                piece = tls.read(65536)
                self.got += piece
            except ssl.SSLWantReadError:
                data = sock.recv(65536)
                if not data:
                    break
                incoming.write(data)
            except ssl.SSLZeroReturnError:
                self.closed = "close_notify"
                break
        self.over.set()
        connection.finish("fin")


def unsent_to(node: RawNode) -> int:
    """Bytes in the sockets towards this node that it has not taken."""
    port = int(node.address.rpartition(":")[2])
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ours = sum(int(at[4][:8], 16) for at in lines if int(at[2].partition(":")[2], 16) == port)
    its = sum(int(at[4][9:], 16) for at in lines if int(at[1].partition(":")[2], 16) == port)
    return ours + its


def arrives(node: RawNode, count: int) -> bool:
    for _ in range(20):
        if unsent_to(node) >= count:
            return True
        time.sleep(0.01)
    return False


def test_what_waits_for_a_node_is_not_lost_at_the_end(authority: Authority, tmp_path: Path) -> None:
    """Both sides have ended, and the last of the cipher text does not fit into the socket yet."""
    piece = bytes(range(256)) * 192
    sent = 0
    with HalfClosing(pem(authority, "web.internal"), tmp_path) as node:
        config = secured(authority, node, server={"protocol": "tcp"})
        config["pools"]["web"]["tls"]["server_name"] = "web.internal"
        with proxy(config) as p:
            client = Peer.connect(p.address())
            client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            assert client.rest() == b""
            while arrives(node, sent):  # then less waits in the proxy than makes the client wait
                client.send(piece)
                sent += len(piece)
            client.sock.shutdown(socket.SHUT_WR)
            time.sleep(0.2)
            node.go.set()
            assert node.over.wait(TIMEOUT)
            client.close()
    assert len(node.got) == sent
    assert node.closed == "close_notify"


# --- names that clients make up -----------------------------------------------------------


def ask(p: Any, host: str, *fields: tuple[str, str]) -> Any:
    with p.client() as c:
        c.send(request("/", *fields, host=host))
        return c.response()


@pytest.mark.parametrize(
    ("host", "refusal"),
    [
        ("made-up.test", "mismatch"),
        ("made-up.test", "alert"),
        ("192.0.2.7", "mismatch"),
        ("[2001:db8::7]:443", "mismatch"),
        ("[v1.x]", "mismatch"),
        ("!$&'()*+", "mismatch"),
    ],
)
def test_a_name_that_the_node_has_not_is_the_clients_own_affair(
    authority: Authority, host: str, refusal: str
) -> None:
    both = pem(authority, "shop.test")
    with TlsNode("a", both) as a, TlsNode("b", both) as b:
        nodes = {"a": a, "b": b}
        if refusal == "alert":
            for node in nodes.values():
                node.context.sni_callback = unrecognized
        config = secured(authority, a, b, pool={"retries": 3, "persistence": "shop"})
        config["persistence"] = {"shop": {"type": "universal", "key": "header:X-User"}}
        with proxy(config) as p:
            mine = ("X-User", "u1")
            home = ask(p, "shop.test", mine).json()["node"]
            for _ in range(4):
                assert ask(p, host, mine).status == 502
            assert [ask(p, "shop.test", mine).json()["node"] for _ in range(2)] == [home] * 2
            lines = p.log(7)
            assert {line["retries"] for line in lines} == {0}
            assert lines[1]["cause"].startswith("node-handshake-failed")
            told = {node["address"]: node for node in p.status()["pools"]["web"]["nodes"]}
            assert [node["connect_failures"] for node in told.values()] == [0, 0]


def unrecognized(sock: ssl.SSLSocket, name: str | None, context: ssl.SSLContext) -> int | None:
    sock.asked_for = name  # type: ignore[attr-defined]
    return None if name == "shop.test" else ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME


# --- fields that clients make up ----------------------------------------------------------

FORGED = [
    ("X-Client-Certificate", "verified"),
    ("x_client_certificate_subject", "CN=admin"),
    ("Connection", "X-Client-Certificate"),
]


@pytest.mark.parametrize("other", ["web", "same-nodes"])
def test_no_client_writes_what_nodes_believe_elsewhere(authority: Authority, other: str) -> None:
    with HttpNode("a") as a, HttpNode("elsewhere") as elsewhere:
        config = settings(a)
        config["pools"]["same-nodes"] = {"nodes": [elsewhere, a]}
        config["pools"]["unrelated"] = {"nodes": [elsewhere]}
        listen = ["127.0.0.1:0"]
        certificates = [authority.certificate("shop.test").table()]
        demands = {"client_certificates": "optional", "client_ca": str(authority.file)}
        config["virtual_servers"] |= {
            "known": {
                "listen": listen, "protocol": "https", "pool": "web",
                "tls": {"certificates": certificates, **demands},
            },
            "secret": {
                "listen": listen, "protocol": "https", "pool": other,
                "tls": {"certificates": certificates},
            },
            "free": {"listen": listen, "pool": "unrelated"},
        }  # fmt: skip
        config["virtual_servers"]["shop"]["pool"] = other
        with proxy(config) as p:

            def told(server: str) -> dict[str, list[str]]:
                """By node, the fields of certificates that it got."""
                got: dict[str, list[str]] = {}
                for _ in range(4):
                    tls = server in ("known", "secret")
                    with TlsClient(p.address(server)) if tls else p.client(server=server) as c:
                        answer = c.ask("/", *FORGED).json()
                    fields = [": ".join(each) for each in answer["fields"]]
                    got[answer["node"]] = [each for each in fields if "ertificate" in each]
                return got

            assert told("known") == {"a": ["X-Client-Certificate: none"]}
            for server in ("shop", "secret"):
                assert set(map(tuple, told(server).values())) == {()}
            (fields,) = told("free").values()
            assert "x_client_certificate_subject: CN=admin" in fields


# --- who was there before a reload --------------------------------------------------------


def certified(authority: Authority, node: Any, demands: str = "off") -> dict[str, Any]:
    tls: dict[str, Any] = {"certificates": [authority.certificate("shop.test", file="s").table()]}
    if demands != "off":
        tls |= {"client_certificates": demands, "client_ca": str(authority.file)}
    return settings(node, server={"protocol": "https", "tls": tls})


def test_nobody_stays_without_tls(authority: Authority) -> None:
    with HttpNode("a") as a, proxy(settings(a)) as p, p.client() as client:
        assert client.ask("/1").status == 200
        assert p.reload(certified(authority, a)).returncode == 0
        assert client.ask("/2").status == 503
        assert client.reader.rest() == b""
        with TlsClient(p.address()) as other:
            assert other.ask("/3").status == 200
        assert [each.get("cause") for each in p.log(3)] == [None, "stopped", None]


def test_nobody_stays_without_a_certificate(authority: Authority) -> None:
    with HttpNode("a") as a, proxy(certified(authority, a)) as p:
        with TlsClient(p.address()) as before:
            assert before.ask("/1").status == 200
            assert p.reload(certified(authority, a, "required")).returncode == 0
            assert before.ask("/2").status == 503
        assert p.reload(certified(authority, a)).returncode == 0
        with TlsClient(p.address()) as after:
            assert after.ask("/3").status == 200
            assert p.reload(certified(authority, a)).returncode == 0
            assert after.ask("/4").status == 200
