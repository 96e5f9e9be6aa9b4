"""Clients that count what fails: `python -m benchmarks.fault_load PORT SLOTS WEBSOCKETS FILE`.

Each slot sends one request after another, every fifth a POST; three quarters of them over a
connection that is kept, the others over a new one each time. It runs until its standard input is
closed, then prints what happened as JSON. A line `mark NAME` on standard input begins another
part of the count.

A connection that is closed before a byte of the next request was sent is no failure: it was
idle, and is opened again. All else is: a connection that is refused or does not come, one that
ends or is reset after a byte of the request was sent and before the whole answer (`reset`, and
`reset-kept` where it was a kept one without a byte of an answer), an answer of 5xx, a time-out.
WebSockets send something every 50 ms and have it echoed; one that ends is lost.

FILE says at any moment which slots wait for an answer: for each the local port of its connection.
"""

from __future__ import annotations

import asyncio
import json
import mmap
import struct
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

REQUEST = {
    "GET": b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n",
    "POST": b"POST / HTTP/1.1\r\nHost: bench\r\nContent-Length: 10\r\n\r\n0123456789",
}
CLOSING = b"Host: bench\r\nConnection: close\r\n"
WEBSOCKET = (
    b"GET /ws HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
TIMEOUT_S = 10.0
PAUSE_S = 0.02  # of a slot between two requests
RETRY_S = 0.01  # after a failure
ECHO_S = 0.05


class Waiting:
    """Ports of the connections on which an answer is awaited, for another process to read."""

    def __init__(self, path: Path, slots: int = 0) -> None:
        """`slots`: the file is made anew, for as many."""
        if slots:
            path.write_bytes(bytes(8 * slots))
        with path.open("r+b") as file:
            self.memory = mmap.mmap(file.fileno(), 0)

    def set(self, slot: int, port: int) -> None:
        """0: it does not wait any more."""
        struct.pack_into("<q", self.memory, 8 * slot, port)

    def ports(self) -> set[int]:
        return {port for (port,) in struct.iter_unpack("<q", self.memory[:]) if port}


class Counts:
    def __init__(self) -> None:
        self.parts: dict[str, dict[str, Any]] = {}
        self.begin("begin")

    def begin(self, name: str) -> None:
        self.part: dict[str, Any] = {
            "requests": Counter(), "failed": Counter(), "ms": [], "longest_gap_ms": 0.0,
        }  # fmt: skip
        self.parts[name] = self.part
        self.last_good = time.monotonic()

    def done(self, method: str, seconds: float) -> None:
        now = time.monotonic()
        gap = 1000 * (now - self.last_good)
        self.part["longest_gap_ms"] = max(self.part["longest_gap_ms"], gap)
        self.last_good = now
        self.part["requests"][method] += 1
        self.part["ms"].append(1000 * seconds)

    def failed(self, method: str, how: str) -> None:
        self.part["requests"][method] += 1
        self.part["failed"][f"{method} {how}"] += 1

    def summary(self) -> dict[str, Any]:
        found = {}
        for name, part in self.parts.items():
            times = sorted(part.pop("ms"))
            at = {"p50": 0.5, "p99": 0.99}
            part["ms"] = {
                key: round(times[int(share * len(times))], 2) if times else None
                for key, share in at.items()
            }
            found[name] = part
        return found


class Failed(Exception):
    pass


async def answer(reader: asyncio.StreamReader) -> tuple[int, bool]:
    """Status, and whether the connection stays. Raises EOFError or OSError."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = int(head[9:12])
    length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
    await reader.readexactly(length)
    return status, b"connection: close" not in head


async def one(
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], data: bytes, kept: bool
) -> bool:
    """One request and its answer; whether the connection stays. Raises Failed."""
    reader, writer = streams
    try:
        writer.write(data)
        status, stays = await asyncio.wait_for(answer(reader), TIMEOUT_S)
    except TimeoutError:
        raise Failed("time-out") from None
    except asyncio.IncompleteReadError as error:
        raise Failed("reset-kept" if kept and not error.partial else "reset") from None
    except OSError:
        raise Failed("reset-kept" if kept else "reset") from None
    if status >= 500:
        raise Failed(str(status))
    return stays


async def connected(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        return await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port), TIMEOUT_S)
    except TimeoutError:
        raise Failed("connect-time-out") from None
    except OSError as error:
        raise Failed(f"connect: {error.strerror}") from None


async def slot(
    number: int, port: int, counts: Counts, waiting: Waiting, ended: asyncio.Event
) -> None:
    keeps = bool(number % 4)
    streams = None
    turn = number
    while not ended.is_set():
        turn += 1
        method = "GET" if turn % 5 else "POST"
        data = REQUEST[method] if keeps else REQUEST[method].replace(b"Host: bench\r\n", CLOSING)
        if streams is not None and (streams[0].at_eof() or streams[1].is_closing()):
            streams[1].close()  # while it was idle
            streams = None
        kept, begun, good = streams is not None, time.monotonic(), True
        try:
            streams = streams or await connected(port)
            waiting.set(number, streams[1].get_extra_info("sockname")[1])
            stays = await one(streams, data, kept)
            counts.done(method, time.monotonic() - begun)
        except Failed as failure:
            counts.failed(method, str(failure))
            good = stays = False
        waiting.set(number, 0)
        if streams is not None and not (stays and keeps):
            streams[1].close()
            streams = None
        await asyncio.sleep(PAUSE_S if good else PAUSE_S + RETRY_S)
    if streams is not None:
        streams[1].close()


async def websocket(port: int, lost: list[str], opened: list[int], ended: asyncio.Event) -> None:
    try:
        reader, writer = await connected(port)
        writer.write(WEBSOCKET)
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 101 " not in head:
            raise Failed(head[:12].decode())
        opened.append(1)
        while not ended.is_set():
            writer.write(b"still here")
            await asyncio.wait_for(reader.readexactly(10), TIMEOUT_S)
            await asyncio.sleep(ECHO_S)
        writer.close()
    except (Failed, OSError, EOFError, TimeoutError) as error:
        lost.append(f"{type(error).__name__} {error}")


async def main(port: int, slots: int, websockets: int, file: Path) -> None:
    counts, waiting, ended = Counts(), Waiting(file, slots), asyncio.Event()
    lost: list[str] = []
    opened: list[int] = []
    tunnels = [asyncio.create_task(websocket(port, lost, opened, ended)) for _ in range(websockets)]
    while len(opened) + len(lost) < websockets:
        await asyncio.sleep(0.01)
    if lost:
        raise SystemExit(f"no WebSocket: {lost[0]}")
    work = [
        asyncio.create_task(slot(number, port, counts, waiting, ended)) for number in range(slots)
    ]
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(commands), sys.stdin
    )
    print("ready", flush=True)
    while line := await commands.readline():
        counts.begin(line.decode().removeprefix("mark ").strip())
        print("marked", flush=True)
    ended.set()
    await asyncio.wait([*work, *tunnels], timeout=TIMEOUT_S + 2)
    whole = {"parts": counts.summary(), "websockets": websockets, "lost": lost}
    print(json.dumps(whole), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:4]), Path(sys.argv[4])))
