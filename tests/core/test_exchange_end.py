"""The end of an exchange: what is counted, and what becomes of both connections."""

import contextlib
import socket

import pytest

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


# --- new sessions given to a node ---

SID = ("Cookie", "SID=abc")
GRANT = (("Set-Cookie", "SID=new"),)
BY_SID = {"type": "universal", "key": "cookie:SID"}
BY_APP = {"type": "cookie", "cookie": "SID"}


@pytest.mark.parametrize(
    ("cls", "fallback", "fields", "answer", "given"),
    [
        ({"type": "ip"}, None, (), (), 1),  # the second request is known
        (BY_SID, None, (SID,), (), 1),
        (BY_SID, None, (), (), 0),  # no key: nothing will know it again
        (BY_SID, None, (), GRANT, 0),
        ({**BY_SID, "learn": "cookie:SID"}, None, (), GRANT, 2),  # a session for each answer
        ({**BY_SID, "learn": "cookie:SID"}, None, (), (), 0),
        (BY_SID, {"type": "ip"}, (), (), 1),  # no key here, and a map there
        (BY_SID, {"type": "transparent", "reserve": "0s"}, (), (), 2),
        (BY_SID, {"type": "hash", "on": "header:X-None"}, (), (), 0),
        ({"type": "j2ee", "cookie": "SID"}, None, (), GRANT, 2),
        (BY_APP, None, (), (), 0),
        (BY_APP, None, (), GRANT, 1),  # the second one joined its reservation
        ({**BY_APP, "reserve": "0s"}, None, (), GRANT, 2),
        ({**BY_APP, "reserve": "0s"}, None, (SID,), (), 2),
        ({"type": "transparent"}, None, (), (), 1),
        ({"type": "x-zeus"}, None, (), (), 0),
    ],
)
def test_a_new_session_is_one_that_can_come_back(cls, fallback, fields, answer, given) -> None:
    classes = {"behind": fallback} if fallback else {}
    persistence = {**cls, "fallback": "behind"} if fallback else cls
    with (
        RawNode(reply(200, b"x", *answer)) as a,
        worker(settings(a, persistence=persistence, classes=classes)) as w,
    ):
        for _ in range(2):
            assert w.ask("/", *fields).status == 200
        w.wait_objects(exchanges=0)
        assert w.node_stats()["sessions"] == given


def test_an_upgrade_may_begin_a_session() -> None:
    def upgrade(exchange):
        exchange.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n")
        exchange.send(b"Upgrade: x\r\n\r\n")

    with RawNode(upgrade) as a, worker(settings(a, persistence={"type": "ip"})) as w:
        assert w.ask("/", ("Connection", "upgrade"), ("Upgrade", "x")).status == 101
        w.wait_objects(exchanges=0)
        assert w.node_stats()["sessions"] == 1


def test_a_node_that_gave_no_answer_was_given_no_session() -> None:
    with RawNode(b"nonsense\r\n\r\n") as a:
        with worker(settings(a, persistence={"type": "transparent"})) as w:
            assert w.ask().status == 502
            w.wait_objects(exchanges=0)
            assert (w.node_stats()["sessions"], w.node_stats()["requests"]) == (0, 1)


def test_nobody_is_given_a_session_that_no_node_can_be_connected_for() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        node = f"127.0.0.1:{deaf.getsockname()[1]}"
        with worker(settings(node, persistence={"type": "ip"})) as w:
            assert w.ask().status == 503
            w.wait_objects(exchanges=0)
            counted = w.node_stats()
    assert (counted["sessions"], counted["connect_failures"]) == (0, 1)


def test_a_session_that_fails_over_is_new_to_its_next_node() -> None:
    with RawNode(reply(200, b"x")) as a, RawNode(reply(200, b"x")) as b:
        with worker(settings(a, b, persistence={"type": "ip"}, pool={"retries": 1})) as w:
            w.ask()
            first = 0 if w.node_stats(0)["requests"] else 1
            (a, b)[first].stop()
            assert w.ask().status == 200
            w.wait_objects(exchanges=0)
            assert [w.node_stats(slot)["sessions"] for slot in (0, 1)] == [1, 1]
