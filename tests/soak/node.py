"""A node as a process of its own, so that it can be killed and stopped.

python node.py NAME HOST PORT: it says in each answer who it is; SIGUSR1 makes it reset every
connection that it has. `/slow` takes half a second, `/large` has a body of 1 MB.
"""

import asyncio
import signal
import socket
import struct
import sys
from typing import ClassVar

LARGE = b"x" * 1_000_000


class Connection(asyncio.Protocol):
    open: ClassVar["set[Connection]"] = set()

    def __init__(self, name: bytes) -> None:
        self.name, self.buffer = name, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.open.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.open.discard(self)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end]
            length = 0
            if (at := head.lower().find(b"content-length:")) >= 0:
                length = int(head[at + 15 :].split(b"\r\n")[0])
            if len(self.buffer) < end + 4 + length:
                return
            self.buffer = self.buffer[end + 4 + length :]
            target = head.split(b" ")[1]
            body = LARGE if target == b"/large" else b"ok"
            answer = b"HTTP/1.1 200 OK\r\nX-Node: %b\r\nContent-Length: %d\r\n\r\n%b"
            delay = 0.5 if target == b"/slow" else 0.001
            text = answer % (self.name, len(body), body)
            asyncio.get_running_loop().call_later(delay, self.send, text)

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
