"""python -m benchmarks.faults: what fails while things go wrong, beside HAProxy and nginx.

Each proxy has two workers (HAProxy: threads of one process), three nodes that answer in 5 ms, and
the clients of fault_load.py in front, which say what counts as failed. The cases:

  reloads   50 reloads, each of a changed file, with WebSockets held open through all of them
  upgrade   the program replaces itself three times; old processes finish what they have
  node      a node is killed (SIGKILL) and started again two seconds later, five times
  worker    a process that serves is killed (SIGKILL), five times
  slow      2,000 clients send their head byte by byte, meanwhile the others are served
  mutated   100,000 requests, valid and nearly valid, to one node that records (fault_mutants.py)

What was in flight on a killed node is read from memory that it shares with this program, and from
its sockets just before: what came between the two is not in it. What was in flight in a killed
worker are the connections that it had accepted and whose clients waited for an answer: it was
stopped for the moment in which they were counted. An answer that was on its way counts too, so
that these may be more than fail.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from . import machine
from .fault_load import Waiting
from .fault_mutants import mutated
from .fault_node import KINDS, InFlight
from .fault_peers import PEERS, FaultPeer
from .report import markdown_table

SLOTS, WEBSOCKETS, NODES = 40, 20, 3
DELAY_MS = 5
RELOADS, UPGRADES, KILLS, MUTANTS = 50, 3, 5, 100_000
SLOW_CLIENTS = 2000
QUIET_S = 2.0
PYTHON = (sys.executable, "-m")
ROOT = Path(__file__).resolve().parents[1]


def answers(port: int) -> bool:
    """Whether a request is answered there."""
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as one:
            one.sendall(b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
            return one.recv(100).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


class Node:
    """A node process that can be killed and started again at its port."""

    def __init__(self, port: int, file: Path) -> None:
        self.port, self.file = port, file
        self.start()

    def start(self) -> None:
        words = ["benchmarks.fault_node", str(self.port), str(DELAY_MS), str(self.file)]
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", "--", *PYTHON, *words], cwd=ROOT
        )
        while not answers(self.port):
            time.sleep(0.02)

    def kill(self) -> int:
        """How many requests were in flight: begun and not answered, or not even read."""
        self.process.send_signal(signal.SIGSTOP)
        unread = _unread(self.port)
        self.process.kill()
        self.process.wait()
        return sum(InFlight(self.file, create=False).read().values()) + unread


def _connections(port: int) -> list[list[str]]:
    """The kernel's rows of the open connections to this port."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [row for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "01"]


def _unread(port: int) -> int:
    """Connections to this port with bytes that nobody has read."""
    return sum(int(row[4].split(":")[1], 16) > 0 for row in _connections(port))


def accepted(pid: int, port: int) -> set[int]:
    """The clients' ports of the connections to this port that a process has."""
    inodes = set()
    for file in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            inodes.add(os.readlink(f"/proc/{pid}/fd/{file}"))
    mine = [row for row in _connections(port) if f"socket:[{row[9]}]" in inodes]
    return {int(row[2].split(":")[1], 16) for row in mine}


