"""The end of an exchange: what is counted, and what becomes of both connections."""

import contextlib

from tests.harness import RawNode, reply, request, settings
from tests.harness.worker import worker


def test_each_answer_is_counted_by_its_first_digit() -> None:
    statuses = iter([200, 204, 301, 404, 500, 200])

    def script(exchange):
        exchange.read_body()
        status = next(statuses)
        exchange.send(b"HTTP/1.1 204 No Content\r\n\r\n" if status == 204 else reply(status, b"x"))

    with RawNode(script) as a, worker(settings(a)) as w:
        for _ in range(6):
            w.ask()
        w.wait_objects(exchanges=0)
        counted = w.server_stats()
    assert counted["requests"] == 6
    assert counted["statuses"] == [0, 0, 3, 1, 1, 1]


def test_bytes_are_counted_with_their_heads() -> None:
    with RawNode(reply(200, b"y" * 1000)) as a, worker(settings(a)) as w:
        w.ask()
        w.wait_objects(exchanges=0)
        counted = w.server_stats()
    assert counted["bytes_out"] > 1000 > counted["bytes_in"] > len("GET / HTTP/1.1")


def test_a_kept_connection_stays_and_a_closed_one_goes() -> None:
    with RawNode(reply(200, b"ok")) as a, worker(settings(a)) as w:
        with w.client() as client:
            client.send(request("/"))
            assert client.response().status == 200
            w.wait_objects(exchanges=0, clients=1, node_connections=1)
            client.send(request("/", ("Connection", "close")))
            assert client.response().status == 200
            w.wait_objects(exchanges=0, clients=0, node_connections=1)


def test_a_client_that_leaves_takes_the_nodes_connection_with_it() -> None:
    def until_closed(exchange):
        with contextlib.suppress(OSError):
            exchange.connection.reader.rest()

    with RawNode(until_closed) as a, worker(settings(a)) as w:
        client = w.client()
        client.send(request("/"))
        a.wait_requests(1)
        client.reset()
        w.wait_objects(exchanges=0, clients=0, node_connections=0, buffers=0)
