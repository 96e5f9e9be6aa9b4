"""The nodes behind the proxy: a raw one that records exact bytes and plays a script, and a
friendly one that answers with its name and what it saw.

A script is played once per request head: bytes (the body is read first, then they are sent) or a
function of one Exchange. A list plays one script per request, the last one again and again; a
dictionary picks by path ("*" is the default). Each connection is served by its own thread, so a
script may block; what it waits for is an Event of the test, never a clock.

Each node listens on a loopback address of its own (127.0.1.1, 127.0.1.2, …), because a session
map also finds "the only node of the same address": nodes that share one would hide errors.
"""

import itertools
import json
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import h11

from .wait import TIMEOUT, until
from .wire import Closed, Malformed, Message, Reader, Truncated, read_body, read_request_head, reply

Script = bytes | Callable[["Exchange"], None] | list | dict

_host_numbers = itertools.count(1)


def next_host() -> str:
    number = next(_host_numbers)
    return f"127.0.{1 + number // 250}.{1 + number % 250}"


class Connection:
    """One connection that the node accepted, and all that came over it."""

    def __init__(self, sock: socket.socket, peer: tuple):
        self.sock = sock
        self.peer = peer
        self.reader = Reader(sock)
        self.requests: list[Message] = []
        self.end: str | None = None  # "fin", "reset": the peer's; "node": the script's
        self.ended = threading.Event()

    @property
    def received(self) -> bytes:
        return bytes(self.reader.received)

    def finish(self, how: str) -> None:
        self.end = self.end or how
        self.sock.close()
        self.ended.set()


class Exchange:
    """What a script holds: the request's head, and the verbs to answer it."""

    def __init__(self, node: "RawNode", connection: Connection, request: Message):
        self.node = node
        self.connection = connection
        self.request = request
        self.body_read = False

    def read_body(self) -> bytes:
        if not self.body_read:
            self.body_read = True
            read_body(self.connection.reader, self.request)
        return self.request.body

    def read(self, count: int) -> bytes:
        """Raw bytes after the head, as for a tunnel or a part of a body."""
        return self.connection.reader.exactly(count)

    def read_rest(self) -> bytes:
        return self.connection.reader.rest()

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.connection.sock.sendall(piece)

    def half_close(self) -> None:
        self.connection.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.connection.finish("node")

    def reset(self) -> None:
        linger_zero = struct.pack("ii", 1, 0)
        self.connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_zero)
        self.connection.finish("node")

    def wait(self, event: threading.Event) -> None:
        assert event.wait(TIMEOUT), "the test never set the event that the node's script waits for"

    def wait_end(self) -> None:
        """Never answer: hold the connection until the peer ends it."""
        while self.connection.reader.more():
            pass
        self.connection.finish("fin")