class Load:
    """The clients, in a process of their own."""

    def __init__(self, peer: FaultPeer, websockets: int = WEBSOCKETS) -> None:
        file = peer.directory / "waiting"
        words = ["benchmarks.fault_load", *map(str, (peer.port, SLOTS, websockets, file))]
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", "--", *PYTHON, *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        self._say(None, "ready")
        self.waiting = Waiting(file)

    def mark(self, name: str) -> None:
        self._say(f"mark {name}", "marked")

    def _say(self, line: str | None, expected: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if line is not None:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        found = self.process.stdout.readline().strip()
        if found != expected:
            raise RuntimeError(f"the clients say {found!r}")

    def end(self) -> dict[str, Any]:
        result: dict[str, Any] = json.loads(self.process.communicate()[0].splitlines()[-1])
        return result


@contextlib.contextmanager
def running(kind: type[FaultPeer]) -> Iterator[tuple[FaultPeer, list[Node]]]:
    ports = machine.free_ports(NODES + 1)
    nodes: list[Node] = []
    with tempfile.TemporaryDirectory(prefix="fastlb-faults-") as folder:
        peer = kind(Path(folder), ports[0], ports[1:])
        try:
            nodes += [Node(port, Path(folder, f"node-{port}")) for port in ports[1:]]
            peer.start(answers)
            yield peer, nodes
        finally:
            peer.end()
            for node in nodes:
                node.process.kill()
                node.process.wait()


def total(part: dict[str, Any]) -> tuple[int, int]:
    return sum(part["requests"].values()), sum(part["failed"].values())


def how(part: dict[str, Any]) -> str:
    return ", ".join(f"{kind}: {count}" for kind, count in sorted(part["failed"].items())) or "-"


Row = dict[str, Any]


def reloads(peer: FaultPeer, nodes: list[Node], arguments: argparse.Namespace) -> Row:
    load = Load(peer)
    time.sleep(QUIET_S)
    load.mark("reloads")
    for _ in range(arguments.reloads):
        peer.reload()
        time.sleep(0.1)
    time.sleep(QUIET_S)
    result = load.end()
    part = result["parts"]["reloads"]
    requests, failed = total(part)
    lost = f"{len(result['lost'])} of {result['websockets']}"
    lost += "".join(f" ({why})" for why in sorted(set(result["lost"]))[:1])
    gap = round(part["longest_gap_ms"])
    return {"requests": requests, "failed": failed, "how": how(part), "websockets lost": lost,
            "p99 ms": part["ms"]["p99"], "longest gap ms": gap}  # fmt: skip


def upgrade(peer: FaultPeer, nodes: list[Node], arguments: argparse.Namespace) -> Row:
    load = Load(peer, 0)
    time.sleep(QUIET_S)
    load.mark("upgrades")
    for _ in range(UPGRADES):
        peer.upgrade()
        time.sleep(QUIET_S)
    part = load.end()["parts"]["upgrades"]
    requests, failed = total(part)
    gap = round(part["longest_gap_ms"])
    return {"requests": requests, "failed": failed, "how": how(part), "longest gap ms": gap}


def node(peer: FaultPeer, nodes: list[Node], arguments: argparse.Namespace) -> Row:
    load, victims = Load(peer, 0), random.Random(arguments.seed)
    in_flight = 0
    time.sleep(QUIET_S)
    load.mark("kills")
    for _ in range(KILLS):
        victim = victims.choice(nodes)
        in_flight += victim.kill()
        time.sleep(QUIET_S)
        victim.start()
        time.sleep(QUIET_S)
    part = load.end()["parts"]["kills"]
    requests, _ = total(part)
    failed = {
        method: sum(count for kind, count in part["failed"].items() if kind.startswith(method))
        for method in KINDS
    }
    return {"requests": requests, "in flight": in_flight, "GET failed": failed["GET"],
            "POST failed": failed["POST"], "how": how(part)}  # fmt: skip


def worker(peer: FaultPeer, nodes: list[Node], arguments: argparse.Namespace) -> Row:
    load = Load(peer, 0)
    time.sleep(QUIET_S)
    load.mark("kills")
    slowest, in_flight = 0.0, 0
    for _ in range(KILLS):
        before = set(peer.workers())
        victim = peer.worker()
        os.kill(victim, signal.SIGSTOP)
        in_flight += len(accepted(victim, peer.port) & load.waiting.ports())
        begun = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        while time.monotonic() < begun + 5:
            with contextlib.suppress(Exception):
                if set(peer.workers()) - before and answers(peer.port):
                    break
            if peer.dead():
                break
            time.sleep(0.002)
        slowest = max(slowest, time.monotonic() - begun)
        if peer.dead():
            peer.start(answers)  # as its supervisor would
        time.sleep(QUIET_S)
    part = load.end()["parts"]["kills"]
    requests, failed = total(part)
    gap = round(part["longest_gap_ms"])
    return {"requests": requests, "in flight": in_flight, "failed": failed, "how": how(part),
            "replaced after ms": round(1000 * slowest), "longest gap ms": gap}  # fmt: skip


def slow(peer: FaultPeer, nodes: list[Node], arguments: argparse.Namespace) -> Row:
    load = Load(peer, 0)
    time.sleep(QUIET_S)
    load.mark("before")
    time.sleep(5)
    ended = threading.Event()
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(socket.socket()) for _ in range(arguments.slow_clients)]
        for one in crowd:
            one.connect(("127.0.0.1", peer.port))
            one.sendall(b"GET / HTTP/1.1\r\nHost: bench\r\nX: ")
        drips = threading.Thread(target=_drip, args=(crowd, ended))
        drips.start()
        load.mark("during")
        time.sleep(5)
        result = load.end()
        ended.set()
        drips.join()
    before, during = result["parts"]["before"], result["parts"]["during"]
    requests, failed = total(during)
    ratio = round(during["ms"]["p99"] / before["ms"]["p99"], 2)
    return {"requests": requests, "failed": failed, "how": how(during),
            "p99 before ms": before["ms"]["p99"], "p99 during ms": during["ms"]["p99"],
            "ratio": ratio}  # fmt: skip


