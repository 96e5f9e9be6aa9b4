"""What is fuzzed: one function each, of any bytes. It raises AssertionError where a parser breaks a
promise that holds for every input; that it reads outside of the input, a page without access rights
behind it or AddressSanitizer says.

Every parser must find the same however its input was cut into segments: where, the input's first
byte says.
"""

from collections.abc import Callable
from ipaddress import IPv6Address

from fastlb._core import (
    _testing_body,
    _testing_cookie,
    _testing_head,
    _testing_path,
    _testing_sealed,
    _testing_tls,
)
from fastlb._core._testing_parts import read_token, token
from fastlb._core._testing_plan import PlanImage
from tests.core import handshakes
from tests.core.plans import Setting, get

MOST_BYTES = 1024
KEY = bytes(range(16))
PASSPHRASES = [(bytes(range(64)), bytes(range(16)))]


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def cut_of(data: bytes) -> tuple[int, bytes]:
    """The size of segments, and the input."""
    return 1 + (data[0] & 31), data[1:]


def request_head(data: bytes) -> None:
    size, data = cut_of(data)
    whole = _testing_head.parse_request(data)
    assert _testing_head.parse_request(data, [size] * (len(data) // size)) == whole
    if isinstance(whole, dict):
        head = data[: whole["bytes"]]
        assert head.endswith(b"\r\n\r\n")
        bare = head.replace(b"\r\n", b"")
        assert not any(byte in bare for byte in (b"\r", b"\n", b"\0")), (
            "a bare CR, LF or NUL passed"
        )
        names = [field["name"].lower() for field in whole["fields"]]
        assert names.count(b"content-length") + names.count(b"transfer-encoding") < 2
        assert names.count(b"host") == 1 or whole["version_minor"] == 0


def response_head(data: bytes) -> None:
    size, data = cut_of(data)
    for method in ("GET", "HEAD"):
        whole = _testing_head.parse_response(data, method=method)
        segments = [size] * (len(data) // size)
        assert _testing_head.parse_response(data, segments, method) == whole
        if isinstance(whole, dict):
            assert 100 <= whole["status"] <= 999
            bodiless = method == "HEAD" or whole["status"] < 200 or whole["status"] in (204, 304)
            assert not bodiless or whole["framing"] == "none"


def authority(data: bytes) -> None:
    accepted = _testing_head.authority(data)
    assert not accepted or data.isascii()
    assert not _testing_head.authority(data, True) or accepted


def chunked(data: bytes) -> None:
    size, data = cut_of(data)
    whole = _testing_body.read("chunked", [data])
    cut = _testing_body.read("chunked", pieces(data, size))
    assert cut[2] == whole[2]
    assert whole[2] not in ("more", "done") or cut == whole
    consumed, state = _testing_body.passed("chunked", [data])
    assert state == whole[2]
    assert state == "done" or len(whole[0]) <= consumed or state not in ("more",)


def cookies(data: bytes) -> None:
    found = _testing_cookie.pairs(data)
    assert all(b";" not in text for _, _, text in found)
    head = b"GET / HTTP/1.1\r\nHost: a\r\nCookie: " + data + b"\r\n\r\n"
    if not isinstance(_testing_head.parse_request(head), dict):
        return
    done = _testing_cookie.without(head, [b"a", b"X-Mapping-01234567"])
    if done != "full":
        left = done[1]
        again = _testing_head.parse_request(left)
        assert isinstance(again, dict), "taking a cookie out broke the head"
        assert _testing_cookie.without(left, [b"a", b"X-Mapping-01234567"])[0] == 0


def set_cookie(data: bytes) -> None:
    if _testing_cookie.set_cookie(data) is not None:
        _testing_cookie.expired(data, 1_700_000_000)
        _testing_cookie.covers(data, b"/a/b")
    _testing_cookie.date(data)


def client_hello(data: bytes) -> None:
    size, data = cut_of(data)
    whole = _testing_tls.client_hello(data)
    assert _testing_tls.client_hello(data, range(size, len(data), size)) == whole
    if isinstance(whole, dict):
        assert len(whole["session_id"]) <= 32


def server_flight(data: bytes) -> None:
    size, data = cut_of(data)
    assert _testing_tls.server_flight(pieces(data, size)) == _testing_tls.server_flight([data])


def proxy_header(data: bytes) -> None:
    read = _testing_tls.proxy_read(data)
    if isinstance(read, dict):
        assert read["bytes"] <= len(data)
        assert _testing_tls.proxy_read(data[: read["bytes"]]) == read
        assert all(_testing_tls.proxy_read(data[:n]) is None for n in range(read["bytes"]))


class _Trusting:
    """A plan that trusts some proxies; made when it is first needed."""

    image: PlanImage | None = None

    @classmethod
    def client(cls, head: bytes) -> bytes:
        if cls.image is None:
            cls.image = Setting(trusted=[("10.0.0.0", 8), ("2001:db8::", 32)]).image()
        ip: bytes = cls.image.client(0, "10.0.0.1", head)[0]
        return ip


def forwarded(data: bytes) -> None:
    lines = [b"X-Forwarded-For: " + line for line in data.split(b"\n")[:20]]
    head = get()[:-2] + b"".join(line + b"\r\n" for line in lines) + b"\r\n"
    if isinstance(_testing_head.parse_request(head), dict):
        assert len(_Trusting.client(head)) == 16


def path_session(data: bytes) -> None:
    values = _testing_path.parameters(data, b"jsessionid")
    assert all(value in data for value in values)
    found = _testing_path.asp_id(data)
    assert found is None or found in data
    assert _testing_path.of_target(data) in data
    assert _testing_path.of_reference(data) in data


def cookie_token(data: bytes) -> None:
    """Whatever is read is what we would write: no byte of it can be another one."""
    found = read_token(KEY, KEY, data)
    if found is not None:
        ip, *rest = found
        assert token(KEY, KEY, str(IPv6Address(ip)), *rest) == data


def sealed(data: bytes) -> None:
    assert _testing_sealed.unseal(PASSPHRASES, data) is None


TARGETS: dict[str, Callable[[bytes], None]] = {
    one.__name__: one
    for one in (
        request_head,
        response_head,
        authority,
        chunked,
        cookies,
        set_cookie,
        client_hello,
        server_flight,
        proxy_header,
        forwarded,
        path_session,
        cookie_token,
        sealed,
    )
}


def seeds() -> dict[str, list[bytes]]:
    """What each target begins with."""
    extensions = handshakes.sni(b"www.example.com") + b"".join(
        handshakes.extension(kind, data)
        for kind, data in (
            (16, b"\0\x0c\x02h2\x08http/1.1"),
            (35, b"t" * 40),
            (43, b"\x04\x03\x04\x03\x03"),
            (41, b"\0\x0c\0\x06ticket\0\0\0\0\0\x21\x20" + bytes(32)),
        )
    )
    message = handshakes.client_hello(b"s" * 32, extensions)
    hello = handshakes.records(message)
    body = b"\x07" + b'5;a="b\\"c"\r\nhello\r\nA;x=y\r\n0123456789\r\n0\r\nX-A: b\r\n\r\n'
    return {
        "request_head": [
            b"\x04\r\nPOST http://[::1]:8/a?b HTTP/1.1\r\nHost: a.b:80\r\nContent-Length: 5\r\n"
            b"Connection: close, X-A\r\nX-A: 1\r\nExpect: 100-continue\r\n\r\n",
            b"\x1fGET /%41;x=y HTTP/1.0\r\nTransfer-Encoding: chunked\r\nCookie: a=b\r\n"
            b"Upgrade: websocket\r\nX_Forwarded_For: 1\r\nX-Forwarded-Proto: https\r\n\r\n",
            b"\x02OPTIONS * HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"\x02CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
        ],
        "response_head": [
            b"\x04HTTP/1.1 200 OK\r\nContent-Length: 5\r\nSet-Cookie: a=b\r\n\r\n",
            b"\x04HTTP/1.0 304\r\nConnection: close\r\n\r\n",
            b"\x04HTTP/1.1 101 S\r\nUpgrade: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        ],
        "authority": [b"a.b:80", b"[2001:db8::1.2.3.4]:8", b"[v1.a:b]", b"a%41!$&'()*+,;=~_"],
        "chunked": [body, b"\x010\r\n\r\n", b"\x02fff\r\n"],
        "cookies": [b'a=b; c="d"; a; =x; X-Mapping-01234567=y,z', b"a=1;a=2; a=3"],
        "set_cookie": [
            b"a=b; Path=/; Domain=.x.y; Expires=Wed, 09 Jun 2021 10:18:14 GMT; Max-Age=-1; Secure",
            b"Wed, 09-Jun-21 10:18:14 GMT",
        ],
        "client_hello": [b"\x07" + hello, b"\x03" + handshakes.records(message, 7, 40, 90)],
        "server_flight": [b"\x07" + handshakes.server_flight(b"s" * 32, b"ticket")],
        "proxy_header": [
            b"PROXY TCP4 1.2.3.4 5.6.7.8 80 443\r\nGET",
            b"PROXY UNKNOWN\r\n",
            b"PROXY TCP6 ::1 2001:db8::1 80 443\r\n",
            _testing_tls.proxy_write(2, ("1.2.3.4", 5), ("6.7.8.9", 10), b"a.b", b"h2"),
            _testing_tls.proxy_write(2, ("::1", 5), ("::2", 10)),
        ],
        "forwarded": [b"1.2.3.4, 10.0.0.2:80\n[2001:db8::1]:8, ::ffff:10.1.1.1", b"unknown, _x,,"],
        "path_session": [
            b"/a;jsessionid=abc.node1;x=y/b?c",
            b"/(S(abcdefghijklmnopqrstuvwx))/a",
            b"/(X(1)A(b)S(abcdefghijklmnopqrstuvwx))/",
            b"http://h/a;jsessionid=1#f",
        ],
        "cookie_token": [
            token(KEY, KEY, "10.0.0.1", 80, 7, 1000, 2000),
            token(KEY, KEY, "::1", 1, 7),
        ],
        "sealed": [_testing_sealed.seal([(bytes(64), bytes(16))], "10.0.0.1", 80, 7, 1000, 2000)],
    }
