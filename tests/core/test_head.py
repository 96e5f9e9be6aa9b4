"""Heads: one literal input per line with its result, each also byte by byte; h11 as the judge."""

import random

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.messages import BROWSER_REQUEST, RESPONSE
from fastlb._core import _testing_head as core

OK = "ok"
HOST = b"Host: a\r\n"


def get(fields: bytes = b"", line: bytes = b"GET / HTTP/1.1") -> bytes:
    return line + b"\r\n" + HOST + fields + b"\r\n"


def answer(fields: bytes = b"", line: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return line + b"\r\n" + fields + b"\r\n"


def outcome(result: object) -> object:
    return OK if isinstance(result, dict) else result


REQUESTS = [
    ("plain get", get(), OK),
    ("with body", get(b"Content-Length: 5\r\n") + b"hello", OK),
    ("not ended", b"GET / HTTP/1.1\r\nHost: a\r\n", None),
    ("nothing yet", b"", None),
    ("leading line", b"\r\n" + get(), OK),
    ("four lines", b"\r\n" * 4 + get(), OK),
    ("five lines", b"\r\n" * 5 + get(), "empty-lines"),
    ("leading lf", b"\n" + get(), "bare-lf"),
    ("leading cr", b"\r" + get(), "bare-cr"),
    # the request line
    ("unknown method", get(line=b"PROPFIND / HTTP/1.1"), OK),
    ("lower method", get(line=b"get / HTTP/1.1"), OK),
    ("odd method", get(line=b"G!#$%&'*+-.^_`|~ / HTTP/1.1"), OK),
    ("method space", get(line=b" GET / HTTP/1.1"), "method"),
    ("method colon", get(line=b"GE:T / HTTP/1.1"), "method"),
    ("method tab", get(line=b"GET\t/ HTTP/1.1"), "method"),
    ("method eight", get(line=b"G\xc9T / HTTP/1.1"), "method"),
    ("method long", get(line=b"A" * 33 + b" / HTTP/1.1"), "method"),
    ("method most", get(line=b"A" * 32 + b" / HTTP/1.1"), OK),
    ("tls hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "method"),
    ("two spaces", get(line=b"GET  / HTTP/1.1"), "target"),
    ("late spaces", get(line=b"GET /  HTTP/1.1"), "version"),
    ("target space", get(line=b"GET /a b HTTP/1.1"), "version"),
    ("target nul", get(line=b"GET /a\0b HTTP/1.1"), "target"),
    ("target control", get(line=b"GET /a\x01 HTTP/1.1"), "target"),
    ("target tab", get(line=b"GET /a\tb HTTP/1.1"), "target"),
    ("target delete", get(line=b"GET /a\x7f HTTP/1.1"), "target"),
    ("target eight", get(line=b"GET /\xc3\xa9 HTTP/1.1"), "target"),
    ("target fragment", get(line=b"GET /a#b HTTP/1.1"), "target"),
    ("target browserish", get(line=b'GET /a|b?{"c"}=^`<>\\ HTTP/1.1'), OK),
    ("target slashes", get(line=b"GET //a/../b HTTP/1.1"), OK),
    ("target relative", get(line=b"GET a/b HTTP/1.1"), "target"),
    ("target asterisk", get(line=b"OPTIONS * HTTP/1.1"), OK),
    ("asterisk get", get(line=b"GET * HTTP/1.1"), "target"),
    ("asterisk more", get(line=b"OPTIONS *x HTTP/1.1"), "target"),
    ("absolute form", get(line=b"GET http://b/c?d HTTP/1.1"), OK),
    ("absolute https", get(line=b"GET HTTPS://b:1/ HTTP/1.1"), OK),
    ("absolute bare", get(line=b"GET http://b HTTP/1.1"), OK),
    ("absolute empty", get(line=b"GET http:///c HTTP/1.1"), "authority"),
    ("absolute nothing", get(line=b"GET http:// HTTP/1.1"), "target"),
    ("absolute user", get(line=b"GET http://u@b/ HTTP/1.1"), "authority"),
    ("absolute port", get(line=b"GET http://b:x/ HTTP/1.1"), "authority"),
    ("absolute scheme", get(line=b"GET ftp://b/ HTTP/1.1"), "target"),
    ("connect authority", get(line=b"CONNECT b:443 HTTP/1.1"), OK),
    ("connect portless", get(line=b"CONNECT b HTTP/1.1"), "authority"),
    ("connect origin", get(line=b"CONNECT /b HTTP/1.1"), "authority"),
    ("trace method", get(line=b"TRACE / HTTP/1.1"), OK),
    ("version missing", b"GET /\r\n\r\n", "version"),
    ("version lower", get(line=b"GET / http/1.1"), "version"),
    ("version words", get(line=b"GET / HTTP/1.x"), "version"),
    ("version short", get(line=b"GET / HTTP/1"), "version"),
    ("version long", get(line=b"GET / HTTP/1.11"), "version"),
    ("version space", get(line=b"GET / HTTP/1.1 "), "version"),
    ("version digits", get(line=b"GET / HTTP/01.1"), "version"),
    ("version zero", get(line=b"GET / HTTP/0.9"), "version-unsupported"),
    ("version two", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "version-unsupported"),
    ("version next", get(line=b"GET / HTTP/1.2"), "version-unsupported"),
    ("line lf", b"GET / HTTP/1.1\nHost: a\r\n\r\n", "bare-lf"),
    ("line cr", b"GET / HTTP/1.1\rHost: a\r\n\r\n", "bare-cr"),
    # field lines
    ("empty value", get(b"A:\r\n"), OK),
    ("blank value", get(b"A: \t \r\n"), OK),
    ("value tab", get(b"A: b\tc\r\n"), OK),
    ("value eight", get(b"A: \xe4\xff\x80\r\n"), OK),
    ("value nul", get(b"A: b\0c\r\n"), "nul"),
    ("value control", get(b"A: b\x0bc\r\n"), "control"),
    ("value delete", get(b"A: b\x7fc\r\n"), "control"),
    ("value cr", get(b"A: b\rc\r\n"), "bare-cr"),
    ("value crcr", get(b"A: b\r\r\n"), "bare-cr"),
    ("value lf", get(b"A: b\nC: d\r\n"), "bare-lf"),
    ("end lf", b"GET / HTTP/1.1\r\nHost: a\r\n\n", "bare-lf"),
    ("end cr", b"GET / HTTP/1.1\r\nHost: a\r\n\rx", "bare-cr"),
    ("name space", get(b"A : b\r\n"), "space-before-colon"),
    ("name tab", get(b"A\t: b\r\n"), "space-before-colon"),
    ("name inner", get(b"A B: c\r\n"), "space-before-colon"),
    ("name empty", get(b": b\r\n"), "field-name"),
    ("name eight", get(b"\xc3\xa4: b\r\n"), "field-name"),
    ("name slash", get(b"A/B: c\r\n"), "field-name"),
    ("name paren", get(b"A(: c\r\n"), "field-name"),
    ("name control", get(b"A\x01: c\r\n"), "control"),
    ("name nul", get(b"A\0: c\r\n"), "nul"),
    ("name delete", get(b"A\x7f: c\r\n"), "control"),
    ("name odd", get(b"!#$%&'*+-.^_`|~09: c\r\n"), OK),
    ("colon missing", get(b"A\r\n"), "field-name"),
    ("colon lf", get(b"A\n"), "field-name"),
    ("value folded", get(b"A: b\r\n c\r\n"), "folded"),
    ("tab folded", get(b"A: b\r\n\tc\r\n"), "folded"),
    ("first folded", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", "folded"),
    # Host
    ("host missing", b"GET / HTTP/1.1\r\n\r\n", "host-missing"),
    ("host optional", b"GET / HTTP/1.0\r\n\r\n", OK),
    ("host twice", get(b"Host: a\r\n"), "host-repeated"),
    ("old twice", b"GET / HTTP/1.0\r\nHost: a\r\nhost: b\r\n\r\n", "host-repeated"),
    ("host empty", b"GET / HTTP/1.1\r\nHost:\r\n\r\n", "host"),
    ("empty asterisk", b"OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n", OK),
    ("empty absolute", b"GET http://a/ HTTP/1.1\r\nHost: \r\n\r\n", OK),
    ("host list", b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", "host"),
    ("host path", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "host"),
    ("host user", b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", "host"),
    ("host ipv6", b"GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", OK),
    ("absolute badhost", b"GET http://a/ HTTP/1.1\r\nHost: b c\r\n\r\n", "host"),
    # Content-Length
    ("length zero", get(b"Content-Length: 0\r\n"), OK),
    ("length padded", get(b"Content-Length:  007 \r\n"), OK),
    ("length plus", get(b"Content-Length: +5\r\n"), "length"),
    ("length minus", get(b"Content-Length: -5\r\n"), "length"),
    ("length empty", get(b"Content-Length: \r\n"), "length"),
    ("length hex", get(b"Content-Length: 0x5\r\n"), "length"),
    ("length inner", get(b"Content-Length: 1 2\r\n"), "length"),
    ("length list", get(b"Content-Length: 5, 5\r\n"), "length"),
    ("length twice", get(b"Content-Length: 5\r\nContent-Length: 5\r\n"), "length-repeated"),
    ("lengths differ", get(b"Content-Length: 5\r\ncontent-length: 6\r\n"), "length-repeated"),
    ("length most", get(b"Content-Length: 9223372036854775807\r\n"), OK),
    ("length over", get(b"Content-Length: 9223372036854775808\r\n"), "length-overflow"),
    ("length wraps", get(b"Content-Length: 18446744073709551617\r\n"), "length-overflow"),
    # Transfer-Encoding
    ("chunked body", get(b"Transfer-Encoding: chunked\r\n"), OK),
    ("chunked case", get(b"transfer-encoding: CHUNKED\r\n"), OK),
    ("coding unknown", get(b"Transfer-Encoding: gzip, chunked\r\n"), "coding-unknown"),
    ("coding identity", get(b"Transfer-Encoding: identity\r\n"), "coding-unknown"),
    ("coding prefix", get(b"Transfer-Encoding: xchunked\r\n"), "coding-unknown"),
    ("coding empty", get(b"Transfer-Encoding:\r\n"), "coding"),
    ("coding comma", get(b"Transfer-Encoding: chunked,\r\n"), "coding"),
    ("coding leading", get(b"Transfer-Encoding: ,chunked\r\n"), "coding"),
    ("chunked first", get(b"Transfer-Encoding: chunked, gzip\r\n"), "coding"),
    ("chunked twice", get(b"Transfer-Encoding: chunked, chunked\r\n"), "coding"),
    ("chunked parameter", get(b"Transfer-Encoding: chunked;a=b\r\n"), "coding"),
    ("chunked quoted", get(b'Transfer-Encoding: "chunked"\r\n'), "coding"),
    (
        "coding lines",
        get(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        "coding-repeated",
    ),
    (
        "both framings",
        get(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        "coding-and-length",
    ),
    (
        "framings swapped",
        get(b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
        "coding-and-length",
    ),
    ("chunked old", get(b"Transfer-Encoding: chunked\r\n", b"POST / HTTP/1.0"), "coding-in-1.0"),
    ("name underscore", get(b"X_Forwarded_For: x\r\nUser_Agent: y\r\n_: z\r\n"), OK),
    ("length alias", get(b"Content_Length: 5\r\n"), "field-name"),
    ("coding alias", get(b"A: b\r\ntransfer_Encoding: x\r\n"), "field-name"),
    ("options most", get(b"Connection: " + b"a," * 31 + b"a\r\n"), OK),
    ("options many", get(b"Connection: " + b"a," * 32 + b"a\r\n"), "connection"),
]

RESPONSES = [
    ("plain answer", answer(), OK),
    ("not ended", b"HTTP/1.1 200 OK\r\n", None),
    ("no reason", answer(line=b"HTTP/1.1 200 "), OK),
    ("reason space", answer(line=b"HTTP/1.1 200"), OK),
    ("reason eight", answer(line=b"HTTP/1.1 404 nicht gef\xfcnden\t!"), OK),
    ("reason control", answer(line=b"HTTP/1.1 200 O\x01K"), "control"),
    ("reason nul", answer(line=b"HTTP/1.1 200 O\0K"), "nul"),
    ("reason lf", b"HTTP/1.1 200 OK\n\r\n", "bare-lf"),
    ("reason cr", b"HTTP/1.1 200 OK\rX", "bare-cr"),
    ("code lf", b"HTTP/1.1 200\n\r\n", "bare-lf"),
    ("code cr", b"HTTP/1.1 200\rX", "bare-cr"),
    ("code short", answer(line=b"HTTP/1.1 20 OK"), "status"),
    ("code long", answer(line=b"HTTP/1.1 2000 OK"), "status"),
    ("code low", answer(line=b"HTTP/1.1 099 OK"), "status"),
    ("code high", answer(line=b"HTTP/1.1 999 OK"), OK),
    ("code letters", answer(line=b"HTTP/1.1 2xx OK"), "status"),
    ("code tab", answer(line=b"HTTP/1.1\t200 OK"), "status"),
    ("code spaces", answer(line=b"HTTP/1.1  200 OK"), "status"),
    ("old answer", answer(line=b"HTTP/1.0 200 OK"), OK),
    ("version two", answer(line=b"HTTP/2.0 200 OK"), "version-unsupported"),
    ("version icy", answer(line=b"ICY 200 OK"), "version"),
    ("leading line", b"\r\n" + answer(), "version"),
    ("html only", b"<html>", "version"),
    ("field folded", answer(b"A: b\r\n c\r\n"), "folded"),
    ("space colon", answer(b"A : b\r\n"), "space-before-colon"),
    (
        "both framings",
        answer(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        "coding-and-length",
    ),
    ("chunked old", answer(b"Transfer-Encoding: chunked\r\n", b"HTTP/1.0 200 OK"), "coding-in-1.0"),
    ("length twice", answer(b"Content-Length: 5\r\nContent-Length: 5\r\n"), "length-repeated"),
    ("coding unknown", answer(b"Transfer-Encoding: gzip, chunked\r\n"), "coding-unknown"),
]


def identifiers(cases: list[tuple]) -> list[str]:
    names = [case[0].replace(" ", "-") for case in cases]
    assert len(set(names)) == len(names)
    return names


@pytest.mark.parametrize(("data", "wanted"), [c[1:] for c in REQUESTS], ids=identifiers(REQUESTS))
def test_requests(data: bytes, wanted: object) -> None:
    whole = core.parse_request(data)
    assert outcome(whole) == wanted
    assert core.parse_request(data, [1] * len(data)) == whole
    assert core.parse_request(data, [7] * len(data)) == whole


@pytest.mark.parametrize(("data", "wanted"), [c[1:] for c in RESPONSES], ids=identifiers(RESPONSES))
def test_responses(data: bytes, wanted: object) -> None:
    whole = core.parse_response(data)
    assert outcome(whole) == wanted
    assert core.parse_response(data, [1] * len(data)) == whole
    assert core.parse_response(data, [7] * len(data)) == whole


def test_browser_request() -> None:
    head = core.parse_request(BROWSER_REQUEST)
    assert head["bytes"] == len(BROWSER_REQUEST)
    assert head["method"] == "GET"
    assert head["target"] == head["path"] == b"/shop/catalogue/items?page=2&sort=price"
    assert (head["form"], head["version_minor"], head["framing"]) == ("origin", 1, "none")
    assert head["flags"] == {"keep-alive", "cookie", "hop"}
    assert b"".join(f["line"] for f in head["fields"]) == BROWSER_REQUEST[len(head["line"]) : -2]
    names = [f["name"] for f in head["fields"]]
    assert names[0] == b"Host"
    assert names[-1] == b"Cookie"
    assert head["first"][core.id_of(b"Cookie")] == len(names) - 1


def test_response() -> None:
    head = core.parse_response(RESPONSE)
    assert (head["status"], head["reason"], head["framing"]) == (200, b"OK", "length")
    assert head["content_length"] == 17
    assert head["flags"] == {"keep-alive", "set-cookie", "length", "hop"}
    assert [f["name"] for f in head["fields"] if "hop" in f["flags"]] == [
        b"Keep-Alive",
        b"Connection",
    ]


@pytest.mark.parametrize(
    ("line", "authority", "path"),
    [
        (b"GET http://b.example:80/c?d HTTP/1.1", b"b.example:80", b"/c?d"),
        (b"GET http://b HTTP/1.1", b"b", b""),
        (b"GET http://b?q HTTP/1.1", b"b", b"?q"),
        (b"GET https://[::1]/x HTTP/1.1", b"[::1]", b"/x"),
        (b"CONNECT b:443 HTTP/1.1", b"b:443", b""),
    ],
)
def test_authority_and_path(line: bytes, authority: bytes, path: bytes) -> None:
    head = core.parse_request(get(line=line))
    assert (head["authority"], head["path"]) == (authority, path)


@pytest.mark.parametrize("method", core.METHODS[1:])
def test_methods(method: str) -> None:
    target = {"CONNECT": b"a:1", "OPTIONS": b"*"}.get(method, b"/")
    for text, wanted in ((method, method), (method[:-1] + "x", "OTHER"), (method + "S", "OTHER")):
        line = text.encode() + b" " + (target if wanted == method else b"/") + b" HTTP/1.1"
        head = core.parse_request(get(line=line))
        assert (head["method"], head["method_text"]) == (wanted, text.encode())


@pytest.mark.parametrize(
    ("status", "method", "fields", "framing", "length"),
    [
        (200, "GET", b"", "until-close", 0),
        (200, "GET", b"Content-Length: 5\r\n", "length", 5),
        (200, "GET", b"Content-Length: 0\r\n", "none", 0),
        (200, "GET", b"Transfer-Encoding: chunked\r\n", "chunked", 0),
        (200, "HEAD", b"Content-Length: 5\r\n", "none", 5),
        (200, "HEAD", b"Transfer-Encoding: chunked\r\n", "none", 0),
        (304, "GET", b"Content-Length: 5\r\n", "none", 5),
        (204, "GET", b"", "none", 0),
        (100, "GET", b"", "none", 0),
        (101, "GET", b"", "none", 0),
        (200, "CONNECT", b"", "none", 0),
        (403, "CONNECT", b"Content-Length: 5\r\n", "length", 5),
        (205, "GET", b"Content-Length: 0\r\n", "none", 0),
    ],
)
def test_response_framing(
    status: int, method: str, fields: bytes, framing: str, length: int
) -> None:
    head = core.parse_response(answer(fields, b"HTTP/1.1 %d X" % status), method=method)
    assert (head["status"], head["framing"], head["content_length"]) == (status, framing, length)
    assert head["persists"] is (framing != "until-close")


@pytest.mark.parametrize("fields", [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"])
@pytest.mark.parametrize("status", [103, 204])
def test_framing_where_no_body_is(status: int, fields: bytes) -> None:
    head = core.parse_response(answer(fields, b"HTTP/1.1 %d X" % status))
    assert head["framing"] == "none"
    assert "framed-bodiless" in head["flags"]
    assert head["fields"][0]["flags"] == {"hop"}
    assert head["persists"] is False


def test_status_line_without_its_space() -> None:
    assert "no-reason-space" in core.parse_response(answer(line=b"HTTP/1.1 200"))["flags"]
    assert "no-reason-space" not in core.parse_response(answer(line=b"HTTP/1.1 200 "))["flags"]


def both_ways(data: bytes, **limits: int) -> object:
    whole = core.parse_request(data, **limits)
    assert core.parse_request(data, [1] * len(data), **limits) == whole
    assert core.parse_request(data, [13] * len(data), **limits) == whole
    return outcome(whole)


def test_limit_of_the_request_line() -> None:
    line = b"GET /" + b"a" * 85 + b" HTTP/1.1"
    assert len(line) == 99
    data = get(line=line)
    assert both_ways(data, request_line_bytes=101) == OK
    assert both_ways(data, request_line_bytes=100) == "line-too-long"
    assert both_ways(b"\r\n\r\n" + data, request_line_bytes=101) == OK
    assert both_ways(line[:60], request_line_bytes=60) == "line-too-long"


def test_limit_of_the_head() -> None:
    data = get(b"A: " + b"b" * 100 + b"\r\n")
    assert both_ways(data + b"body", head_bytes=len(data)) == OK
    assert both_ways(data + b"body", head_bytes=len(data) - 1) == "head-too-long"
    assert both_ways(data[:50], head_bytes=50) == "head-too-long"


def test_limit_of_a_field() -> None:
    line = b"A: " + b"b" * 95 + b"\r\n"
    assert len(line) == 100
    assert both_ways(get(line), field_bytes=100) == OK
    assert both_ways(get(line), field_bytes=99) == "field-too-long"
    assert both_ways(get(b"n" * 100 + b": b\r\n"), field_bytes=99) == "field-too-long"


def test_limit_of_the_count() -> None:
    data = get(b"A: b\r\n" * 9)
    assert both_ways(data, field_count=10) == OK
    assert both_ways(data, field_count=9) == "field-count"
    assert both_ways(get(b"A: b\r\n" * 255), field_count=256) == OK


def test_limit_of_empty_lines() -> None:
    assert both_ways(b"\r\n" * 100 + get(), empty_lines=100) == OK
    assert both_ways(b"\r\n" * 2 + get(), empty_lines=1) == "empty-lines"
    assert both_ways(b"\r\n" + get(), empty_lines=0) == "empty-lines"


@pytest.mark.parametrize(
    ("first", "limits", "error"),
    [
        (b"GET /" + b"a" * 300, {"then_line": 100}, "line-too-long"),
        (b"GET /" + b"a" * 300, {"then_head": 200}, "head-too-long"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"b" * 300, {"then_field": 100}, "field-too-long"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"b" * 300, {"then_head": 200}, "head-too-long"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 100, {"then_count": 50}, "field-count"),
    ],
    ids=["line", "line-by-head", "field", "field-by-head", "count"],
)
def test_limits_that_a_reload_lowers_while_a_head_arrives(
    first: bytes, limits: dict[str, int], error: str
) -> None:
    """More has been read already than may be: no array and no buffer is overrun."""
    rest = b"X: y\r\n" * 300 if "then_count" in limits else b"c" * 40
    data = first + rest
    assert core.parse_request(data, [len(first), 20], **limits) == error


def test_limit_of_the_status_line() -> None:
    data = answer(line=b"HTTP/1.1 200 " + b"a" * 85)
    assert outcome(core.parse_response(data, request_line_bytes=100)) == OK
    for segments in ((), [1] * len(data)):
        assert core.parse_response(data, segments, request_line_bytes=99) == "line-too-long"


def test_statuses_of_errors() -> None:
    statuses = core.error_statuses()
    assert len(statuses) == 30
    others = {name: status for name, status in statuses.items() if status != 400}
    assert others == {
        "line-too-long": 414,
        "field-too-long": 431,
        "field-count": 431,
        "head-too-long": 431,
        "coding-unknown": 501,
        "version-unsupported": 505,
    }


def test_every_error_is_shown_above() -> None:
    shown = {c[2] for c in REQUESTS + RESPONSES} | {
        "line-too-long",
        "field-too-long",
        "field-count",
        "head-too-long",
    }
    assert set(core.error_statuses()) <= shown


# What arrives may be cut anywhere, and may be wrong anywhere.

tokens = st.text("abcXYZ019-_!~", min_size=1, max_size=20).map(str.encode)
values = st.one_of(
    st.lists(
        st.sampled_from([b"a", b"chunked", b"close", b"\xe4", b" ", b"\t", b",", b";=", b"x" * 60]),
        max_size=6,
    )
    .map(b"".join)
    .map(bytes.strip),
    st.just(b""),
)
names = st.one_of(
    tokens,
    st.sampled_from(
        b"Cookie set-cookie Expect TE Trailer keep-alive X-Forwarded-For Via ETag Date".split()
    ),
)
field_lists = st.lists(st.tuples(names, values), max_size=12)
pieces = st.lists(st.integers(1, 90), max_size=40)
SAFE = {b"host", b"content-length", b"transfer-encoding", b"connection", b"upgrade"}


@given(
    method=tokens,
    path=st.text("abc/?=%&.;", max_size=30),
    fields=field_lists,
    body=st.binary(max_size=20),
    segments=pieces,
)
@settings(max_examples=150)
def test_requests_as_h11_reads_them(
    method: bytes, path: str, fields: list[tuple[bytes, bytes]], body: bytes, segments: list[int]
) -> None:
    fields = [(n, v) for n, v in fields if n.lower() not in SAFE]
    fields.insert(0, (b"Host", b"example.com"))
    fields.append((b"Content-Length", b"%d" % len(body)))
    target = b"/" + path.encode()
    data = b"%s %s HTTP/1.1\r\n" % (method, target)
    data += b"".join(b"%s: %s\r\n" % field for field in fields) + b"\r\n"
    head = core.parse_request(data + body, segments)
    assert outcome(head) == OK
    judge = h11.Connection(h11.SERVER)
    judge.receive_data(data + body)
    event = judge.next_event()
    assert isinstance(event, h11.Request)
    assert (head["method_text"], head["target"]) == (event.method, event.target)
    assert [(f["name"], f["value"]) for f in head["fields"]] == [
        (n, v) for n, v in event.headers.raw_items()
    ]
    assert head["bytes"] == len(data)
    assert head["content_length"] == len(body)
    read = b""
    while not isinstance(event := judge.next_event(), h11.EndOfMessage):
        assert isinstance(event, h11.Data)
        read += bytes(event.data)
    assert read == body


@given(
    status=st.integers(200, 599),
    reason=st.text("abc XYZ", max_size=10).map(str.encode),
    fields=field_lists,
    segments=pieces,
)
@settings(max_examples=100)
def test_responses_as_h11_reads_them(
    status: int, reason: bytes, segments: list[int], fields: list[tuple[bytes, bytes]]
) -> None:
    fields = [(n, v) for n, v in fields if n.lower() not in SAFE]
    data = b"HTTP/1.1 %d %s\r\n" % (status, reason)
    data += b"".join(b"%s: %s\r\n" % field for field in fields) + b"\r\n"
    head = core.parse_response(data, segments)
    judge = h11.Connection(h11.CLIENT)
    judge.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    judge.send(h11.EndOfMessage())
    judge.receive_data(data)
    event = judge.next_event()
    assert isinstance(event, h11.Response)
    assert (head["status"], head["reason"]) == (event.status_code, event.reason)
    assert [(f["name"], f["value"]) for f in head["fields"]] == list(event.headers.raw_items())


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from([BROWSER_REQUEST, RESPONSE] + [c[1] for c in REQUESTS])))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 2))] = draw(
            st.sampled_from(
                [b"", b"\r", b"\n", b"\r\n", b"\0", b" ", b"\t", b":", b"\x7f", b"\xff", b"a", b","]
            )
        )
    return bytes(data)


@given(data=mutated(), segments=pieces)
@settings(max_examples=300)
def test_segments_change_nothing(data: bytes, segments: list[int]) -> None:
    limits = {"request_line_bytes": 120, "field_bytes": 300, "head_bytes": 800, "field_count": 14}
    for bounds in ({}, limits):
        assert core.parse_request(data, segments, **bounds) == core.parse_request(data, **bounds)
        assert core.parse_response(data, segments, **bounds) == core.parse_response(data, **bounds)


def judge_accepts(data: bytes) -> bool:
    judge = h11.Connection(h11.SERVER)
    judge.receive_data(data)
    try:
        return isinstance(judge.next_event(), h11.Request)
    except h11.RemoteProtocolError:
        return False


@given(mutated())
@settings(max_examples=300)
def test_what_passes_here_passes_h11(data: bytes) -> None:
    head = core.parse_request(data)
    if isinstance(head, dict) and head["method"] != "CONNECT":
        assert judge_accepts(data[len(data) - len(data.lstrip(b"\r\n")) : head["bytes"]])


def test_random_cuts_of_the_browser_request() -> None:
    whole = core.parse_request(BROWSER_REQUEST)
    chance = random.Random(7)
    for _ in range(30):
        sizes = [chance.randint(1, 60) for _ in range(80)]
        assert core.parse_request(BROWSER_REQUEST, sizes) == whole
