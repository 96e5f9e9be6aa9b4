"""Both ends of a plain TCP connection, driven by the test step by step.

with TcpNode() as node, proxy(settings(node.address, server={"protocol": "tcp"})) as p:
    client = Peer.connect(p.address())
    there = node.accept()
"""

import array
import contextlib
import fcntl
import ipaddress
import select
import socket
import struct
import termios
from collections.abc import Iterator
from typing import Any

from .node import next_host
from .wait import TIMEOUT


class Peer:
    """One end of a connection; what it reads is exact, and how it ended is a word."""

    def __init__(self, sock: socket.socket):
        self.sock = sock
        sock.settimeout(TIMEOUT)

    @classmethod
    def connect(cls, address: Any, source: str | None = None) -> "Peer":
        return cls(socket.create_connection(address, TIMEOUT, (source, 0) if source else None))

    @classmethod
    def turned_away(cls, address: Any, source: str | None = None, first: bytes = b"") -> str:
        """How a connection ends that the other side ends at once, maybe before all is said."""
        try:
            peer = cls.connect(address, source)
        except ConnectionResetError:
            return "reset"
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            peer.send(first)
        return peer.end()

    @property
    def name(self) -> tuple[str, int]:
        return self.sock.getsockname()[:2]

    @property
    def peer(self) -> tuple[str, int]:
        return self.sock.getpeername()[:2]

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self.sock.recv(count - len(data))
            assert piece, f"ended after {data!r}"
            data += piece
        return data

    def unread(self) -> int:
        """Bytes that have arrived and wait to be read."""
        count = array.array("i", [0])
        fcntl.ioctl(self.sock, termios.FIONREAD, count)
        return count[0]

    def rest(self) -> bytes:
        """All to the orderly end; a reset raises ConnectionResetError."""
        data = bytearray()
        while piece := self.sock.recv(1 << 20):
            data += piece
        return bytes(data)

    def end(self) -> str:
        """How the other side ends, whatever it says before: "fin" or "reset". Ours ends too."""
        try:
            self.rest()
        except ConnectionResetError:
            return "reset"
        finally:
            self.close()
        return "fin"

    def flood(self, most: int = 1 << 30) -> int:
        """Send until nothing more is taken for a moment; how much that was."""
        self.sock.settimeout(0.3)
        sent, data = 0, bytes(1 << 16)
        with contextlib.suppress(TimeoutError):
            while sent < most:
                sent += self.sock.send(data)
        self.sock.settimeout(TIMEOUT)
        return sent

    def half_close(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class TcpNode:
    """A listening socket on a loopback address of its own; the test accepts by itself."""

    def __init__(self, host: str | None = None, backlog: int = 512):
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.sock.bind((host or next_host(), 0))
        self.sock.listen(backlog)
        self.sock.settimeout(TIMEOUT)
        self.host, self.port = self.sock.getsockname()
        self.peers: list[Peer] = []

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def accept(self) -> Peer:
        self.peers.append(Peer(self.sock.accept()[0]))
        return self.peers[-1]

    def waiting(self) -> bool:
        """Whether a connection is there that was not accepted yet."""
        self.sock.settimeout(0)
        try:
            self.accept()
        except BlockingIOError:
            return False
        finally:
            self.sock.settimeout(TIMEOUT)
        return True

    def stop(self) -> None:
        """Nothing listens any more: the next connection is refused."""
        self.sock.close()

    def __enter__(self) -> "TcpNode":
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        for peer in self.peers:
            peer.close()


@contextlib.contextmanager
def nodes(count: int) -> Iterator[list[TcpNode]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(TcpNode()) for _ in range(count)]


def served_by(among: list[TcpNode], client: Peer, word: bytes = b"?") -> tuple[TcpNode, Peer]:
    """The node that has the client's connection, and its end there; the client says `word`."""
    client.send(word)
    (ready, *_), _, _ = select.select([one.sock for one in among], [], [], TIMEOUT)
    node = next(one for one in among if one.sock is ready)
    there = node.accept()
    assert there.exactly(len(word)) == word
    return node, there


SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def proxy_v2(data: bytes) -> tuple[tuple[str, int], tuple[str, int], dict[int, bytes], bytes]:
    """Source, destination, TLVs and what follows the header."""
    assert data[:12] == SIGNATURE
    assert data[12:14] == b"\x21\x11"  # version 2, PROXY; TCP over IPv4
    end = 16 + int.from_bytes(data[14:16], "big")
    addresses, tlvs = data[16:28], data[28:end]
    ips = [str(ipaddress.IPv4Address(addresses[i : i + 4])) for i in (0, 4)]
    ports = [int.from_bytes(addresses[i : i + 2], "big") for i in (8, 10)]
    found = {}
    while tlvs:
        size = int.from_bytes(tlvs[1:3], "big")
        found[tlvs[0]] = tlvs[3 : 3 + size]
        tlvs = tlvs[3 + size :]
    return (ips[0], ports[0]), (ips[1], ports[1]), found, data[end:]
