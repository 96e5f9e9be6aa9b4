"""One client connection carries many requests: in turn, pipelined, in any segmentation."""

import pytest

from tests.harness import HttpNode, RawNode, chunks, proxy, reply, request, settings


def test_many_requests_on_one_connection():
    with HttpNode("a") as a, proxy(settings(a)) as p, p.client() as client:
        targets = [client.ask(f"/{n}").json()["target"] for n in range(20)]
    assert targets == [f"/{n}" for n in range(20)]
    assert len(a.connections) == 1


def test_pipelined_requests_are_answered_in_order():
    with HttpNode("a") as a, HttpNode("b") as b, proxy(settings(a, b)) as p, p.client() as client:
        client.send(b"".join(request(f"/{n}") for n in range(30)))
        answers = client.responses(30)
    assert [answer.json()["target"] for answer in answers] == [f"/{n}" for n in range(30)]
    assert {answer.node for answer in answers} == {"a", "b"}


PIPELINE = (
    request("/first", ("Cookie", "x=1"))
    + request("/second", method="POST", body=b"body of the second")
    + b"POST /third HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    + chunks(b"some", b" more ", b"chunks", trailers=(("X-T", "1"),))
    + request("/fourth")
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16, 61, 1000])
def test_any_segmentation_gives_the_same_requests(size):
    with HttpNode("a") as a, proxy(settings(a)) as p, p.client() as client:
        client.drip(PIPELINE, size)
        answers = client.responses(4)
    seen = [(answer.json()["target"], answer.json()["body"]) for answer in answers]
    assert seen == [("/first", 0), ("/second", 18), ("/third", 16), ("/fourth", 0)]


@pytest.mark.parametrize("size", [1, 5, 33])
def test_a_response_in_small_segments_arrives_whole(size):
    body = b"0123456789" * 20
    data = reply(200, body, ("X-A", "b"))
    pieces = [data[at : at + size] for at in range(0, len(data), size)]

    with RawNode(lambda exchange: exchange.send(*pieces)) as node, proxy(settings(node)) as p:
        with p.client() as client:
            for _ in range(2):
                client.send(request())
                answer = client.response()
                assert answer.head + answer.body == data


def test_empty_lines_before_a_request_are_ignored():
    with HttpNode("a") as a, proxy(settings(a)) as p, p.client() as client:
        client.send(b"\r\n" + request("/1"), b"\r\n" + request("/2"))
        assert [each.json()["target"] for each in client.responses(2)] == ["/1", "/2"]


def test_connection_close_of_the_client_is_honoured():
    with HttpNode("a") as a, proxy(settings(a)) as p, p.client() as client:
        assert client.ask("/", ("Connection", "close")).get("Connection") == b"close"
        client.expect_closed()


def test_the_nodes_connection_close_does_not_close_the_clients():
    with RawNode(reply(200, b"x", ("Connection", "close"))) as node, proxy(settings(node)) as p:
        with p.client() as client:
            client.send(request("/1"))
            assert client.response().body == b"x"
            client.send(request("/2"))
            assert client.response().body == b"x"
    assert len(node.connections) == 2


def test_a_1_0_client_is_closed_after_the_answer():
    with HttpNode("a") as a, proxy(settings(a)) as p, p.client() as client:
        assert client.ask("/", version="1.0").node == "a"
        client.expect_closed()


def test_a_1_0_client_that_asks_for_keep_alive_keeps_its_connection():
    with HttpNode("a") as a, proxy(settings(a)) as p, p.client() as client:
        first = client.ask("/1", ("Connection", "keep-alive"), version="1.0")
        assert (first.get("Connection") or b"").lower() == b"keep-alive"
        assert client.ask("/2", version="1.0").node == "a"
        client.expect_closed()


def test_a_1_0_client_gets_a_chunked_answer_decoded():
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks(b"hello ", b"world")
    with RawNode(answer) as node, proxy(settings(node)) as p, p.client() as client:
        client.send(request("/", version="1.0"))
        got = client.response()
        client.expect_closed()
    assert got.get("Transfer-Encoding") is None
    assert got.body == b"hello world"


def test_a_1_0_node_that_closes_delimits_its_body_by_the_close():
    def old(exchange):
        exchange.send(b"HTTP/1.0 200 OK\r\nServer: old\r\n\r\n", b"until ", b"the end")
        exchange.close()

    with RawNode(old) as node, proxy(settings(node)) as p, p.client() as client:
        client.send(request())
        assert client.response().body == b"until the end"


def test_a_1_0_node_without_keep_alive_is_not_used_again():
    answer = b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"
    with RawNode(answer) as node, proxy(settings(node)) as p, p.client() as client:
        for _ in range(2):
            assert client.ask().body == b"ok"
    assert len(node.connections) == 2


def test_a_client_that_leaves_between_requests_is_no_error():
    with HttpNode("a") as a, proxy(settings(a)) as p:
        with p.client() as client:
            client.ask()
        with p.client():
            pass
        assert [line["status"] for line in p.log(1)] == [200]
        assert p.get().status == 200
