"""What the proxy of a soak is told: a virtual server, a pool and a class for each kind of user."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.harness.certificates import Pair

DRAIN_S = 8.0
HOST = "shop.test"
ALGORITHMS = ("round-robin", "least-connections", "random-of-two")


@dataclass(frozen=True)
class Kind:
    """One way of being a user, with a virtual server, a pool and a class of that name."""

    name: str
    users: int
    persistence: str
    sockets: int = 0  # users who hold a WebSocket
    protocol: str = "http"
    server: str = ""
    pool: str = ""
    max_connections: int = 0
    has_maps: bool = True  # its sessions are maps in a cache; else they are in cookies


COOKIE = 'type = "transparent"\ntimeout = "1h"\nreserve = "0s"'
KEY = 'type = "universal"\nkey = "header:X-User"'
USED_RULES = '["soak_rules:name", "soak_rules:wait"]'
KINDS = {
    kind.name: kind
    for kind in (
        Kind("cookie", 12, COOKIE, has_maps=False),
        Kind("key", 12, KEY, sockets=6, pool='monitors = ["http"]'),
        Kind("ip", 12, 'type = "ip"'),
        Kind("https", 8, COOKIE, sockets=4, protocol="https", has_maps=False),
        Kind("rule", 8, 'type = "universal"', server=f"rules = {USED_RULES}"),
        Kind("queue", 12, KEY, pool='queue_timeout = "5s"', max_connections=2),
        Kind("tcp", 6, 'type = "ip"', sockets=4, protocol="tcp"),
    )
}  # fmt: skip

COMMON = """\
[proxy]
workers = {workers}
state_dir = "state"
access_log = "access.log"
[timeouts]
connect = "500ms"
response = "2s"
client_header = "2s"
node_keep_alive = "2s"
drain = "{drain:g}s"
[monitors.http]
type = "http"
path = "/health"
interval = "200ms"
fast_interval = "100ms"
failures = 2
"""
SERVER = """\
[virtual_servers.{kind.name}]
listen = ["127.0.0.1:{port}"]
protocol = "{kind.protocol}"
pool = "{kind.name}"
{kind.server}
{tls}
[persistence.{kind.name}]
{kind.persistence}
[pools.{kind.name}]
nodes = {nodes}
persistence = "{kind.name}"
algorithm = "{algorithm}"
{kind.pool}
[pools.{kind.name}.passive]
backoff = "200ms"
backoff_max = "1s"
"""
RULES = """\
import asyncio

from fastlb import rule

TURN = {turn}


@rule.request
def name(request):
    request.persistence_key = request.headers.get("X-User")


@rule.request
async def wait(request):
    await asyncio.sleep(0.002)
    request.log["turn"] = str(TURN)
"""


def write(
    folder: Path, turn: int, workers: int, ports: dict[str, int], nodes: Sequence[str], pair: Pair
) -> None:
    """The file and its rules; another `turn` has other algorithms, each third one other rules."""
    text = COMMON.format(workers=workers, drain=DRAIN_S)
    for kind in KINDS.values():
        limit = f", max_connections = {kind.max_connections}" if kind.max_connections else ""
        listed = ", ".join(f"{{ address = {json.dumps(node)}{limit} }}" for node in nodes)
        tls = ""
        if kind.protocol == "https":
            files = (json.dumps(str(path)) for path in (pair.certificate_path, pair.key_path))
            tls = "tls = {{ certificates = [{{ certificate = {}, key = {} }}] }}".format(*files)
        text += SERVER.format(
            kind=kind, port=ports[kind.name], nodes=f"[{listed}]", tls=tls,
            algorithm=ALGORITHMS[turn % len(ALGORITHMS)],
        )  # fmt: skip
    (folder / "soak_rules.py").write_text(RULES.format(turn=turn // 3))
    (folder / "fastlb.toml").write_text(text)
