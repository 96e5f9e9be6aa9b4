"""A node as a process of its own, so that it can be killed and stopped.

python node.py NAME HOST PORT: it says in each answer who it is; SIGUSR1 makes it reset every
connection that it has. `/slow` takes half a second, `/large` has a body of 1 MB. An upgrade to
WebSocket is a tunnel that sends back what it gets.
"""

import asyncio
import base64
import hashlib
import signal
import socket
import struct
import sys
from typing import ClassVar

LARGE = b"x" * 1_000_000
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
ANSWER = b"HTTP/1.1 200 OK\r\nX-Node: %b\r\nContent-Length: %d\r\n\r\n%b"
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nX-Node: %b\r\nConnection: upgrade\r\n"
    b"Upgrade: websocket\r\nSec-WebSocket-Accept: %b\r\n\r\n"
)


def field(head: bytes, name: bytes) -> bytes:
    """The value of a field; none: empty."""
    at = head.lower().find(b"\r\n" + name + b":")
    return head[at + len(name) + 3 :].split(b"\r\n")[0].strip() if at >= 0 else b""


class Connection(asyncio.Protocol):
    open: ClassVar["set[Connection]"] = set()

    def __init__(self, name: bytes) -> None:
        self.name, self.buffer = name, b""
        self.tunnel = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.open.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.open.discard(self)

    def data_received(self, data: bytes) -> None:
        if self.tunnel:
            self.transport.write(data)
            return
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end]
            length = int(field(head, b"content-length") or 0)
            if len(self.buffer) < end + 4 + length:
                return
            self.buffer = self.buffer[end + 4 + length :]
            if head.count(b" ") < 2:  # through a relay comes whatever clients send
                self.transport.close()
                return
            if field(head, b"upgrade"):
                self.switch(field(head, b"sec-websocket-key"))
                return
            self.answer(head.split(b" ")[1])

    def answer(self, target: bytes) -> None:
        body = LARGE if target == b"/large" else b"ok"
        text = ANSWER % (self.name, len(body), body)
        delay = 0.5 if target == b"/slow" else 0.001
        asyncio.get_running_loop().call_later(delay, self.send, text)

    def switch(self, key: bytes) -> None:
        self.tunnel = True
        self.send(SWITCH % (self.name, base64.b64encode(hashlib.sha1(key + GUID).digest())))

    def send(self, text: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(text)

    @classmethod
    def reset_all(cls) -> None:
        for one in list(cls.open):
            sock = one.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            one.transport.abort()


async def serve(name: str, host: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, Connection.reset_all)
    server = await loop.create_server(
        lambda: Connection(name.encode()), host, port, backlog=1024, reuse_address=True
    )
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2], int(sys.argv[3])))
