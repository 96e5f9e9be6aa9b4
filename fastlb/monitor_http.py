"""Type "http": one request and what is read of its answer (RFC 9112), all of it bounded."""

import asyncio
import re

from fastlb.monitor_link import Failed, Link, Target, open_link
from fastlb.monitor_match import matches

HEAD_BYTES_MAX = 16 << 10  # interim answers included
BODY_BYTES_MAX = 64 << 10
CHUNKED_BYTES_MAX = 2 * BODY_BYTES_MAX  # with its chunks' sizes
STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: [^\r\n]*)?")
CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?")
SHOWN = 60  # bytes of an answer that is none


async def check_http(target: Target) -> str:
    """Raises Failed; returns what was good."""
    monitor = target.monitor
    link = await open_link(target)
    try:
        await link.send(request(target))
        reader = Reader(link)
        status, fields = await read_head(reader)
        if not is_good(status, monitor.status):
            raise Failed(f"status {status}, expected {', '.join(monitor.status)}")
        if monitor.body is not None:
            body = await read_body(reader, status, fields)
            if not matches(monitor.body, body):
                raise Failed(f'the body does not match "{monitor.body}"')
    finally:
        link.close()
    return f"status {status}"


def request(target: Target) -> bytes:
    """What the node is asked."""
    monitor = target.monitor
    named = f"[{target.name}]" if ":" in target.name else target.name
    port = monitor.port or target.key.port
    usual = 443 if target.tls is not None else 80
    host = monitor.host or (named if port == usual else f"{named}:{port}")
    lines = (
        f"{monitor.method} {monitor.path} HTTP/1.1",
        f"Host: {host}",
        "User-Agent: fastlb-monitor",
        "Accept: */*",
        "Connection: close",
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def is_good(status: int, expected: tuple[str, ...]) -> bool:
    """Whether it is in one of the ranges, like `200` or `200-399`."""
    for text in expected:
        first, _, last = text.partition("-")
        if int(first) <= status <= int(last or first):
            return True
    return False


class Reader:
    """What has arrived, and more when it is asked for."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self._data = bytearray()
        self._at = 0  # what is before it has been taken

    async def more(self) -> bool:
        # A node that always has more to say must not keep other checks from their turn.
        await asyncio.sleep(0)
        new = await self.link.receive()
        del self._data[: self._at]
        self._at = 0
        self._data += new
        return bool(new)

    async def until(self, mark: bytes, most: int, what: str, said: int | None = None) -> bytes:
        """Up to the mark, which is taken off; `said`: the bound of all of it, for the message."""
        while (at := self._data.find(mark, self._at)) < 0 or at - self._at > most:
            if self._pending > most:
                raise Failed(f"{what} is longer than {said or most} bytes")
            if not await self.more():
                raise Failed(self._ended(what))
        return self._taken(at - self._at, len(mark))

    async def take(self, count: int) -> bytes:
        """So many bytes."""
        while self._pending < count:
            if not await self.more():
                raise Failed(self._ended("the body"))
        return self._taken(count)

    async def rest(self, most: int) -> bytes:
        """All up to the end, or so many bytes."""
        while self._pending < most and await self.more():
            pass
        return self._taken(min(most, self._pending))

    @property
    def _pending(self) -> int:
        return len(self._data) - self._at

    def _taken(self, count: int, mark: int = 0) -> bytes:
        found = bytes(self._data[self._at : self._at + count])
        self._at += count + mark
        return found

    def _ended(self, what: str) -> str:
        if what == "the head" and not self._pending:
            return "the connection ended without an answer"
        return f"the connection ended within {what}"


async def read_head(reader: Reader) -> tuple[int, dict[bytes, bytes]]:
    """Status and fields of the final answer."""
    left = HEAD_BYTES_MAX
    while True:
        head = await reader.until(b"\r\n\r\n", left, "the head", HEAD_BYTES_MAX)
        left -= len(head)
        first, *lines = head.split(b"\r\n")
        match = STATUS_LINE.fullmatch(first)
        if match is None:
            raise Failed(f"no HTTP/1 answer: {first[:SHOWN].decode('latin-1')!a}")
        status = int(match[1])
        if status >= 200 or status == 101:
            break
    fields = {}
    for line in lines:
        name, _, value = line.partition(b":")
        fields[name.lower()] = value.strip()
    return status, fields


async def read_body(reader: Reader, status: int, fields: dict[bytes, bytes]) -> bytes:
    """The first BODY_BYTES_MAX bytes of the body (RFC 9112 6.3)."""
    if status in (101, 204, 304):
        return b""
    coding = fields.get(b"transfer-encoding", b"").lower()
    if coding == b"chunked":
        return await _chunked(reader)
    length = fields.get(b"content-length")
    if coding or (length is not None and not re.fullmatch(rb"[0-9]{1,18}", length)):
        raise Failed("the body's framing is not understood")
    if length is not None:
        return await reader.take(min(int(length), BODY_BYTES_MAX))
    return await reader.rest(BODY_BYTES_MAX)


async def _chunked(reader: Reader) -> bytes:
    body = bytearray()
    read = 0
    while len(body) < BODY_BYTES_MAX and read < CHUNKED_BYTES_MAX:
        line = await reader.until(b"\r\n", HEAD_BYTES_MAX, "a chunk's size")
        match = CHUNK.fullmatch(line)
        if match is None:
            raise Failed("the body's chunks are not understood")
        size = int(match[1], 16)
        if size == 0:
            break
        part = await reader.take(min(size, BODY_BYTES_MAX - len(body)))
        body += part
        read += len(line) + size + 4
        if len(part) == size and await reader.take(2) != b"\r\n":
            raise Failed("the body's chunks are not understood")
    return bytes(body)
