"""HAProxy, or nothing, in the place of fastlb: to test the tests.

A story that passes here and fails with fastlb shows an error of fastlb; one that fails with both
is suspect. Only what both can do is translated: nodes, the algorithm, time-outs, a cookie.
"""

import signal
import subprocess
from typing import Any

from .client import tool_environment
from .node import RawNode
from .proxy import Proxy
from .settings import Config
from .wait import TIMEOUT, until

ALGORITHMS = {
    "round-robin": "roundrobin",
    "weighted-round-robin": "roundrobin",
    "least-connections": "leastconn",
    "random-of-two": "random(2)",
    "hash": "hash src",
}


class HaproxyReference(Proxy):
    """The part of Proxy's interface that plain forwarding stories use."""

    def start(self) -> None:
        file = self.folder / "haproxy.cfg"
        file.write_text(haproxy_config(self.config))
        with open(self.folder / "stderr", "ab") as err:
            self.process = subprocess.Popen(
                ["haproxy", "-db", "-f", str(file)],
                stdout=err, stderr=err, env=tool_environment(),
            )  # fmt: skip
        until(self._accepting, "HAProxy accepting")

    def _accepting(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.stderr()
        try:
            self.client().sock.close()
        except ConnectionRefusedError:
            return False
        return True

    def worker_pids(self) -> list[int]:
        assert self.process is not None
        return [self.process.pid]

    def stop(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(TIMEOUT)


class NoProxy(Proxy):
    """No proxy at all: the clients talk to the first node themselves."""

    def start(self) -> None:
        return

    def stop(self) -> None:
        return

    def address(self, server: str = "shop", index: int = 0) -> tuple[str, int]:
        node = self.config["pools"]["web"]["nodes"][0]
        host, _, port = (node.address if isinstance(node, RawNode) else node).rpartition(":")
        return host.strip("[]"), int(port)


KINDS: dict[str, type[Proxy]] = {
    "fastlb": Proxy,
    "haproxy": HaproxyReference,
    "none": NoProxy,
}


def haproxy_config(config: Config) -> str:
    timeouts: dict[str, Any] = config.get("timeouts", {})
    lines = [
        "global",
        "  nbthread 1",
        "defaults",
        "  mode http",
        "  option forwardfor",
        "  option http-keep-alive",
        "  http-reuse always",
        "  option redispatch 1",
        "  retries 2",
        "  timeout tunnel 1h",
        f"  timeout connect {timeouts.get('connect', '2s')}",
        f"  timeout client {timeouts.get('client_body', '30s')}",
        f"  timeout server {timeouts.get('response', '60s')}",
        f"  timeout http-request {timeouts.get('client_header', '10s')}",
        f"  timeout http-keep-alive {timeouts.get('keep_alive', '60s')}",
    ]
    for name, server in config["virtual_servers"].items():
        lines += [f"frontend {name}", f"  default_backend {server['pool']}"]
        lines += [f"  bind {listen}" for listen in server["listen"]]
        lines += ["  http-request set-header X-Forwarded-Proto http"]
    for name, pool in config["pools"].items():
        algorithm = ALGORITHMS[pool.get("algorithm", "round-robin")]
        lines += [f"backend {name}", f"  balance {algorithm}"]
        cookie = config.get("persistence", {}).get(pool.get("persistence"), {})
        if cookie.get("type") == "transparent":
            lines.append("  cookie X-Mapping-01234567 insert indirect httponly")
        for number, node in enumerate(pool["nodes"]):
            lines.append(server_line(number, node))
    return "\n".join(lines) + "\n"


def server_line(number: int, node: Any) -> str:
    options = dict(node) if isinstance(node, dict) else {"address": node}
    address = options.pop("address")
    address = address.address if isinstance(address, RawNode) else address
    line = f"  server n{number} {address} cookie n{number}"
    if options.pop("backup", False):
        line += " backup"
    if "weight" in options:
        line += f" weight {options['weight']}"
    return line