def _drip(crowd: list[socket.socket], ended: threading.Event) -> None:
    """A byte of each every second."""
    while not ended.wait(0.1):
        for one in crowd[:: len(crowd) // 200 or 1]:
            with contextlib.suppress(OSError):
                one.send(b"x", socket.MSG_DONTWAIT)


UNDER_LOAD: dict[str, Callable[[FaultPeer, list[Node], argparse.Namespace], Row]] = {
    "reloads": reloads, "upgrade": upgrade, "node": node, "worker": worker, "slow": slow,
}  # fmt: skip
CASES = (*UNDER_LOAD, "mutated")


def measured(case: str, kind: type[FaultPeer], arguments: argparse.Namespace) -> Row:
    if case == "mutated":
        row, examples = mutated(kind, arguments.mutants, arguments.seed, answers)
        print("\n".join(f"{kind.name}: {one}" for one in examples), file=sys.stderr)
        return row
    with running(kind) as (peer, nodes):
        return UNDER_LOAD[case](peer, nodes, arguments)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.faults",
        description="Injects faults into fastlb and its peers, and counts what fails.",
        epilog="example: python -m benchmarks.faults --cases reloads --peers fastlb,haproxy",
    )
    names = [peer.name for peer in PEERS]
    parser.add_argument("--cases", default=",".join(CASES), help=", ".join(CASES))
    parser.add_argument("--peers", default=",".join(names), help=", ".join(names))
    parser.add_argument("--reloads", type=int, default=RELOADS)
    parser.add_argument("--slow-clients", type=int, default=SLOW_CLIENTS)
    parser.add_argument("--mutants", type=int, default=MUTANTS)
    parser.add_argument("--seed", type=int, default=1, help="of mutants; which nodes are killed")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    print(f"{platform.machine()}, {len(os.sched_getaffinity(0))} CPUs, Linux {platform.release()}")
    whole: dict[str, dict[str, Row]] = {}
    for case in arguments.cases.split(","):
        rows = whole[case] = {}
        for kind in PEERS:
            if kind.name in arguments.peers.split(","):
                version = kind.version()
                if version is None:
                    print(f"{kind.name}: not installed, left out", file=sys.stderr)
                    continue
                rows[f"{kind.name} {version}"] = measured(case, kind, arguments)
        head = ["proxy", *next(iter(rows.values()), {})]
        lines = [[name, *map(str, row.values())] for name, row in rows.items()]
        print("\n".join(["", case, "", *markdown_table([head, *lines])]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(whole, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
