"""TLS that ends in the proxy: its configuration, and a client that takes TLS and socket apart."""

import socket
import ssl
from contextlib import suppress
from typing import Any

from .certificates import Pair
from .settings import settings
from .tls_client import client_context
from .wait import TIMEOUT
from .wire import Truncated


def https(pairs: dict[str, Pair], *nodes: Any, **more: Any) -> dict[str, Any]:
    tls = {"certificates": [one.table() for one in pairs.values()], **more.pop("tls", {})}
    server = {"protocol": "https", "tls": tls, **more.pop("server", {})}
    return settings(*nodes, server=server, **more)


class Bare:
    """A client whose TLS and whose socket can be moved apart from each other."""

    def __init__(self, address: tuple[str, int], version: str = "1.3"):
        self.sock = socket.create_connection(address, TIMEOUT)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = client_context(version).wrap_bio(self.incoming, self.outgoing)

    def __enter__(self) -> "Bare":
        return self

    def __exit__(self, *exc: object) -> None:
        self.sock.close()

    def flight(self) -> bytes:
        """The handshake's next bytes; empty: it is done."""
        with suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self.outgoing.read()

    def handshake(self) -> None:
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.flush()
                self.fill()
        self.flush()

    def flush(self) -> None:
        self.sock.sendall(self.outgoing.read())

    def fill(self) -> bool:
        data = self.sock.recv(65536)
        self.incoming.write(data)
        return bool(data)

    def sendall(self, data: bytes) -> None:
        self.tls.write(data)
        self.flush()

    def recv(self, count: int) -> bytes:
        """As a socket; b"" for close_notify, Truncated for the end without it."""
        while True:
            try:
                return self.tls.read(count)
            except ssl.SSLWantReadError:
                if not self.fill():
                    raise Truncated(b"") from None
            except ssl.SSLZeroReturnError:
                return b""

    def close_notify(self) -> None:
        with suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        self.flush()
