"""A node for the fault benchmarks: `python -m benchmarks.fault_node PORT DELAY_MS FILE`.

It answers after a delay, so that requests are in flight when it is killed; how many of each kind
it has begun and not answered stands in FILE, which outlives it: two 8-byte numbers, GETs and
others. An upgrade to WebSocket is a tunnel that sends back what it gets.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import mmap
import struct
import sys
from pathlib import Path

BODY = b"x" * 1000
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: %b\r\n\r\n"
)
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
KEY = b"sec-websocket-key: "
KINDS = ("GET", "POST")


class InFlight:
    """Counts that can be read when their process is dead."""

    def __init__(self, path: Path, create: bool) -> None:
        if create:
            path.write_bytes(bytes(16))
        with path.open("r+b") as file:
            self.memory = mmap.mmap(file.fileno(), 16)

    def add(self, kind: int, by: int) -> None:
        (now,) = struct.unpack_from("<q", self.memory, 8 * kind)
        struct.pack_into("<q", self.memory, 8 * kind, now + by)

    def read(self) -> dict[str, int]:
        return dict(zip(KINDS, struct.unpack("<qq", self.memory[:]), strict=True))


class Connection(asyncio.Protocol):
    def __init__(self, in_flight: InFlight, delay_s: float) -> None:
        self.in_flight, self.delay_s = in_flight, delay_s
        self.buffer = b""
        self.tunnel = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.tunnel:
            self.transport.write(data)
            return
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            whole = self.buffer[:end]
            head = whole.lower()
            length = 0
            if (at := head.find(b"content-length:")) >= 0:
                length = int(head[at + 15 :].split(b"\r\n")[0])
            if len(self.buffer) < end + 4 + length:
                return
            self.buffer = self.buffer[end + 4 + length :]
            self._answer(head, whole)

    def _answer(self, head: bytes, whole: bytes) -> None:
        if b"upgrade: websocket" in head:
            self.tunnel = True
            at = head.index(KEY) + len(KEY)
            accept = hashlib.sha1(whole[at : at + 24] + GUID).digest()
            self.transport.write(SWITCH % base64.b64encode(accept))
            return
        kind = int(not head.startswith(b"get "))
        self.in_flight.add(kind, 1)
        asyncio.get_running_loop().call_later(self.delay_s, self._send, kind)

    def _send(self, kind: int) -> None:
        self.in_flight.add(kind, -1)
        if not self.transport.is_closing():
            self.transport.write(ANSWER)


async def serve(port: int, delay_s: float, file: Path) -> None:
    in_flight = InFlight(file, create=True)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Connection(in_flight, delay_s), "127.0.0.1", port, backlog=1024, reuse_address=True
    )
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2]) / 1000, Path(sys.argv[3])))
