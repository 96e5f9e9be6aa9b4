"""A node that counts: how many connections are open to it at one time, as the kernel says, and how
many requests it has at one time. Each request is held until the test lets it go, or for a moment.
"""

import json
import socket
import threading
import time
from collections import deque

from .node import Connection, Exchange, RawNode
from .wait import until
from .wire import reply

ESTABLISHED = 1  # tcp(7), TCP_INFO: its peer has not closed it


def is_open(connection: Connection) -> bool:
    try:
        info = connection.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    except OSError:
        return False  # closed on this side
    return info[0] == ESTABLISHED


class CountingNode(RawNode):
    """`held`: requests wait for `let`; otherwise each takes `seconds`."""

    def __init__(self, name: str = "full", held: bool = False, seconds: float = 0.005):
        super().__init__(self._answer, name)
        self.seconds = seconds
        self.most_open = 0
        self.most_requests = 0
        self.order: list[str] = []  # targets, as they came
        self._now = 0
        self._gate = threading.Condition()
        self._let: deque[None] | None = deque() if held else None

    def let(self, count: int = 1) -> None:
        """So many of the held requests are answered."""
        with self._gate:
            assert self._let is not None
            self._let.extend([None] * count)
            self._gate.notify_all()

    def wait(self, count: int) -> None:
        """So many requests have come, whole."""
        until(lambda: len(self.order) >= count, f"{count} requests at node {self.name}")

    def hold(self) -> None:
        """From now on requests wait for `let`."""
        with self._gate:
            self._let = deque()

    def let_all(self) -> None:
        with self._gate:
            self._let = None
            self._gate.notify_all()

    def stop(self) -> None:
        self.let_all()
        super().stop()

    def open_now(self, seconds: float = 0.0) -> int:
        """Connections that are open now, and that nobody has closed `seconds` later: so long may it
        take until the kernel on this side has seen an end."""
        before = list(self.connections)
        time.sleep(seconds)
        return sum(map(is_open, before))

    def _answer(self, exchange: Exchange) -> None:
        exchange.read_body()
        with self._gate:
            self._now += 1
            self.most_requests = max(self.most_requests, self._now)
            self.order.append(exchange.request.target.decode())
            if self._let is not None:
                self._gate.wait_for(lambda: self._let is None or self._let, 30)
                if self._let:
                    self._let.popleft()
        count = self.open_now(self.seconds)
        with self._gate:
            self.most_open = max(self.most_open, count)
            self._now -= 1
        exchange.send(reply(200, json.dumps({"node": self.name}).encode()))
