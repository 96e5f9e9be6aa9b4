"""Responses that never have a body, whatever their fields say."""

import pytest

from tests.harness import HttpNode, RawNode, proxy, reply, request, settings


def test_an_answer_to_head_has_the_fields_and_no_body():
    with HttpNode("a") as a, proxy(settings(a)) as p, p.client() as client:
        answer = client.ask("/", method="HEAD")
        assert int(answer.get("Content-Length")) > 0
        assert client.ask("/next").json()["target"] == "/next"


def test_a_chunked_answer_to_head_has_no_body():
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    with RawNode([head, reply(200, b"x")]) as node, proxy(settings(node)) as p:
        with p.client() as client:
            assert client.ask("/", method="HEAD").status == 200
            assert client.ask("/").body == b"x"
    assert len(node.connections) == 1


def test_pipelined_head_and_get_keep_their_places():
    with HttpNode("a") as a, proxy(settings(a)) as p, p.client() as client:
        client.send(request("/1", method="HEAD") + request("/2") + request("/3", method="HEAD"))
        assert client.response(b"HEAD").body == b""
        assert client.response().json()["target"] == "/2"
        assert client.response(b"HEAD").status == 200


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\n\r\n',
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\n\r\n",
    ],
)
def test_204_and_304_end_with_their_head(head):
    with RawNode([head, reply(200, b"after")]) as node, proxy(settings(node)) as p:
        with p.client() as client:
            assert client.ask("/1").body == b""
            assert client.ask("/2").body == b"after"
    assert len(node.requests) == 2


def test_a_body_that_a_node_sends_with_204_never_becomes_the_next_answer():
    rude = reply(204, b"HTTP/1.1 200 Smuggled\r\nContent-Length: 0\r\n\r\n", length=False)
    with RawNode({"/rude": rude, "*": reply(200, b"good")}) as node, proxy(settings(node)) as p:
        with p.client() as client:
            assert client.ask("/rude").status in (204, 502)
        with p.client() as client:
            assert client.ask("/").body == b"good"
