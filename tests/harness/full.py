"""A node that counts: how many connections are open to it at one time, as the kernel says, and how
many requests it has at one time. Each request is held until the test lets it go, or for a moment.
"""

import socket
import threading
import time
from collections import deque
from pathlib import Path

from .node import Exchange, RawNode
from .wire import reply

ESTABLISHED = "01"  # in /proc/net/tcp (proc(5))


class CountingNode(RawNode):
    """`held`: requests wait for `let`; otherwise each takes `seconds`."""

    def __init__(self, name: str = "full", held: bool = False, seconds: float = 0.0):
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

    def let_all(self) -> None:
        with self._gate:
            self._let = None
            self._gate.notify_all()

    def stop(self) -> None:
        self.let_all()
        super().stop()

    def open_now(self) -> int:
        """Those too that nobody has accepted yet; not those that the other side has closed."""
        ip, port = socket.inet_aton(self.host)[::-1].hex().upper(), f"{self.port:04X}"
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
        return sum(row[1] == f"{ip}:{port}" and row[3] == ESTABLISHED for row in rows)

    def _answer(self, exchange: Exchange) -> None:
        exchange.read_body()
        with self._gate:
            self._now += 1
            self.most_requests = max(self.most_requests, self._now)
            self.most_open = max(self.most_open, self.open_now())
            self.order.append(exchange.request.target.decode())
            if self._let is not None:
                self._gate.wait_for(lambda: self._let is None or self._let, 30)
                if self._let:
                    self._let.popleft()
        if self.seconds:
            time.sleep(self.seconds)
        with self._gate:
            self._now -= 1
        exchange.send(reply(200, self.name.encode()))
