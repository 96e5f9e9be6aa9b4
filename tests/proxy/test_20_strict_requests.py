"""Requests that two parsers could read differently are refused: status, close, nothing forwarded.

Each row: a name, the bytes, the statuses that say the right thing.
"""

import pytest

from tests.harness import HttpNode, RawNode, proxy, request, settings

H = b"GET / HTTP/1.1\r\nHost: h\r\n"
P = b"POST / HTTP/1.1\r\nHost: h\r\n"
CHUNKED = P + b"Transfer-Encoding: chunked\r\n\r\n"

HEADS = [
    ("length and coding", P + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("coding and length", P + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
    ("two lengths", P + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"),
    ("length list", P + b"Content-Length: 5, 6\r\n\r\nhello!"),
    ("signed length", P + b"Content-Length: +5\r\n\r\nhello"),
    ("negative length", P + b"Content-Length: -5\r\n\r\nhello"),
    ("hex length", P + b"Content-Length: 0x5\r\n\r\nhello"),
    ("spaced length", P + b"Content-Length: 1 2\r\n\r\nhello"),
    ("empty length", P + b"Content-Length:\r\n\r\nhello"),
    ("overflowing length", P + b"Content-Length: 18446744073709551621\r\n\r\nhello"),
    ("huge length", P + b"Content-Length: " + b"9" * 40 + b"\r\n\r\nhello"),
    ("chunked not last", P + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
    ("chunked twice", P + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    (
        "two codings",
        P + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    ("hidden coding", P + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
    ("empty coding", P + b"Transfer-Encoding:\r\n\r\n0\r\n\r\n"),
    ("coding in 1.0", b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("folded line", H + b"X-A: 1\r\n folded\r\n\r\n"),
    ("folded with tab", H + b"X-A: 1\r\n\tfolded\r\n\r\n"),
    ("folded first line", b"GET / HTTP/1.1\r\n Host: h\r\n\r\n"),
    ("bare LF in the head", H + b"X-A: 1\nX-B: 2\r\n\r\n"),
    ("bare LF at the end", H + b"X-A: 1\r\n\n"),
    ("bare CR in a value", H + b"X-A: 1\r2\r\n\r\n"),
    ("NUL in a value", H + b"X-A: 1\x002\r\n\r\n"),
    ("control byte in a value", H + b"X-A: 1\x01\r\n\r\n"),
    ("space before the colon", H + b"X-A : 1\r\n\r\n"),
    ("space before host's colon", b"GET / HTTP/1.1\r\nHost : h\r\n\r\n"),
    ("tab before the colon", P + b"Content-Length\t: 5\r\n\r\nhello"),
    ("space in a name", H + b"X A: 1\r\n\r\n"),
    ("name of 8-bit bytes", H + b"X-\xe9: 1\r\n\r\n"),
    ("no colon", H + b"X-A\r\n\r\n"),
    ("empty name", H + b": 1\r\n\r\n"),
    ("no host", b"GET / HTTP/1.1\r\nX-A: 1\r\n\r\n"),
    ("two hosts", H + b"Host: other\r\n\r\n"),
    ("bad host", b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
    ("host with path", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    ("host with user", b"GET / HTTP/1.1\r\nHost: u@h\r\n\r\n"),
    ("two spaces", b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("tab in the request line", b"GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("space in the target", b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("control in the target", b"GET /a\x01b HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("no target", b"GET HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("no slash", b"GET index.html HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("method of odd bytes", b"G(T / HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
    ("no version", b"GET /\r\n\r\n"),
    ("lower-case version", b"GET / http/1.1\r\nHost: h\r\n\r\n"),
    ("version with two digits", b"GET / HTTP/1.10\r\nHost: h\r\n\r\n"),
    ("space after the version", b"GET / HTTP/1.1 \r\nHost: h\r\n\r\n"),
    ("equal lengths", P + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
    ("length list of equals", P + b"Content-Length: 5, 5\r\n\r\nhello"),
    ("length of many zeros", P + b"Content-Length: " + b"0" * 30 + b"5\r\n\r\nhello"),
    ("length with an underscore", P + b"Content_Length: 5\r\n\r\nhello"),
    ("coding with an underscore", P + b"Transfer_Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("coding with a parameter", P + b"Transfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n"),
    ("quoted coding", P + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n'),
    ("coding and a comma", P + b"Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n"),
    ("coding with a letter more", P + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    ("8-bit coding", P + b"Transfer-Encoding: \x85chunked\r\n\r\n0\r\n\r\n"),
    ("bare CR before the end", H + b"X-A: 1\r\n\rX-B: 2\r\n\r\n"),
    ("CR in the request line", b"GET / HTTP/1.1\rX: y\r\nHost: h\r\n\r\n"),
    ("NUL in the request line", b"GET /\x00 HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("NUL in a name", H + b"X\x00A: 1\r\n\r\n"),
    ("LF before the request", b"\nGET / HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("fragment", b"GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("asterisk for GET", b"GET * HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("authority for GET", b"GET h:80 HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("absolute form without host", b"GET http:///a HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("absolute form with user", b"GET http://u@h/ HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("absolute form, no Host", b"GET http://h/ HTTP/1.1\r\n\r\n"),
    ("host with a bad port", b"GET / HTTP/1.1\r\nHost: h:99999\r\n\r\n"),
    ("host list", b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"),
    ("empty host", b"GET / HTTP/1.1\r\nHost:\r\n\r\n"),
    ("two hosts in 1.0", b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"),
    ("version 0.9", b"GET / HTTP/0.9\r\nHost: h\r\n\r\n"),
    ("version 1.2", b"GET / HTTP/1.2\r\nHost: h\r\n\r\n"),
    ("version 2.0", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("version 3", b"GET / HTTP/3\r\nHost: h\r\n\r\n"),
]
BODIES = [
    ("no size", CHUNKED + b"\r\nabc\r\n0\r\n\r\n"),
    ("size not hex", CHUNKED + b"g\r\nabc\r\n0\r\n\r\n"),
    ("size with 0x", CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n"),
    ("signed size", CHUNKED + b"+3\r\nabc\r\n0\r\n\r\n"),
    ("negative size", CHUNKED + b"-3\r\nabc\r\n0\r\n\r\n"),
    ("space before size", CHUNKED + b" 3\r\nabc\r\n0\r\n\r\n"),
    ("overflowing size", CHUNKED + b"10000000000000003\r\nabc\r\n0\r\n\r\n"),
    ("endless size", CHUNKED + b"0" * 10000 + b"3\r\nabc\r\n0\r\n\r\n"),
    ("data longer than its size", CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n"),
    ("bare LF after size", CHUNKED + b"3\nabc\r\n0\r\n\r\n"),
    ("bare LF after data", CHUNKED + b"3\r\nabc\n0\r\n\r\n"),
    ("CR in an extension", CHUNKED + b"3;a\rb\r\nabc\r\n0\r\n\r\n"),
    ("LF in an extension", CHUNKED + b"3;a\nb\r\nabc\r\n0\r\n\r\n"),
    ("endless extension", CHUNKED + b"3;" + b"x" * 20000 + b"\r\nabc\r\n0\r\n\r\n"),
    ("bad trailer", CHUNKED + b"0\r\nX A: 1\r\n\r\n"),
    ("CR in data's place of CRLF", CHUNKED + b"3\r\nabc\r0\r\n\r\n"),
    ("size of 17 digits", CHUNKED + b"0" * 16 + b"3\r\nabc\r\n0\r\n\r\n"),
    ("space after size", CHUNKED + b"3 \r\nabc\r\n0\r\n\r\n"),
    ("underscore in size", CHUNKED + b"0_3\r\nabc\r\n0\r\n\r\n"),
    ("NUL in an extension", CHUNKED + b"3;a=\x00\r\nabc\r\n0\r\n\r\n"),
    ("open quote in an extension", CHUNKED + b'3;a="b\r\nabc\r\n0\r\n\r\n'),
    ("trailer that frames", CHUNKED + b"0\r\nContent-Length: 3\r\n\r\n"),
    ("trailer that routes", CHUNKED + b"0\r\nHost: other\r\n\r\n"),
    ("trailer of a proxy", CHUNKED + b"0\r\nX_Forwarded_For: 1.1.1.1\r\n\r\n"),
    ("endless extensions", CHUNKED + (b"1;" + b"x" * 3000 + b"\r\na\r\n") * 50),
    ("folded trailer", CHUNKED + b"0\r\nX-A: 1\r\n folded\r\n\r\n"),
    ("endless trailer", CHUNKED + b"0\r\n" + b"X-A: 1\r\n" * 20000 + b"\r\n"),
]
SMUGGLED = request("/smuggled")


def rows(table):
    return [pytest.param(data, id=name.replace(" ", "-")) for name, data in table]


@pytest.fixture(scope="module")
def shop():
    """One proxy for all rows: that it serves the next row is a part of each test."""
    with HttpNode("a") as node, proxy(settings(node)) as p:
        yield p, node


@pytest.mark.parametrize("size", [0, 1], ids=["whole", "bytewise"])
@pytest.mark.parametrize("data", rows(HEADS))
def test_a_bad_head_is_refused_and_nothing_is_forwarded(shop, data, size):
    p, node = shop
    before = len(node.requests)
    with p.client() as client:
        send_if_open(client, data + SMUGGLED, size)
        answer = client.answer_then_closed()
    assert answer is not None
    assert answer.status in (400, 501, 505), answer.start
    assert p.get("/next").status == 200
    assert [m.target for m in node.requests[before:]] == [b"/next"]


@pytest.mark.parametrize("data", rows(BODIES))
def test_a_bad_body_never_completes_and_nothing_follows_it(shop, data):
    p, node = shop
    before = len(node.connections)
    with p.client() as client:
        send_if_open(client, data + SMUGGLED, 0)
        answer = client.answer_then_closed()
    assert answer is None or answer.status in (400, 413, 431), answer.start
    assert p.get("/next").status == 200
    targets = [m.target for c in node.connections[before:] for m in c.requests]
    assert b"/smuggled" not in targets
    for connection in node.connections[before:]:
        bad = [m for m in connection.requests if m.framing == "chunked"]
        assert not bad or not connection.received.endswith(b"0\r\n\r\n")


def send_if_open(client, data, size):
    step = size or len(data)
    for at in range(0, len(data), step):
        client.send_if_open(data[at : at + step])


def test_the_status_says_what_was_wrong(shop):
    p, _ = shop
    rows = [
        (501, P + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        (501, P + b"Transfer-Encoding: identity\r\n\r\n"),
        (505, b"GET / HTTP/2.0\r\nHost: h\r\n\r\n"),
        (505, b"GET / HTTP/1.2\r\nHost: h\r\n\r\n"),
        (400, P + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\n\r\n"),
    ]
    for status, data in rows:
        with p.client() as client:
            client.send(data)
            answer = client.answer_then_closed()
            assert answer is not None
            assert (answer.status, data) == (status, data)
            assert (answer.get("Connection") or b"").lower() == b"close"


def test_a_bad_request_does_not_disturb_the_answers_before_it(shop):
    p, _ = shop
    with p.client() as client:
        client.send(request("/1") + request("/2") + H + b"X A: 1\r\n\r\n" + SMUGGLED)
        assert [each.json()["target"] for each in client.responses(2)] == ["/1", "/2"]
        answer = client.answer_then_closed()
        assert answer is not None
        assert answer.status == 400


@pytest.mark.parametrize("data", rows(HEADS)[::5])
def test_a_bad_head_is_the_clients_affair_alone(data):
    """Nobody connects to the node for it, and no counter of the node knows of it."""
    with RawNode() as node, proxy(settings(node)) as p:
        for _ in range(3):
            with p.client() as client:
                client.send_if_open(data)
                answer = client.answer_then_closed()
                assert answer.status in (400, 501, 505)
        assert node.connections == []
        state = p.status()["pools"]["web"]["nodes"][0]
        assert state["state"] == "up"
        assert all(line["cause"].startswith("bad-request") for line in p.log(3))


def test_a_bad_body_is_the_clients_affair_alone():
    """The node saw a part of it, and lost its connection: it is no failure of the node."""
    with HttpNode("a") as node, proxy(settings(node)) as p:
        for data in (CHUNKED + b"5\r\nhello\r\nx", CHUNKED + b"0\r\nX A: 1\r\n\r\n"):
            with p.client() as client:
                client.send(data)
                assert client.answer_then_closed().status == 400
        assert [line["cause"] for line in p.log(2)] == ["bad-request-body"] * 2
        assert p.status()["pools"]["web"]["nodes"][0]["state"] == "up"
        assert p.get().status == 200


def test_an_upgrade_to_http_2_is_a_usual_request():
    """Through such a tunnel requests would go past routes and sessions."""
    fields = [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"),
              ("HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA")]  # fmt: skip
    with HttpNode("a") as node, proxy(settings(node)) as p:
        assert p.get("/", *fields).status == 200
    (seen,) = node.requests
    assert [seen.all(name) for name in ("Connection", "Upgrade", "HTTP2-Settings")] == [[], [], []]


@pytest.mark.parametrize(
    "body",
    [b"Content-Length: 2\r\n\r\nhi", b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"],
)
def test_an_upgrade_with_a_body_is_a_usual_request(body):
    """Some parsers take the body for the other protocol, and others for a body."""
    head = b"POST / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    with HttpNode("a") as node, proxy(settings(node)) as p, p.client() as client:
        client.send(head + body)
        assert client.response().json()["body"] == 2
    (seen,) = node.requests
    assert [seen.all(name) for name in ("Connection", "Upgrade")] == [[], []]


def test_an_upgrade_with_an_empty_body_is_one():
    head = b"POST / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    with HttpNode("a") as node, proxy(settings(node)) as p, p.client() as client:
        client.send(head + b"Content-Length: 0\r\n\r\n")
        assert client.response().status == 200
    assert node.requests[0].all("Upgrade") == [b"websocket"]


def test_each_refusal_is_logged_with_its_cause():
    with HttpNode("a") as a, proxy(settings(a)) as p:
        for data in (H + b"X A: 1\r\n\r\n", CHUNKED.replace(b"chunked", b"gzip")):
            with p.client() as client:
                client.send(data)
                client.answer_then_closed()
        first, second = p.log(2)
    assert (first["status"], second["status"]) == (400, 501)
    assert first["cause"]
    assert second["cause"]
    assert first["cause"] != second["cause"]
