"""What Connection and Expect mean; the grammar of framing fields is in test_head.py."""

import pytest

from fastlb._core import _testing_head as core


def get(fields: bytes, line: bytes = b"GET / HTTP/1.1") -> bytes:
    return line + b"\r\nHost: a\r\n" + fields + b"\r\n"


@pytest.mark.parametrize(
    ("fields", "version", "flags", "persists"),
    [
        (b"", b"1.1", set(), True),
        (b"", b"1.0", set(), False),
        (b"Connection: close\r\n", b"1.1", {"close", "hop"}, False),
        (b"Connection: Keep-Alive\r\n", b"1.0", {"keep-alive", "hop"}, True),
        (b"Connection: keep-alive, CLOSE\r\n", b"1.1", {"keep-alive", "close", "hop"}, False),
        (b"Connection: x\r\nConnection: y ,\tclose\r\n", b"1.1", {"close", "hop"}, False),
        (b"Connection: closed\r\n", b"1.1", {"hop"}, True),
        (b"Connection: Upgrade\r\nUpgrade: websocket\r\n", b"1.1", {"upgrade", "hop"}, True),
        (b"Connection: Upgrade\r\nUpgrade: websocket\r\n", b"1.0", {"hop"}, False),
        (b"Connection: upgrade\r\n", b"1.1", {"hop"}, True),
        (b"Upgrade: websocket\r\n", b"1.1", {"hop"}, True),
        (b"Connection: Upgrade\r\nUpgrade: h2c\r\n", b"1.1", {"hop"}, True),
        (b"Connection: Upgrade\r\nUpgrade: a, H2C\r\n", b"1.1", {"hop"}, True),
        (b"Connection: Upgrade\r\nUpgrade: h2\r\n", b"1.1", {"hop"}, True),
        (b"Connection: Upgrade\r\nUpgrade: h2cx\r\n", b"1.1", {"upgrade", "hop"}, True),
        (b"Expect: 100-Continue\r\n", b"1.1", {"expect-continue"}, True),
        (b"Expect: 100-continue\r\n", b"1.0", set(), False),
        (b"Expect: 200-ok\r\n", b"1.1", set(), True),
        (b"Content-Length: 0\r\n", b"1.1", {"length"}, True),
    ],
)
def test_connection(fields: bytes, version: bytes, flags: set[str], persists: bool) -> None:
    head = core.parse_request(get(fields, b"GET / HTTP/" + version))
    assert head["flags"] == flags
    assert head["persists"] is persists


def test_listed_fields() -> None:
    head = core.parse_request(
        get(
            b"X-One: 1\r\nx-two: 2\r\nConnection: X-Two, host, Content-Length,, cookie, TE, \r\n"
            b"Cookie: a=b\r\nX-TWO: 3\r\nTE: trailers\r\nContent-Length: 0\r\nKeep-Alive: 1\r\n"
            b"Proxy-Connection: close\r\n"
        )
    )
    marks = {(f["name"], f["value"]): f["flags"] for f in head["fields"]}
    both = {"hop", "listed"}
    assert marks[b"X-One", b"1"] == set()
    assert marks[b"x-two", b"2"] == marks[b"X-TWO", b"3"] == both
    assert marks[b"Cookie", b"a=b"] == marks[b"TE", b"trailers"] == both
    assert marks[b"Host", b"a"] == marks[b"Content-Length", b"0"] == set()
    assert marks[b"Keep-Alive", b"1"] == marks[b"Proxy-Connection", b"close"] == {"hop"}
