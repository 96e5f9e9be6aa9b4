"""Users who have sessions, and who notice when a request of theirs reaches another node."""

import asyncio
import contextlib
import random
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

TIMEOUT_S = 20.0
HURT_GRACE_S = 3.0  # for which a node may count as down after it is well again


@dataclass
class World:
    """What is known of the faults, and what was seen."""

    hurt_since: dict[str, float] = field(default_factory=dict)  # nodes that are
    well_since: dict[str, float] = field(default_factory=dict)  # nodes that were
    proxy_hurt: float = -1e9  # a worker was killed, or the control process
    requests: int = 0
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

    def hurt(self, node: str) -> None:
        self.hurt_since.setdefault(node, time.monotonic())

    def well(self, node: str) -> None:
        if self.hurt_since.pop(node, None) is not None:
            self.well_since[node] = time.monotonic()

    def was_hurt(self, node: str, since: float) -> bool:
        well = self.well_since.get(node, -1e9)
        return node in self.hurt_since or well + HURT_GRACE_S >= since

    def any_hurt(self, since: float) -> bool:
        return any(self.was_hurt(node, since) for node in {*self.hurt_since, *self.well_since})


class Ended(Exception):
    """A request without an answer, and how that came."""


class User:
    """One user: of a cookie class, or known by a field, or by the address."""

    def __init__(self, kind: str, number: int, port: int, world: World, seed: int) -> None:
        self.kind, self.name, self.port, self.world = kind, f"{kind}-{number}", port, world
        self.source = f"127.1.{ {'cookie': 1, 'key': 2, 'ip': 3}[kind] }.{number + 1}"
        self.random = random.Random(seed)
        self.cookies: dict[str, str] = {}
        self.home: str | None = None
        self.last = time.monotonic()  # when the last good answer was asked for
        self.asks = self.loses = False
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def live(self) -> None:
        while not self.world.ended.is_set():
            if self.world.paused.is_set():
                await asyncio.sleep(0.05)
                continue
            await self.ask()
            await asyncio.sleep(self.random.uniform(0.0, 0.05))
        await self.leave()

    async def leave(self) -> None:
        if self.streams is not None:
            self.streams[1].close()
            self.streams = None

    def lose_cookies(self) -> None:
        """Before the next request."""
        self.loses = self.kind == "cookie"

    async def ask(self) -> None:
        self.asks = True
        try:
            await self._ask()
        finally:
            self.asks = False

    async def _ask(self) -> None:
        if self.loses:
            self.cookies.clear()
            self.home, self.loses = None, False  # to fastlb it is a new user
        method = "POST" if self.random.random() < 0.2 else "GET"
        target = self.random.choices(["/", "/slow", "/large"], [20, 1, 1])[0]
        begun = time.monotonic()
        self.world.requests += 1
        try:
            status, node = await asyncio.wait_for(self._exchange(method, target), TIMEOUT_S)
        except TimeoutError:
            await self.leave()
            self.world.wrong(f"{self.name}: {method} {target} had no answer at all")
            return
        except Ended as error:
            await self.leave()
            self._failed(f"{method} {error}", begun, self.world.proxy_hurt + 1 >= begun)
            return
        if status >= 400:
            fault = self.world.any_hurt(begun - HURT_GRACE_S)
            self._failed(f"{method} {status}", begun, fault)
            return
        self._reached(node, begun)

    def _failed(self, how: str, begun: float, has_cause: bool) -> None:
        self.world.errors[how] += 1
        if not has_cause:
            self.world.wrong(f"{self.name}: {how} though nothing was wrong")

    def _reached(self, node: str, begun: float) -> None:
        if self.home is not None and node != self.home:
            if self.world.was_hurt(self.home, self.last):
                self.world.moves["node lost"] += 1
            else:
                self.world.wrong(f"{self.name}: {node}, not {self.home}")
        self.home, self.last = node, begun

    async def _exchange(self, method: str, target: str) -> tuple[int, str]:
        fresh = self.streams is None or self.streams[0].at_eof()
        if fresh or self.random.random() < 0.2:
            await self.leave()
            try:
                self.streams = await asyncio.open_connection(
                    "127.0.0.1", self.port, local_addr=(self.source, 0)
                )
            except OSError as error:
                raise Ended(f"connect: {error.strerror}") from None
        assert self.streams is not None
        reader, writer = self.streams
        lines = [f"{method} {target} HTTP/1.1", "Host: shop", f"User-Agent: {self.name}"]
        if self.kind == "key":
            lines.append(f"X-User: {self.name}")
        if self.cookies:
            lines.append("Cookie: " + "; ".join(f"{k}={v}" for k, v in self.cookies.items()))
        body = b"x" * 2000 if method == "POST" else b""
        lines += [f"Content-Length: {len(body)}", "", ""] if body else ["", ""]
        try:
            writer.write("\r\n".join(lines).encode() + body)
            return await self._answer(reader)
        except asyncio.IncompleteReadError as error:
            raise Ended("cut" if error.partial else "closed") from None
        except OSError:
            raise Ended("reset") from None

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[int, str]:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status, node, length, closing = int(head[9:12]), "", 0, False
        for line in head.split("\r\n")[1:]:
            name, _, value = line.partition(": ")
            match name.lower():
                case "content-length":
                    length = int(value)
                case "x-node":
                    node = value
                case "set-cookie":
                    key, _, rest = value.partition("=")
                    self.cookies[key] = rest.split(";")[0]
                case "connection" if value.lower() == "close":
                    closing = True
        await reader.readexactly(length)
        if closing:
            await self.leave()
        return status, node


async def slow_client(port: int, seconds: float) -> None:
    """Sends a head that never ends, and goes."""
    with contextlib.suppress(OSError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: shop\r\nX: ")
        for _ in range(int(seconds / 0.1)):
            if writer.is_closing() or reader.at_eof():
                break
            writer.write(b"x")
            await asyncio.sleep(0.1)
        writer.close()


def reset_storm(port: int, count: int, pick: Callable[[list[bytes]], bytes]) -> None:
    """Connections that are reset at once, with a part of a request or a whole one on its way."""
    for _ in range(count):
        with contextlib.suppress(OSError), socket.socket() as one:
            one.settimeout(0.2)
            one.connect(("127.0.0.1", port))
            one.sendall(pick([b"G", b"GET /large HTTP/1.1\r\nHost: shop\r\n\r\n", b"\r\n" * 3]))
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
