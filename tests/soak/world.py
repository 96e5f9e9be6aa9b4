"""What is known of the faults, and what was seen: who failed, and whether a fault explains it."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field

from .configuration import DRAIN_S

HURT_GRACE_S = 3.0  # for which a node may count as down after it is well again
WORKER_GRACE_S = 1.0  # after a worker was killed


@dataclass
class World:
    hurt_since: dict[str, float] = field(default_factory=dict)  # nodes that are
    well_since: dict[str, float] = field(default_factory=dict)  # nodes that were
    cut: dict[str, float] = field(default_factory=dict)  # when a node's connections were ended
    left: list[tuple[float, float]] = field(default_factory=list)  # workers were told to leave
    proxy_hurt: float = -1e9  # a worker was killed
    requests: int = 0
    logged: int = 0  # answered, and a line of the access log each
    sockets: int = 0  # WebSockets that were held, to their end
    moves: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)
    events: list[str] = field(default_factory=list)  # faults, and what is wrong, in their order
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    paused: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, what: str) -> None:
        self.events.append(f"{time.monotonic() - self.begun:8.2f} {what}")

    def wrong(self, what: str) -> None:
        self.violations.append(what)
        self.note(f"WRONG {what}")

    # --- what a fault says of itself ---

    def hurt(self, node: str) -> None:
        self.hurt_since.setdefault(node, time.monotonic())

    def well(self, node: str) -> None:
        if self.hurt_since.pop(node, None) is not None:
            self.well_since[node] = time.monotonic()

    def ends_connections(self, node: str) -> None:
        self.cut[node] = time.monotonic()

    def checks_again(self, away_since: float) -> None:
        """Nobody has checked the nodes since: what one was found to be, it has counted as."""
        for node, well in self.well_since.items():
            if well + HURT_GRACE_S >= away_since:
                self.well_since[node] = time.monotonic()

    # --- what a user asks ---

    def was_hurt(self, node: str, since: float) -> bool:
        well = self.well_since.get(node, -1e9)
        return node in self.hurt_since or well + HURT_GRACE_S >= since

    def any_hurt(self, since: float) -> bool:
        return any(self.was_hurt(node, since) for node in {*self.hurt_since, *self.well_since})

    def worker_killed(self, since: float) -> bool:
        return self.proxy_hurt + WORKER_GRACE_S >= since

    def had_to_leave(self, opened: float) -> bool:
        """Whether a connection of that time may be one of a worker whose drain time is over."""
        now = time.monotonic()
        return any(opened <= end and now >= begin + DRAIN_S for begin, end in self.left)

    def explains_loss(self, node: str, opened: float, since: float) -> bool:
        """Of a connection through the proxy that lasts, and worked at `since`."""
        cut = self.cut.get(node, -1e9) >= since
        return cut or self.worker_killed(since) or self.had_to_leave(opened)
