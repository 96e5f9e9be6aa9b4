"""Users who have sessions, and who notice when a request of theirs reaches another node; and
clients who are none."""

import asyncio
import contextlib
import random
import socket
import ssl
import struct
import time
from collections.abc import Callable

from .configuration import HOST, KINDS, Kind
from .world import HURT_GRACE_S, World

TIMEOUT_S = 20.0
LATE_S = 1.0  # after which a connection that says nothing is near its end (client_header)
ECHO_S = 0.2  # between two words over a WebSocket, at most
HOLD_S = 8.0  # for which one is held, in the mean
HOLD_MAX_S = 40.0
UPGRADE = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
UPGRADE += ["Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg=="]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Ended(Exception):
    """A request without an answer, and how that came."""


class User:
    """One user: known by a cookie, by a field, or by the address."""

    def __init__(
        self,
        kind: Kind,
        number: int,
        port: int,
        world: World,
        seed: int,
        context: ssl.SSLContext | None = None,
    ):
        self.kind, self.name, self.port, self.world = kind, f"{kind.name}-{number}", port, world
        self.source = f"127.1.{1 + list(KINDS).index(kind.name)}.{number + 1}"
        self.random = random.Random(seed)
        self.context = context if kind.protocol == "https" else None
        self.cookies: dict[str, str] = {}
        self.home: str | None = None
        self.last = time.monotonic()  # when the last good answer was asked for
        self.opened = 0.0
        self.asks = self.loses = False
        self.streams: Streams | None = None

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
        self.loses = not self.kind.has_maps

    async def ask(self) -> None:
        self.asks = True
        try:
            if self.loses:
                self.cookies.clear()
                self.home, self.loses = None, False  # to fastlb it is a new user
            await self._ask()
        finally:
            self.asks = False

    async def _ask(self) -> None:
        method = "POST" if self.random.random() < 0.2 else "GET"
        target = self.random.choices(["/", "/slow", "/large"], [20, 1, 1])[0]
        fresh = self.streams is None or self.streams[0].at_eof() or self.random.random() < 0.2
        if await self._answered(method, target, fresh) and self.kind.protocol != "tcp":
            self.world.logged += 1

    async def _answered(self, method: str, target: str, fresh: bool) -> bool:
        """Whether there was a good answer; a bad one has had a cause, or is wrong."""
        begun = time.monotonic()
        self.world.requests += 1
        try:
            exchange = self._exchange(method, target, fresh)
            status, node = await asyncio.wait_for(exchange, TIMEOUT_S)
        except TimeoutError:
            await self.leave()
            self.world.wrong(f"{self.name}: {method} {target} had no answer at all")
            return False
        except Ended as error:
            await self.leave()
            refused = isinstance(error.__cause__, ConnectionRefusedError)
            self._failed(
                f"{method} {error}", not refused and self._ended_rightly(str(error), begun)
            )
            return False
        if status >= 400:
            self._failed(f"{method} {status}", self.world.any_hurt(begun - HURT_GRACE_S))
            return False
        self._reached(node, begun)
        return True

    def _ended_rightly(self, how: str, begun: float) -> bool:
        """Of a relayed connection the node's end, too, is the client's, and an answer that a node
        has broken off must not look whole. That one is refused has no explanation: the listening
        sockets are there all the time."""
        world = self.world
        hurt = world.any_hurt(begun - HURT_GRACE_S)
        if self.kind.protocol == "tcp" and (hurt or world.had_to_leave(self.opened)):
            return True
        return (how == "cut" and hurt) or world.worker_killed(begun)

    def _failed(self, how: str, has_cause: bool) -> None:
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

    async def _exchange(self, method: str, target: str, fresh: bool) -> tuple[int, str]:
        if fresh:
            await self.leave()
            self.streams = await self._connected()
            while time.monotonic() - self.opened > LATE_S:  # the machine has much to do
                await self.leave()
                self.streams = await self._connected()
        assert self.streams is not None
        reader, writer = self.streams
        lines = [f"{method} {target} HTTP/1.1", f"Host: {HOST}", f"User-Agent: {self.name}"]
        lines += [f"X-User: {self.name}", *(UPGRADE if target == "/socket" else [])]
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

    async def _connected(self) -> Streams:
        self.opened = time.monotonic()
        try:
            return await asyncio.open_connection(
                "127.0.0.1", self.port, local_addr=(self.source, 0),
                ssl=self.context, server_hostname=HOST if self.context else None,
            )  # fmt: skip
        except OSError as error:
            raise Ended(f"connect: {type(error).__name__}") from error

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


class Holder(User):
    """A user who holds a WebSocket for a while, through whatever happens, and opens another one: at
    the same node, of course."""

    async def _ask(self) -> None:
        if await self._answered("GET", "/socket", True):
            for_s = min(self.random.expovariate(1 / HOLD_S), HOLD_MAX_S)
            await self._hold(time.monotonic() + for_s)
            await self.leave()
            self.world.sockets += 1

    async def _hold(self, end: float) -> None:
        assert self.home is not None
        assert self.streams is not None
        reader, writer = self.streams
        number = 0
        while True:
            number += 1
            begun, word = time.monotonic(), f"{self.name} says {number};".encode()
            try:
                writer.write(word)
                back = await asyncio.wait_for(reader.readexactly(len(word)), TIMEOUT_S)
            except TimeoutError:
                self.world.wrong(f"{self.name}: no echo from {self.home} in {TIMEOUT_S:g} s")
                return
            except (OSError, EOFError):
                explained = self.world.explains_loss(self.home, self.opened, self.last)
                self._failed("WebSocket lost", explained)
                return
            if back != word:
                self.world.wrong(f"{self.name}: {back!r} came back for {word!r}")
                return
            self.last = begun
            if begun >= end or self.world.paused.is_set():
                return
            await asyncio.sleep(self.random.uniform(0.0, ECHO_S))


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
