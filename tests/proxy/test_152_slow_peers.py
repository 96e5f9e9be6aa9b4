"""Many clients that do next to nothing, and nodes that never come to an end. What each of them
may cost is bounded (docs/reliability.md), and the others go on meanwhile."""

import contextlib
import resource
import socket
import threading
import time

import pytest

from tests.harness import TIMEOUT, HttpNode, RawNode, proxy, reply, request, settings, until
from tests.harness.operator import pool_of, status_of

HALF = b"GET /slow HTTP/1.1\r\nHost: a\r\nX: "
SLOW_BYTES_MAX = 20 << 10  # a buffer of 16 KiB, and what describes the connection
IDLE_BYTES_MAX = 1 << 10
LONG = {"client_header": "60s", "keep_alive": "60s"}

COUNTS = [1000, pytest.param(10_000, marks=pytest.mark.deep)]


def figure(p, name):
    return sum(worker[name] for worker in status_of(p)["workers"])


@contextlib.contextmanager
def crowd(p, count, data):
    """So many connections, each of which has sent this and sends no more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 2 * count + 1000), hard))
    host, port = p.address()
    clients: list[socket.socket] = []
    try:
        for number in range(count):
            one = socket.socket()
            one.bind((f"127.0.{60 + number // 5000}.1", 0))  # ports are enough for each
            one.connect((host, port))
            clients.append(one)
            one.sendall(data)
        until(lambda: figure(p, "connections") >= count, "all to be accepted", 6 * TIMEOUT)
        yield clients
    finally:
        for one in clients:
            one.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("count", COUNTS)
def test_slow_clients_hinder_nobody_and_are_ended_by_their_time(count):
    with HttpNode("a") as a, proxy(settings(a, timeouts=LONG)) as p:
        p.get()
        before = p.resident_kib()
        with crowd(p, count, HALF) as clients:
            assert (p.resident_kib() - before) << 10 < count * SLOW_BYTES_MAX
            with p.client() as kept:
                assert [kept.ask().status for _ in range(50)] == [200] * 50
            assert [p.get().status for _ in range(20)] == [200] * 20
            for one in clients[:10]:
                one.sendall(b"x\r\n\r\n")
                assert one.recv(65536).startswith(b"HTTP/1.1 200")
        until(lambda: figure(p, "connections") == 0, "all to have gone", 6 * TIMEOUT)
        assert p.get().status == 200


def test_slow_clients_are_told_408_and_counted():
    with HttpNode("a") as a, proxy(settings(a, timeouts={"client_header": "1s"})) as p:
        with crowd(p, 200, HALF) as clients:
            ended = threading.Event()

            def drip():
                while not ended.wait(0.1):
                    for one in clients[:100]:
                        with contextlib.suppress(OSError):
                            one.send(b"x")

            dripping = threading.Thread(target=drip)  # bytes are no progress
            dripping.start()
            for one in clients[100:]:
                assert one.recv(65536).startswith(b"HTTP/1.1 408")
            until(lambda: status_of(p)["causes"].get("head-timeout") == 200, "all to be ended")
            ended.set()
            dripping.join()
        until(lambda: figure(p, "connections") == 0, "all to have gone")


@pytest.mark.parametrize("count", COUNTS)
def test_idle_clients_cost_next_to_nothing(count):
    with HttpNode("a") as a, proxy(settings(a, timeouts=LONG)) as p:
        p.get()
        before = p.resident_kib()
        with crowd(p, count, b"") as clients:
            each = ((p.resident_kib() - before) << 10) / count
            assert each < IDLE_BYTES_MAX
            assert [p.get().status for _ in range(20)] == [200] * 20
            clients[-1].sendall(request())
            assert clients[-1].recv(65536).startswith(b"HTTP/1.1 200")
        until(lambda: figure(p, "connections") == 0, "all to have gone", 6 * TIMEOUT)


# --- nodes ---


def never(exchange):
    exchange.wait_end()


def drips_its_head(exchange):
    exchange.send(b"HTTP/1.1 200 OK\r\nX: ")
    drip(exchange, b"x")


def drips_its_body(exchange):
    exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    drip(exchange, b"x")


def drip(exchange, piece):
    while exchange.connection.end is None:
        exchange.send(piece)
        time.sleep(0.05)


def endless(start, piece):
    def script(exchange):
        exchange.send(start)
        while True:
            exchange.send(piece)

    return script


ENDLESS = {
    "field": endless(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 1024),
    "fields": endless(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 100),
    "status line": endless(b"HTTP/1.1 200 ", b"x" * 1024),
}


@pytest.mark.parametrize("script", ENDLESS.values(), ids=ENDLESS)
def test_a_head_without_end_is_a_502(script):
    with RawNode(script) as node, proxy(settings(node)) as p:
        assert p.get().status == 502
        assert p.log(1)[0]["cause"].startswith("bad-response:")
        until(lambda: pool_of(p)[0]["connections"] == 0, "the node's connection to be closed")


def test_interim_responses_without_end_are_cut():
    with RawNode(endless(b"", b"HTTP/1.1 102 Processing\r\n\r\n")) as node:
        with proxy(settings(node)) as p, p.client() as client:
            client.send(request())
            got = client.reader.until(b"HTTP/1.1 502")
            assert 0 < got.count(b"HTTP/1.1 102") < 100
            assert p.log(1)[0]["cause"].startswith("bad-response")


def test_chunk_extensions_and_trailers_without_end_are_cut():
    coded = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    scripts = {
        "/extension": endless(coded + b"5;", b"x" * 1024),
        "/extensions": endless(coded, b"1;" + b"x" * 3000 + b"\r\ny\r\n"),
        "/trailers": endless(coded + b"0\r\n", b"X: y\r\n" * 100),
    }
    with RawNode(scripts) as node, proxy(settings(node)) as p:
        for target in scripts:
            with p.client() as client:
                client.send(request(target))
                with contextlib.suppress(ConnectionResetError):
                    client.reader.rest()
                got = client.reader.buffer
                assert len(got) < 200_000
                assert b"\r\n0\r\n" not in got or not got.endswith(b"\r\n\r\n")
            assert p.log_of(target)["cause"] == "bad-response-body"


def test_a_node_that_never_answers_is_given_up_in_time_and_its_clients_told():
    with RawNode(never) as node, proxy(settings(node, timeouts={"response": "500ms"})) as p:
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(p.client()) for _ in range(100)]
            for client in clients:
                client.send(request())
            assert [client.response().status for client in clients] == [504] * 100
        until(lambda: pool_of(p)[0]["connections"] == 0, "no connection to be left")
        assert status_of(p)["causes"]["node-timeout"] == 100


@pytest.mark.parametrize("script", [drips_its_head, drips_its_body])
def test_a_node_that_drips_goes_with_its_client(script):
    scripts = {"/drip": script, "*": reply(200)}
    with RawNode(scripts) as node, proxy(settings(node, timeouts={"response": "1s"})) as p:
        with contextlib.ExitStack() as stack:
            for _ in range(20):
                stack.enter_context(p.client()).send(request("/drip"))
            until(lambda: pool_of(p)[0]["connections"] == 20, "all to be there")
            assert [p.get().status for _ in range(20)] == [200] * 20
        until(lambda: pool_of(p)[0]["connections"] == 0, "they go with their clients")


def test_an_answer_without_end_costs_a_bounded_amount_of_memory():
    body = endless(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n", b"x" * 65536)
    scripts = {"/endless": body, "*": reply(200)}
    with RawNode(scripts) as node, proxy(settings(node)) as p:
        p.get()
        before = p.resident_kib()
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(p.client(receive_buffer=4096)) for _ in range(30)]
            for client in clients:
                client.send(request("/endless"))
            for client in clients[:5]:  # these read, the others do not
                client.reader.exactly(4 << 20)
            assert [p.get().status for _ in range(20)] == [200] * 20
            assert p.resident_kib() - before < 30 * 256
            for client in clients:
                client.reset()
        until(lambda: pool_of(p)[0]["connections"] == 0, "they go with their clients")


def test_clients_that_do_not_take_their_answer_are_cut_off():
    body = endless(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n", b"x" * 65536)
    with RawNode(body) as node, proxy(settings(node, timeouts={"client_body": "500ms"})) as p:
        with contextlib.ExitStack() as stack:
            for _ in range(5):
                stack.enter_context(p.client(receive_buffer=4096)).send(request())
            until(lambda: status_of(p)["causes"].get("client-stalled") == 5, "all to be cut off")
            until(lambda: pool_of(p)[0]["connections"] == 0, "no connection to be left")