class RawNode:
    """A raw server on an ephemeral loopback port; a context manager."""

    def __init__(self, script: Script = b"", name: str = "raw", host: str | None = None):
        self.name = name
        self.script = script or reply(200, name.encode())
        self.host = host or next_host()
        self.connections: list[Connection] = []
        self.errors: list[BaseException] = []
        self._lock = threading.Lock()
        self._served = 0
        self._stopping = False
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None
        self.port = 0

    # --- life ---

    def start(self) -> "RawNode":
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self._stopping = False
        self._listener = socket.socket(family)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((self.host, self.port))
        self._listener.listen(512)
        self.port = self._listener.getsockname()[1]
        self._spawn(self._accept, self._listener)
        return self

    def stop(self) -> None:
        """Refuse from now on, and end every connection. start() serves again at the same port."""
        self._stopping = True
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        for connection in self.connections:
            try:
                connection.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # already ended
        for thread in self._threads:
            thread.join(TIMEOUT)
            assert not thread.is_alive(), f"a thread of node {self.name} is stuck in its script"
        self._threads.clear()

    def __enter__(self) -> "RawNode":
        return self.start()

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        self.stop()
        if kind is None and self.errors:
            raise self.errors[0]

    # --- what the tests ask ---

    @property
    def address(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def requests(self) -> list[Message]:
        """All requests whose head has arrived, connection by connection."""
        with self._lock:
            return [message for each in self.connections for message in each.requests]

    def wait_requests(self, count: int) -> list[Message]:
        until(lambda: len(self.requests) >= count, f"{count} requests at node {self.name}")
        return self.requests

    def wait_connections(self, count: int) -> list[Connection]:
        until(lambda: len(self.connections) >= count, f"{count} connections at node {self.name}")
        return self.connections

    def recorded_requests(self) -> list[tuple[h11.Request, bytes]]:
        """The same requests as h11 reads them, with their bodies; raises what h11 refuses."""
        return [pair for each in self.connections for pair in judge(each.received)]

    # --- serving ---

    def _spawn(self, target: Callable, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, peer = listener.accept()
            except OSError:
                return  # stop() closed the listener
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(sock, peer)
            with self._lock:
                self.connections.append(connection)
            self._spawn(self._serve, connection)

    def _serve(self, connection: Connection) -> None:
        try:
            while connection.end is None:
                request = read_request_head(connection.reader)
                with self._lock:
                    connection.requests.append(request)
                    script = self._pick(request)
                    self._served += 1
                self._play(script, Exchange(self, connection, request))
        except (Closed, Truncated):
            connection.finish("fin")
        except OSError:
            connection.finish("reset")  # also after stop()
        except Malformed as error:
            self.errors.append(error)
            connection.finish("node")
        except BaseException as error:
            if not self._stopping:
                self.errors.append(error)
            connection.finish("node")

    def _pick(self, request: Message) -> Script:
        script = self.script
        if isinstance(script, dict):
            path = request.target.split(b"?")[0].decode("latin-1")
            script = script.get(path, script.get("*"))
        if isinstance(script, list):
            script = script[min(self._served, len(script) - 1)]
        return script

    @staticmethod
    def _play(script: Script, exchange: Exchange) -> None:
        if isinstance(script, bytes):
            exchange.read_body()
            exchange.send(script)
            return
        script(exchange)
        if exchange.connection.end is None:
            exchange.read_body()


class HttpNode(RawNode):
    """Answers every request with its name and a JSON account of what reached it.

    Requests that carry `X-User` are counted per user in `users`: a session sticks if and only if
    one node has the user. `extra` are fields to add to each answer.
    """

    def __init__(self, name: str, *extra: tuple[str, str], host: str | None = None):
        super().__init__(self._answer, name, host)
        self.extra = extra
        self.users: Counter[str] = Counter()

    def _answer(self, exchange: Exchange) -> None:
        exchange.read_body()
        message = exchange.request
        with self._lock:
            for user in message.all("X-User"):
                self.users[user.decode()] += 1
        body = json.dumps(self.account(message)).encode()
        answer = reply(200, body, ("Content-Type", "application/json"), *self.extra)
        exchange.send(answer[: -len(body)] if message.method == b"HEAD" else answer)

    def account(self, message: Message) -> dict[str, Any]:
        """What the answer says of the request."""
        return {
            "node": self.name,
            "method": message.method.decode("latin-1"),
            "target": message.target.decode("latin-1"),
            "fields": [[k.decode("latin-1"), v.decode("latin-1")] for k, v in message.fields],
            "body": len(message.body),
        }


def judge(received: bytes) -> list[tuple[h11.Request, bytes]]:
    """The requests in a connection's bytes as h11, a strict parser of its own, reads them."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(received)
    found: list[tuple[h11.Request, bytes]] = []
    current: h11.Request | None = None
    body = b""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            current, body = event, b""
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            assert current is not None
            found.append((current, body))
            connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
            connection.send(h11.EndOfMessage())
            if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                return found
            connection.start_next_cycle()
        else:
            return found
