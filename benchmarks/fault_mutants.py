"""The case `mutated`: requests that are valid and nearly valid, as tests/fuzz makes them, through
each proxy to the same recording node.

The client sends each with a good request behind it. What comes out at the node is cut into
messages by the node, and each of them, with a good one behind it, is read by h11, llhttp and
nginx. What a reader finds is

  the same        this message, then the good one, or the connection's end
  refused         it does not take it: no harm, it is not served
  different       the good one where it should be, but other fields, target or body before it
  smuggled        anything else: where the message ends is not clear, so that a part of it may be
                  taken for a request, or the next one for a part of it

and smuggled is, too, each request at the node that is not in the proxy's own log as forwarded.
"""

from __future__ import annotations

import contextlib
import random
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fuzz import messages, readers
from tests.fuzz.differential import (
    LAST,
    TAIL,
    TAIL_BY_NGINX,
    TAIL_READ,
    Recorder,
    expected,
    origin_form,
    pieces,
)
from tests.fuzz.readers import REFUSED
from tests.harness.client import Client
from tests.harness.wire import Message

from . import machine
from .fault_peers import FaultPeer

BATCH = 500
SETTLE_S = 2.0  # for a line in a log that comes after its answer
READERS = ("h11", "llhttp", "nginx")
EXAMPLES = 2
Row = dict[str, Any]


class Findings:
    """Of one proxy."""

    def __init__(self) -> None:
        self.answers: Counter[str] = Counter()
        self.forwarded = self.crashed = 0
        self.differently = self.smuggled = 0
        self.refused_by: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.examples: list[str] = []
        self.at_node: Counter[tuple[bytes, bytes]] = Counter()

    def answered(self, got: bytes) -> None:
        if not got.startswith(b"HTTP/1."):
            self.answers["none"] += 1
        elif got[9:12] in (b"501", b"505"):
            self.answers["refused"] += 1
        else:
            names = {b"4": "refused", b"5": "5xx"}
            self.answers[names.get(got[9:10], "good")] += 1

    def example(self, what: str, seen: Any, data: bytes) -> None:
        """A few of each kind; what asks for an upgrade is a kind by itself."""
        if b"\r\nupgrade:" in data.lower():
            what += " (of one with Upgrade)"
        self.kinds[what] += 1
        if self.kinds[what] <= EXAMPLES:
            self.examples.append(f"{what}: {seen!r:.300} of {data!r:.300}")

    def row(self, count: int) -> Row:
        by = ", ".join(f"{who} {self.refused_by[who]}" for who in ("the node", *READERS))
        return {
            "requests": count, "refused": self.answers["refused"],
            "closed without an answer": self.answers["none"], "5xx": self.answers["5xx"],
            "forwarded": self.forwarded, "of these refused by": by,
            "read differently": self.differently, "smuggled": self.smuggled,
            "workers crashed": self.crashed,
        }  # fmt: skip


def mutated(
    kind: type[FaultPeer], count: int, seed: int, answers: Callable[[int], bool]
) -> tuple[Row, list[str]]:
    """One proxy's row of the table, and examples of what it should not have let through."""
    found = Findings()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="fastlb-mutants-"))
        node = _Node()
        stack.enter_context(node)
        nginx = stack.enter_context(readers.NginxReader())
        peer = kind(Path(folder), machine.free_ports(1)[0], [node.port], logs=True)
        stack.callback(peer.end)
        peer.start(answers)
        before = set(peer.workers())
        for begin in range(0, count, BATCH):
            numbers = range(begin, min(begin + BATCH, count))
            for number in numbers:
                pick = random.Random(f"{seed} {number}")
                found.answered(_ask(peer.port, pick, messages.request(pick) + LAST))
            if peer.dead():
                peer.start(answers)
            now = set(peer.workers())
            found.crashed += len(before - now)
            before = now
            _read(node, nginx, found)
        _account(peer, found)
    kinds = [f"{count} times {what}" for what, count in found.kinds.items()]
    return found.row(count), [*kinds, *found.examples]


class _Node(Recorder):
    """Refuses what it cannot read, as any node does: that is no error of the run."""

    def __init__(self) -> None:
        super().__init__()
        self.host = "127.0.0.1"

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        self.errors.clear()
        super().__exit__(kind, error, trace)


def _ask(port: int, pick: random.Random, data: bytes) -> bytes:
    """All that comes back for these bytes, sent in one or more pieces."""
    with Client(("127.0.0.1", port)) as client:
        with contextlib.suppress(OSError):
            for piece in pieces(pick, data):
                client.sock.sendall(piece)
            client.sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(OSError):
            client.reader.rest()
        return bytes(client.reader.received)


# --- what came out ---


def _read(node: _Node, nginx: Any, found: Findings) -> None:
    """The messages of a batch, by every reader."""
    for connection in node.connections:
        for message in connection.requests:
            found.at_node[message.method, origin_form(message.target)] += 1
        connection.requests.clear()
    found.refused_by["the node"] += len(node.errors)
    units = [(message, data) for message, data in node.units if message.target != b"/last"]
    found.forwarded += len(units) + len(node.errors) + len(node.broken)
    node.units, node.broken = [], []
    node.errors.clear()
    node.connections = [one for one in node.connections if one.end is None]
    told = nginx.requests([data + TAIL for _, data in units])
    for (message, data), by_nginx in zip(units, told, strict=True):
        _judge(message, data, by_nginx, found)


def _judge(message: Message, data: bytes, by_nginx: list[Any], found: Findings) -> None:
    wanted = expected(message)
    host = dict(wanted[1]).get(b"host", b"")
    seen = {
        "h11": (readers.h11_requests(data + TAIL), wanted, TAIL_READ),
        "llhttp": (readers.llhttp_requests(data + TAIL), wanted, TAIL_READ),
        "nginx": (by_nginx, ((message.method, origin_form(message.target)), host), TAIL_BY_NGINX),
    }
    verdicts = set()
    for who, (reading, first, tail) in seen.items():
        verdict = judged(reading, first, tail)
        verdicts.add(verdict)
        found.refused_by[who] += verdict == "refused"
        if verdict in ("different", "smuggled"):
            found.example(f"{verdict} by {who}", reading, data)
    found.smuggled += "smuggled" in verdicts
    found.differently += "different" in verdicts and "smuggled" not in verdicts


def judged(reading: list[Any], first: Any, tail: Any) -> str:
    """One reader's verdict. It may end the connection behind a message, or refuse what comes then:
    where the message ends is clear to it."""
    if reading == [REFUSED]:
        return "refused"
    if reading[:1] == [first] and reading[1:] in ([tail], [], [REFUSED]):
        return "same"
    return "different" if reading[1:] == [tail] else "smuggled"


def _account(peer: FaultPeer, found: Findings) -> None:
    """More at the node than the proxy knows of: it took a part of a message for a request. (A line
    may come after its answer.)"""
    end = time.monotonic() + SETTLE_S
    while True:
        seen = Counter((method, origin_form(target)) for method, target in peer.seen())
        excess = found.at_node - seen
        if not excess or time.monotonic() > end:
            break
        time.sleep(0.1)
    found.smuggled += sum(excess.values())
    for one, count in excess.items():
        found.example("at the node and not in the log", one, b"%d times" % count)
