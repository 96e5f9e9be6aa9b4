"""Each configured limit has its status, and just below it everything still works."""

import pytest

from tests.harness import HttpNode, proxy, request, settings

LIMITS = {"request_line": "1KiB", "headers": "4KiB", "header_count": 20, "body": "10KiB"}


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


def test_a_long_chunked_body_is_413_or_cut(shop):
    p, node = shop
    with p.client() as client:
        client.send(b"POST /long HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(100):
            client.send_if_open(b"400\r\n" + b"x" * 1024 + b"\r\n")
        answer = client.answer_then_closed()
    assert answer is None or answer.status == 413
    assert all(len(m.body) <= 10 * 1024 for m in node.requests)


def test_many_empty_lines_before_a_request_are_400(shop):
    assert ask(shop, b"\r\n" * 1000 + request()) == (400, 0)


def test_connections_beyond_max_connections_wait_or_are_refused_and_are_served_later():
    with HttpNode("a") as a, proxy(settings(a, limits={"max_connections": 4})) as p:
        clients = [p.client() for _ in range(4)]
        assert [client.ask().status for client in clients] == [200] * 4
        for client in clients:
            client.half_close()
            client.expect_closed()
            client.sock.close()
        assert p.get().status == 200
