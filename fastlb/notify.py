"""What systemd is told: sd_notify(3), a datagram to the socket that NOTIFY_SOCKET names.

Without that variable nothing is sent. While the control process is alive and at least one worker
answers, the watchdog of the unit (WatchdogSec=) hears of it.
"""

import asyncio
import os
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastlb.workers import Workers

SOCKET, WATCHDOG, WATCHDOG_PID = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"


class Notify:
    """The service manager, if there is one that listens."""

    def __init__(self, environment: dict[str, str] | None = None) -> None:
        found = dict(os.environ) if environment is None else environment
        self.address = _address(found.get(SOCKET, ""))
        self.watchdog_s = _watchdog(found) if self.address else None

    def ready(self, status: str) -> None:
        self._send("READY=1", f"STATUS={status}")

    def reloading(self, status: str) -> None:
        """`ready` follows, whether it succeeds or not."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={now}", f"STATUS={status}")

    def stopping(self, status: str) -> None:
        self._send("STOPPING=1", f"STATUS={status}")

    def alive(self) -> None:
        """To be said at least every `watchdog_s`."""
        self._send("WATCHDOG=1")

    async def report_life(self, workers: "Workers", stopping: asyncio.Event) -> None:
        """As long as this loop turns and a worker answers; while stopping, the former is enough."""
        while self.watchdog_s is not None:
            asked = time.monotonic()
            workers.ping()
            await asyncio.sleep(self.watchdog_s / 3)
            if workers.heard_since(asked) or stopping.is_set():
                self.alive()

    def _send(self, *lines: str) -> None:
        if self.address is None:
            return
        text = "\n".join(line.replace("\n", " ") for line in lines)
        with (
            suppress(OSError),  # nobody listens any more; no reason to stop serving
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as one,
        ):
            one.setblocking(False)
            one.sendto(text.encode(), self.address)


def _address(path: str) -> str | None:
    """A path, or a name in the abstract namespace, which is written with an `@`."""
    if path.startswith("@"):
        return "\0" + path[1:]
    return path if path.startswith("/") else None


def _watchdog(environment: dict[str, str]) -> float | None:
    """Seconds after which this process counts as dead; None: nobody watches it."""
    pid, microseconds = environment.get(WATCHDOG_PID, ""), environment.get(WATCHDOG, "")
    if pid not in ("", str(os.getpid())) or not microseconds.isdecimal():
        return None
    return int(microseconds) / 1_000_000 or None
