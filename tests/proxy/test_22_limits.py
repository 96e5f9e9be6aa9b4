"""Each configured limit has its status, and just below it everything still works."""

import pytest

from tests.harness import HttpNode, RawNode, Truncated, proxy, request, settings

LIMITS = {
    "request_line": "1KiB", "headers": "4KiB", "header_count": 20, "body": "10KiB", "field": "3KiB",
    "empty_lines": 2, "chunk_line": "64B", "trailers": "128B",
}  # fmt: skip
CHUNKED = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def shop():
    with HttpNode("a") as node, proxy(settings(node, limits=LIMITS)) as p:
        yield p, node


def ask(shop, data):
    p, node = shop
    before = len(node.requests)
    with p.client() as client:
        client.send_if_open(data)
        status = client.response().status
    return status, len(node.requests) - before


def test_a_long_request_line_is_414(shop):
    assert ask(shop, request("/" + "a" * 900)) == (200, 1)
    assert ask(shop, request("/" + "a" * 2000)) == (414, 0)


def test_an_endless_request_line_is_414_before_it_ends(shop):
    assert ask(shop, b"GET /" + b"a" * 100_000) == (414, 0)


def test_a_long_field_is_431(shop):
    assert ask(shop, request("/", ("X", "a" * 3000))) == (200, 1)
    assert ask(shop, request("/", ("X", "a" * 3072))) == (431, 0)
    assert ask(shop, request("/", ("X" * 3200, "a"))) == (431, 0)
    assert ask(shop, request("/", ("X", "a" * 6000))) == (431, 0)


def test_many_long_fields_are_431_before_the_head_ends(shop):
    assert ask(shop, request("/")[:-2] + b"X: 1234567890\r\n" * 10_000) == (431, 0)


def test_too_many_fields_are_431(shop):
    few = [("X", "1")] * 15
    many = [("X", "1")] * 40
    assert ask(shop, request("/", *few)) == (200, 1)
    assert ask(shop, request("/", *many)) == (431, 0)


def test_a_long_body_is_413_before_it_is_read(shop):
    assert ask(shop, request(method="POST", body=b"x" * 10_000)) == (200, 1)
    status, _ = ask(shop, request(method="POST", body=b"")[:-5] + b"99999999\r\n\r\n")
    assert status == 413


def test_a_long_chunked_body_is_413_or_cut():
    with HttpNode("a") as node, proxy(settings(node, limits=LIMITS)) as p, p.client() as client:
        client.send(b"POST /long HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(100):
            client.send_if_open(b"400\r\n" + b"x" * 1024 + b"\r\n")
        answer = client.answer_then_closed()
    assert answer is None or answer.status == 413
    assert all(len(m.body) <= 10 * 1024 for m in node.requests)


def test_many_empty_lines_before_a_request_are_400(shop):
    assert ask(shop, b"\r\n" * 1000 + request()) == (400, 0)
    assert ask(shop, b"\r\n" * 2 + request()) == (200, 1)
    assert ask(shop, b"\r\n" * 3 + request()) == (400, 0)


@pytest.mark.parametrize("size", [0, 1], ids=["whole", "bytewise"])
def test_chunk_lines_and_trailers_have_their_limits(shop, size):
    p, _ = shop
    rows = [
        (b"3;" + b"x" * 50 + b"\r\nabc\r\n0\r\n\r\n", 200),
        (b"3;" + b"x" * 70 + b"\r\nabc\r\n0\r\n\r\n", 400),
        (b"3\r\nabc\r\n0\r\nX: " + b"y" * 100 + b"\r\n\r\n", 200),
        (b"3\r\nabc\r\n0\r\nX: " + b"y" * 130 + b"\r\n\r\n", 400),
        (b"3\r\nabc\r\n0\r\n" + b"X: y\r\n" * 30 + b"\r\n", 400),
    ]
    for body, status in rows:
        with p.client() as client:
            for at in range(0, len(CHUNKED + body), size or 10_000):
                client.send_if_open((CHUNKED + body)[at : at + (size or 10_000)])
            answer = client.response()
            assert (answer.status, body) == (status, body)


OK = b"HTTP/1.1 200 OK\r\n"
ENDLESS = [
    ("field", OK + b"X: " + b"a" * 3200 + b"\r\nContent-Length: 0\r\n\r\n"),
    ("fields", OK + b"X: a\r\n" * 30 + b"Content-Length: 0\r\n\r\n"),
    ("head", OK + b"X: " + b"a" * 2000 + b"\r\n" + b"Y: " + b"a" * 100_000),
    ("status line", b"HTTP/1.1 200 " + b"a" * 2000 + b"\r\nContent-Length: 0\r\n\r\n"),
]


@pytest.mark.parametrize("data", [pytest.param(data, id=name) for name, data in ENDLESS])
def test_a_node_has_the_same_limits(data):
    scripts = {"/bad": lambda exchange: (exchange.send(data), exchange.wait_end())}
    with RawNode(scripts) as node, proxy(settings(node, limits=LIMITS)) as p:
        assert p.get("/bad").status == 502


@pytest.mark.parametrize("rest", [b"3;" + b"x" * 100, b"0\r\n" + b"X: y\r\n" * 30])
def test_chunk_lines_and_trailers_of_a_node_too(rest):
    def answer(exchange):
        exchange.send(OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", rest)
        exchange.wait_end()

    with RawNode(answer) as node, proxy(settings(node, limits=LIMITS)) as p, p.client() as client:
        client.send(request())
        with pytest.raises((Truncated, ConnectionResetError)):
            client.response()
        assert p.log(1)[0]["cause"] == "bad-response-body"


def test_empty_lines_behind_an_answer_are_no_request_that_did_not_come_in_time():
    """Some clients send a CRLF more after a body. It is no head that could be late."""
    timeouts = {"client_header": "200ms", "keep_alive": "400ms"}
    with HttpNode("a") as node, proxy(settings(node, timeouts=timeouts)) as p:
        with p.client() as client:
            client.send(request(method="POST", body=b"x") + b"\r\n")
            assert client.response().status == 200
            client.expect_closed()
        with p.client() as client:
            client.send(b"\r\nGET / HT")
            assert client.answer_then_closed().status == 408


def test_connections_beyond_max_connections_wait_or_are_refused_and_are_served_later():
    with HttpNode("a") as a, proxy(settings(a, limits={"max_connections": 4})) as p:
        clients = [p.client() for _ in range(4)]
        assert [client.ask().status for client in clients] == [200] * 4
        for client in clients:
            client.half_close()
            client.expect_closed()
            client.sock.close()
        assert p.get().status == 200
