"""The clients in front of the proxy: a raw one for exact bytes, a user with a cookie jar, and
curl and httpx as clients that somebody else wrote."""

import os
import socket
import struct
import subprocess
from collections.abc import Iterable

import httpx

from .wait import TIMEOUT
from .wire import Closed, Message, Reader, read_response, request

Address = tuple[str, int] | str  # host and port, or a Unix socket's path


class Client:
    """One raw connection. `source` is the loopback address that it comes from."""

    def __init__(self, address: Address, source: str | None = None, receive_buffer: int = 0):
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        if not isinstance(address, str) and ":" in address[0]:
            family = socket.AF_INET6
        self.sock = socket.socket(family)
        self.sock.settimeout(TIMEOUT)
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if family != socket.AF_UNIX:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if source:
                self.sock.bind((source, 0))
            self.sock.connect(address)
        except OSError:
            self.sock.close()
            raise
        self.reader = Reader(self.sock)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exc: object) -> None:
        self.sock.close()

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.sock.sendall(piece)

    def send_if_open(self, data: bytes) -> None:
        """Send, where the proxy may rightly have answered and closed before all of it."""
        try:
            self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return

    def drip(self, data: bytes, size: int = 1) -> None:
        """The bytes in segments of `size` (TCP_NODELAY: each its own segment)."""
        for at in range(0, len(data), size):
            self.sock.sendall(data[at : at + size])

    def response(self, method: bytes = b"GET") -> Message:
        return read_response(self.reader, method)

    def responses(self, count: int) -> list[Message]:
        return [self.response() for _ in range(count)]

    def ask(self, target: str = "/", *fields: tuple[str, str], **more: object) -> Message:
        """One request and its response on this connection."""
        message = request(target, *fields, **more)
        self.send(message)
        return self.response(message.split(b" ")[0])

    def half_close(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def expect_closed(self) -> None:
        """The proxy has closed, or closes now, without another byte."""
        try:
            rest = self.reader.rest()
        except ConnectionResetError:
            rest = self.reader.buffer
        assert rest == b"", f"unexpected bytes before the close: {rest[:200]!r}"

    def answer_then_closed(self) -> Message | None:
        """The last response before the proxy closes; None if it closes without one."""
        try:
            message = self.response()
        except (Closed, ConnectionResetError):
            return None
        self.expect_closed()
        return message


class User:
    """A user with a cookie jar: keeps what Set-Cookie says and sends it back, in order.

    The User-Agent is the user's own: two users of one address are not one client whose first
    requests come in parallel. Each request is a new connection unless `connection` is given: a CDN
    or another proxy sends many users over one.
    """

    def __init__(self, address: Address, name: str, source: str | None = None):
        self.address = address
        self.name = name
        self.source = source
        self.cookies: dict[str, str] = {}
        self.nodes: list[str] = []  # the node of each answer, as the answer says

    def request(self, target: str = "/", *fields: tuple[str, str]) -> bytes:
        mine = [("X-User", self.name), ("User-Agent", f"browser of {self.name}")]
        if self.cookies:
            mine.append(("Cookie", "; ".join(f"{k}={v}" for k, v in self.cookies.items())))
        return request(target, *mine, *fields)

    def take(self, answer: Message) -> Message:
        for line in answer.all("Set-Cookie"):
            pair, *attributes = line.decode("latin-1").split(";")
            name, _, value = pair.partition("=")
            gone = any(a.strip().lower() == "max-age=0" or "1970" in a for a in attributes)
            if gone:
                self.cookies.pop(name.strip(), None)
            else:
                self.cookies[name.strip()] = value
        if answer.status == 200:
            self.nodes.append(answer.node)
        return answer

    def get(
        self, target: str = "/", *fields: tuple[str, str], connection: Client | None = None
    ) -> Message:
        data = self.request(target, *fields)
        if connection is not None:
            connection.send(data)
            return self.take(connection.response())
        with Client(self.address, self.source) as client:
            client.send(data)
            return self.take(client.response())


def tool_environment() -> dict[str, str]:
    """The environment for programs that are not under test: no preloaded sanitizer, no proxy."""
    dropped = {"ld_preload", "pythonmalloc", "http_proxy", "https_proxy", "all_proxy"}
    return {key: value for key, value in os.environ.items() if key.lower() not in dropped}


def curl(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """curl, silent but for errors; bounded by the tests' time-out."""
    command = ["curl", "-sS", "--noproxy", "*", "--max-time", str(TIMEOUT), *arguments]
    return subprocess.run(
        command, capture_output=True, timeout=2 * TIMEOUT, env=tool_environment(), check=False
    )


def httpx_client(address: tuple[str, int]) -> httpx.Client:
    """An httpx client of this proxy with its own cookie jar and connection pool."""
    host, port = address
    return httpx.Client(base_url=f"http://{host}:{port}", timeout=TIMEOUT, trust_env=False)


def nodes_of(users: Iterable[User]) -> dict[str, set[str]]:
    """Which nodes each user has seen: one each, if sessions stick."""
    return {user.name: set(user.nodes) for user in users}
