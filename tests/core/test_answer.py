"""The node's answer on its way: its head in any pieces, interim heads, and heads that are none."""

import pytest

from tests.harness import RawNode, reply, request, settings
from tests.harness.node import Exchange
from tests.harness.worker import worker

WHOLE = reply(200, b"the body", ("X-One", "1"), ("X-Two", "2"))


def in_pieces(*cuts: int):
    def script(exchange: Exchange) -> None:
        exchange.read_body()
        start = 0
        for cut in [*cuts, len(WHOLE)]:
            exchange.send(WHOLE[start:cut])
            start = cut

    return script


@pytest.mark.parametrize("cut", range(1, len(WHOLE), 3))
def test_a_head_cut_anywhere_is_one_head(cut: int) -> None:
    with RawNode(in_pieces(cut)) as a, worker(settings(a)) as w:
        answer = w.ask()
        assert (answer.status, answer.body) == (200, b"the body")
        assert answer.all("X-Two") == [b"2"]
        w.wait_objects(exchanges=0, buffers=0)


def test_interim_answers_come_first_and_end_nothing() -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"
    with RawNode(interim * 3 + WHOLE) as a, worker(settings(a)) as w, w.client() as client:
        client.send(request("/"))
        assert client.response().status == 200
        w.wait_objects(exchanges=0, buffers=0, node_connections=1)


def test_endless_interim_answers_are_a_bad_response() -> None:
    endless = b"HTTP/1.1 102 Processing\r\n\r\n" * 100
    with RawNode(endless) as a, worker(settings(a)) as w, w.client() as client:
        client.send(request("/"))
        assert client.response().status == 502
        w.wait_objects(exchanges=0, buffers=0, node_connections=0)


@pytest.mark.parametrize(
    "wrong",
    [
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nBad Name: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ],
)
def test_what_is_no_head_is_502_and_costs_the_connection(wrong: bytes) -> None:
    with RawNode(wrong) as a, worker(settings(a)) as w:
        assert w.ask().status == 502
        w.wait_objects(exchanges=0, buffers=0, node_connections=0)
