"""HTTP/1.x messages as the tests read them from a socket, apart from the proxy's own parser.

Only what RFC 9112 section 6 needs to find the end of a message, and deliberately intolerant:
a line must end in CRLF, a field must have a colon. Node and client share it, so that both see
what really was on the wire; `head` keeps the exact bytes.
"""

import json
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field

Fields = list[tuple[bytes, bytes]]


class Truncated(Exception):
    """The peer ended in the middle of a message; `got` is what had arrived of it."""

    def __init__(self, got: bytes, message: "Message | None" = None):
        super().__init__(f"ended after {len(got)} bytes: {got[:200]!r}")
        self.got = got
        self.message = message


class Closed(Exception):
    """The peer ended between two messages."""


class Malformed(AssertionError):
    """What came is no HTTP/1.x message; the proxy or the script is wrong."""


@dataclass
class Message:
    start: bytes  # start line without CRLF
    fields: Fields
    head: bytes  # exact bytes up to and with the empty line
    framing: str = "none"  # none | length | chunked | close
    body: bytes = b""
    trailers: Fields = field(default_factory=list)
    interim: list["Message"] = field(default_factory=list)  # 1xx before a response

    def all(self, name: str) -> list[bytes]:
        """Every value of a field, in order."""
        wanted = name.lower().encode()
        return [value for key, value in self.fields if key.lower() == wanted]

    def get(self, name: str) -> bytes | None:
        """The only value of a field, or None; a repeated field is an error of the test."""
        values = self.all(name)
        assert len(values) < 2, f"{name} occurs {len(values)} times: {values}"
        return values[0] if values else None

    @property
    def method(self) -> bytes:
        return self.start.split(b" ")[0]

    @property
    def target(self) -> bytes:
        return self.start.split(b" ")[1]

    @property
    def status(self) -> int:
        return int(self.start.split(b" ")[1])

    @property
    def raw_fields(self) -> list[bytes]:
        """The header's lines as they came, without their CRLF."""
        return self.head[:-4].split(b"\r\n")[1:]

    def json(self) -> dict:
        return json.loads(self.body)

    @property
    def node(self) -> str:
        """The name of the HttpNode that answered."""
        return self.json()["node"]


class Reader:
    """A socket's bytes with a buffer; everything that arrives is appended to `received`."""

    def __init__(self, sock: socket.socket):
        self.sock = sock
        self.buffer = b""
        self.received = bytearray()

    def more(self) -> bool:
        """One recv; False at the peer's end of stream."""
        data = self.sock.recv(65536)
        self.received += data
        self.buffer += data
        return bool(data)

    def exactly(self, count: int) -> bytes:
        parts, have = [self.buffer], len(self.buffer)
        while have < count:
            self.buffer = b""
            if not self.more():
                raise Truncated(b"".join(parts))
            parts.append(self.buffer)
            have += len(self.buffer)
        data = b"".join(parts)
        self.buffer = data[count:]
        return data[:count]

    def until(self, marker: bytes) -> bytes:
        while marker not in self.buffer:
            if not self.more():
                if self.buffer:
                    raise Truncated(self.buffer)
                raise Closed
        at = self.buffer.index(marker) + len(marker)
        data, self.buffer = self.buffer[:at], self.buffer[at:]
        return data

    def rest(self) -> bytes:
        """Everything up to the end of the stream."""
        while self.more():
            pass
        data, self.buffer = self.buffer, b""
        return data


def parse_fields(lines: Iterable[bytes]) -> Fields:
    fields = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not name or name != name.strip() or b"\n" in line or b"\r" in line:
            raise Malformed(f"not a field line: {line!r}")
        fields.append((name, value.strip(b" \t")))
    return fields


def read_head(reader: Reader) -> Message:
    head = reader.until(b"\r\n\r\n")
    start, *lines = head[:-4].split(b"\r\n")
    return Message(start, parse_fields(lines), head)


def read_chunked(reader: Reader, message: Message) -> None:
    body = []
    try:
        while True:
            line = reader.until(b"\r\n")[:-2]
            size = int(line.split(b";")[0], 16)
            if size == 0:
                break
            data = reader.exactly(size + 2)
            if data[-2:] != b"\r\n":
                raise Malformed(f"chunk does not end in CRLF: {data[-8:]!r}")
            body.append(data[:-2])
        while (line := reader.until(b"\r\n")[:-2]) != b"":
            message.trailers += parse_fields([line])
    except (Truncated, Closed) as end:
        got = b"".join(body) + (end.got if isinstance(end, Truncated) else b"")
        raise Truncated(got, message) from end
    finally:
        message.body = b"".join(body)


def read_body(reader: Reader, message: Message) -> None:
    """The body of a message whose framing is known."""
    if message.framing == "chunked":
        read_chunked(reader, message)
    elif message.framing == "length":
        count = int(message.get("Content-Length") or b"0")
        try:
            message.body = reader.exactly(count)
        except Truncated as end:
            raise Truncated(end.got, message) from end
    elif message.framing == "close":
        message.body = reader.rest()


def frame_of(message: Message, without: str) -> str:
    coding = message.get("Transfer-Encoding")
    if coding is not None:
        if coding.lower() != b"chunked" or message.all("Content-Length"):
            raise Malformed(f"ambiguous framing: {message.head!r}")
        return "chunked"
    return "length" if message.get("Content-Length") is not None else without


def read_request_head(reader: Reader) -> Message:
    message = read_head(reader)
    message.framing = frame_of(message, "none")
    return message


def read_response(reader: Reader, method: bytes = b"GET") -> Message:
    """The next final response and its body; interim responses are kept in `interim`."""
    interim = []
    while True:
        message = read_head(reader)
        if not message.start.startswith(b"HTTP/1."):
            raise Malformed(f"not a status line: {message.start!r}")
        if message.status >= 200 or message.status == 101:
            break
        interim.append(message)
    message.interim = interim
    if message.status in (101, 204, 304) or method == b"HEAD":
        message.framing = "none"
    else:
        message.framing = frame_of(message, "close")
    read_body(reader, message)
    return message


def reply(
    status: int = 200,
    body: bytes = b"",
    *fields: tuple[str, str],
    reason: str = "Fine",
    length: bool = True,
) -> bytes:
    """A response's bytes; with `length` a Content-Length of the body comes last."""
    lines = [f"HTTP/1.1 {status} {reason}"] + [f"{name}: {value}" for name, value in fields]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def chunks(*pieces: bytes, trailers: tuple[tuple[str, str], ...] = ()) -> bytes:
    """The chunked coding of the pieces, each its own chunk, with the last chunk."""
    lines = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    tail = "".join(f"{name}: {value}\r\n" for name, value in trailers).encode("latin-1")
    return lines + b"0\r\n" + tail + b"\r\n"


def request(
    target: str = "/",
    *fields: tuple[str, str],
    method: str = "GET",
    body: bytes | None = None,
    host: str = "shop.test",
    version: str = "1.1",
) -> bytes:
    """A request's bytes; a body gets a Content-Length."""
    lines = [f"{method} {target} HTTP/{version}", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in fields]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b"")
