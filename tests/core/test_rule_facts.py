"""What rules see of a request, a response and a connection, by the addresses and names of it."""

import json

import pytest

from tests.harness import HttpNode, settings
from tests.harness.rules import ruled_worker
from tests.harness.settings import Config, changed
from tests.harness.tcp import Peer, TcpNode
from tests.harness.wait import until
from tests.harness.worker import WorkerProcess

TEXT = """import json, pathlib
from fastlb import rule
FILE = pathlib.Path(__file__).parent / "seen"
NAMES = ("client_address", "client_port", "peer_address", "local_address", "local_port",
         "virtual_server", "protocol", "sni", "alpn", "tls_version", "client_subject", "pool",
         "persistence", "persistence_key", "persistence_node")
def note(one, *names):
    with open(FILE, "a") as file:
        file.write(json.dumps({name: getattr(one, name) for name in NAMES + names}) + "\\n")
@rule.connection
def plain_c(connection): note(connection)
@rule.connection
async def async_c(connection): note(connection)
@rule.request
def plain_r(request): note(request, "method", "target", "host", "http_version")
@rule.request
async def async_r(request):
    note(request, "method", "target", "host", "http_version")
@rule.request
async def chooses(request):
    note(request)
    request.pool, request.persistence_key = "other", "k"
@rule.response
def plain_s(request, response):
    note(request, "method", "target")
    assert response.status == 200 and response.headers["Content-Type"]
    assert 0 <= response.timings.connect < 60 and 0 <= response.timings.first_byte < 60
    response.headers["X-Node"] = f"{response.node.address} {response.node.port}"
@rule.response
async def async_s(request, response): plain_s(request, response)
"""


def seen(w: WorkerProcess, count: int) -> list[dict]:
    file = w.folder / "seen"
    until(lambda: file.exists() and file.read_text().count("\n") >= count, "rules ran")
    return [json.loads(line) for line in file.read_text().splitlines()]


def config(base: Config, *names: str) -> Config:
    return changed(base, "virtual_servers.shop.rules", [f"my:{name}" for name in names])


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_a_request_and_its_connection(kind: str) -> None:
    with HttpNode("a") as a:
        base = settings(a, persistence={"type": "ip"})
        base["pools"]["other"] = {"nodes": [a], "persistence": "shop"}
        names = [f"{kind}_c", f"{kind}_r", "chooses", f"{kind}_s"]
        with ruled_worker(config(base, *names), my=TEXT) as w, w.client() as client:
            answer = client.ask("/t?q=1")
            mine = client.sock.getsockname()
            connection, request, _, response = seen(w, 4)
            address = w.address()
    assert (request["client_address"], request["client_port"]) == mine
    assert connection["peer_address"] == mine[0]
    assert (connection["local_address"], connection["local_port"]) == address
    assert (request["virtual_server"], request["protocol"]) == ("shop", "http")
    assert (connection["pool"], connection["persistence"]) == ("web", "shop")
    assert connection["persistence_key"] is connection["persistence_node"] is None
    assert (response["pool"], response["persistence_key"]) == ("other", "k")
    assert (request["method"], request["target"], request["host"]) == ("GET", "/t?q=1", "shop.test")
    assert (response["method"], response["target"]) == ("GET", "/t?q=1")
    assert answer.get("X-Node") == f"{a.host} {a.port}".encode()
    assert (connection["sni"], connection["tls_version"]) == (None, None)


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_a_connection_of_tcp(kind: str) -> None:
    with TcpNode() as node:
        base = settings(node.address, server={"protocol": "tcp"})
        with ruled_worker(config(base, f"{kind}_c"), my=TEXT) as w:
            with Peer.connect(w.address()) as client:
                client.send(b"x")
                assert node.accept().exactly(1) == b"x"
                (connection,) = seen(w, 1)
    assert (connection["protocol"], connection["client_address"]) == ("tcp", "127.0.0.1")


def test_a_client_of_a_unix_socket_has_no_address(tmp_path) -> None:
    with HttpNode("a") as a:
        base = settings(a, server={"listen": [f"unix:{tmp_path}/s"]})
        with ruled_worker(config(base, "plain_r"), my=TEXT) as w:
            w.ask("/")
            (request,) = seen(w, 1)
    assert [request[name] for name in ("client_address", "peer_address", "local_address")] == [
        None, None, None,
    ]  # fmt: skip
