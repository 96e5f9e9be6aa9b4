"""Accepting: the connection limit, running out of descriptors, and going on after both."""

import socket
import threading

import pytest

from fastlb import channel
from fastlb.channel import Kind, Message
from tests.harness import HttpNode, RawNode, reply, request, settings
from tests.harness.settings import ANY_PORT
from tests.harness.wait import until
from tests.harness.worker import WorkerProcess, no_descriptors, worker


def limited(node, most: int) -> dict:
    return settings(node, limits={"max_connections": most})


def test_connections_beyond_the_limit_wait() -> None:
    with HttpNode("a") as a, worker(limited(a, 2)) as w:
        with w.client() as one, w.client() as two, w.client() as three:
            assert one.ask().node == "a"
            assert two.ask().node == "a"
            three.send(request("/"))
            until(lambda: w.stats["accept_pauses"], "a pause")
            assert w.objects["clients"] == 2
            two.sock.close()
            assert three.response().node == "a"
            assert w.objects["clients"] == 2


def test_pause_ends_by_itself_and_is_counted_each_time() -> None:
    with HttpNode("a") as a, worker(limited(a, 1)) as w:
        for count in (1, 2):
            with w.client() as one, w.client() as two:
                one.ask()
                two.send(request("/"))
                until(lambda count=count: w.stats["accept_pauses"] >= count, "a pause")
                one.sock.close()
                assert two.response().node == "a"
            w.wait_objects(clients=0)


def test_paused_worker_does_not_spin() -> None:
    with HttpNode("a") as a, worker(limited(a, 1)) as w, w.client() as one, w.client() as two:
        one.ask()
        two.send(request("/"))
        until(lambda: w.stats["accept_pauses"], "a pause")
        turns = w.stats["turns"]
        for _ in range(20):
            one.ask()
        assert w.stats["turns"] < turns + 100
        assert w.stats["accept_pauses"] == 1


def test_listener_adopted_during_a_pause_waits_too() -> None:
    with HttpNode("a") as a, worker(limited(a, 1)) as w, w.client() as one:
        one.ask()
        with w.client() as two:
            two.send(request("/"))
            until(lambda: w.stats["accept_pauses"], "a pause")
            config = limited(a, 1)
            config["virtual_servers"]["shop"]["listen"] = [ANY_PORT, ANY_PORT]
            w.use(config)
            with socket.create_connection(w.address(index=1), 5) as three:
                assert w.objects["clients"] == 1
                one.sock.close()
                two.sock.close()
                three.sendall(request("/"))
                assert three.recv(100).startswith(b"HTTP/1.1 200")


def test_higher_limit_lets_the_waiting_in() -> None:
    with HttpNode("a") as a, worker(limited(a, 1)) as w, w.client() as one, w.client() as two:
        one.ask()
        two.send(request("/"))
        until(lambda: w.stats["accept_pauses"], "a pause")
        w.use(limited(a, 2))
        assert two.response().node == "a"


def test_out_of_descriptors_pauses_and_goes_on() -> None:
    with HttpNode("a") as a, worker(settings(a)) as w, w.client() as one:
        one.ask()
        with no_descriptors(w.pid):
            two = w.client()
            two.send(request("/"))
            until(lambda: w.stats["accept_pauses"], "a pause")
            assert one.ask().node == "a"  # the connections there are go on
        with two:
            assert two.response().node == "a"


def test_many_at_once_are_all_accepted() -> None:
    with HttpNode("a") as a, worker(settings(a)) as w:
        with w.frozen():
            clients = [w.client() for _ in range(200)]  # more than one turn takes
        w.wait_objects(clients=200)
        for client in (clients[0], clients[-1]):
            assert client.ask().node == "a"
        for client in clients:
            client.sock.close()
        w.wait_objects(clients=0)
        assert w.server_stats()["accepted"] == 200


def held(exchange) -> None:
    exchange.read_body()
    exchange.wait(exchange.node.go)
    exchange.send(reply(200, b"late"))


def stop(w: WorkerProcess) -> None:
    """And wait until it knows."""
    channel.send(w.channel, Message(Kind.STOP, 0, 30_000))
    channel.send(w.channel, Message(Kind.PING, 0, 7))
    while w.hear_any() != (Kind.PONG, 0, 7):
        pass


def test_at_a_stop_the_queued_are_served_no_faster_than_there_is_room() -> None:
    with RawNode(held) as a, worker(limited(a, 1)) as w, w.client() as one, w.client() as two:
        a.go = threading.Event()
        one.send(request("/"))
        a.wait_requests(1)
        two.send(request("/"))
        stop(w)
        assert w.objects["clients"] == 1
        a.go.set()
        assert one.response().body == b"late"
        assert two.response().body == b"late"
        two.expect_closed()
        assert w.wait_end() == 0


def test_at_a_stop_the_queued_outlast_a_lack_of_descriptors() -> None:
    with RawNode(held) as a, worker(settings(a)) as w, w.client() as one:
        a.go = threading.Event()
        one.send(request("/"))
        a.wait_requests(1)
        with no_descriptors(w.pid):
            two = w.client()
            two.send(request("/"))
            stop(w)
            until(lambda: w.stats["accept_pauses"], "a pause")
        with two:
            a.go.set()
            assert one.response().body == b"late"
            assert two.response().body == b"late"
        assert w.wait_end() == 0


def test_at_a_stop_many_queued_ones_are_all_served() -> None:
    with HttpNode("a") as a, worker(settings(a)) as w:
        with w.frozen():
            clients = [w.client() for _ in range(200)]  # more than one turn takes
            for client in clients:
                client.send(request("/"))
            channel.send(w.channel, Message(Kind.STOP, 0, 30_000))
        for client in clients:
            assert client.response().node == "a"
            client.sock.close()
        assert w.wait_end() == 0


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_kinds_of_listeners(kind: str, tmp_path) -> None:
    place = ANY_PORT if kind == "tcp" else f"unix:{tmp_path}/s"
    with HttpNode("a") as a, worker(settings(a, server={"listen": [place]})) as w:
        with w.client() as client:
            answer = client.ask()
            assert answer.node == "a"
        (message,) = a.wait_requests(1)
        assert message.get("X-Forwarded-For") == (b"127.0.0.1" if kind == "tcp" else None)
