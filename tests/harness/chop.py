"""What happens to bytes on their way: cut into pieces, and TLS handshakes into other records.

    with Chopper(p.address(), pieces=1) as way, TlsClient(way.address) as client: ...

A handshake's hash covers its messages, not the records that carry them (RFC 8446 section 5.1), so
what is still plain text may come in any records without either side noticing.
"""

import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

from .client import Client
from .node import Connection, RawNode, next_host
from .wait import TIMEOUT

HANDSHAKE = 22


def reframed(data: bytes, most: int, pick: random.Random) -> bytes:
    """Whole records, each handshake record of them as several of 1 to `most` bytes."""
    out = bytearray()
    at = 0
    while at < len(data):
        end = at + 5 + int.from_bytes(data[at + 3 : at + 5], "big")
        out += b"".join(_split(data[at:end], most, pick))
        at = end
    return bytes(out)


def _split(record: bytes, most: int, pick: random.Random) -> Iterator[bytes]:
    payload = record[5:]
    if record[0] != HANDSHAKE or not most:
        yield record
        return
    while payload:
        count = pick.randint(1, most)
        part, payload = payload[:count], payload[count:]
        yield record[:3] + len(part).to_bytes(2, "big") + part


class Reframer:
    """Takes a connection's bytes as they come and gives them back in other records, until the
    first record that is no plain handshake."""

    def __init__(self, most: int, pick: random.Random):
        self.most = most
        self.pick = pick
        self.held = b""
        self.over = False

    def feed(self, data: bytes) -> bytes:
        self.held += data
        out = b""
        while not self.over and len(self.held) >= 5:
            end = 5 + int.from_bytes(self.held[3:5], "big")
            if len(self.held) < end:
                return out
            record, self.held = self.held[:end], self.held[end:]
            self.over = record[0] != HANDSHAKE
            out += b"".join(_split(record, self.most, self.pick))
        if self.over:
            out, self.held = out + self.held, b""
        return out


class Chopper:
    """A relay to `target`: its bytes go on in segments of 1 to `pieces` (0: as they come), its
    handshakes in records of 1 to `records` (0: as they are), both ways. A context manager."""

    def __init__(
        self, target: tuple[str, int], pieces: int = 0, records: int = 0, seed: int = 1,
        host: str | None = None,
    ):  # fmt: skip
        self.target = target
        self.pieces = pieces
        self.records = records
        self.pick = random.Random(seed)
        self.host = host or next_host()
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> "Chopper":
        self._listener = socket.create_server((self.host, 0), backlog=512)
        self.port = self._listener.getsockname()[1]
        self._spawn(self._accept)
        return self

    def __exit__(self, *exc: object) -> None:
        for sock in [self._listener, *self._sockets]:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(TIMEOUT)
            assert not thread.is_alive(), "a thread of a Chopper is stuck"
        for sock in [self._listener, *self._sockets]:
            sock.close()

    @property
    def address(self) -> tuple[str, int]:
        return self.host, self.port

    def _spawn(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets.append(near)
            try:
                far = Client(self.target).sock
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            self._sockets.append(far)
            self._spawn(self._relay, near, far)
            self._spawn(self._relay, far, near)

    def _relay(self, source: socket.socket, sink: socket.socket) -> None:
        reframer = Reframer(self.records, self.pick)
        with suppress(OSError):
            while data := source.recv(65536):
                data = reframer.feed(data) if self.records else data
                for piece in self._cut(data):
                    sink.sendall(piece)
            sink.shutdown(socket.SHUT_WR)
            return
        with suppress(OSError):  # one side was reset: so is the other
            sink.shutdown(socket.SHUT_RDWR)

    def _cut(self, data: bytes) -> Iterator[bytes]:
        if not self.pieces:
            yield data
        while self.pieces and data:
            count = self.pick.randint(1, self.pieces)
            piece, data = data[:count], data[count:]
            yield piece


class ByteNode(RawNode):
    """Records what comes, and answers once `expected` bytes have come; no protocol at all."""

    def __init__(self, name: str, answer: bytes = b"", expected: int = 1):
        super().__init__(name=name)
        self.answer = answer
        self.expected = expected

    def _serve(self, connection: Connection) -> None:
        answered = not self.answer
        try:
            while connection.reader.more():
                if not answered and len(connection.received) >= self.expected:
                    answered = True
                    connection.sock.sendall(self.answer)
            connection.finish("fin")
        except OSError:
            connection.finish("reset")

    def received(self, connection: int = 0) -> bytes:
        """All bytes of a connection, once its peer has ended it."""
        one = self.wait_connections(connection + 1)[connection]
        assert one.ended.wait(TIMEOUT), f"node {self.name} still waits for the end"
        return one.received
