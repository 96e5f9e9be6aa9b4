"""Every time-out ends in the right status or a close, and is named in the log."""

import contextlib
import socket
import threading

from tests.harness import HttpNode, RawNode, Truncated, proxy, reply, request, settings

SHORT = {
    "client_header": "300ms",
    "client_body": "300ms",
    "keep_alive": "300ms",
    "connect": "300ms",
    "response": "300ms",
}


def test_a_head_that_does_not_come_in_time_is_408():
    with HttpNode("a") as a, proxy(settings(a, timeouts=SHORT)) as p, p.client() as client:
        client.send(b"GET / HTTP/1.1\r\nHost")
        answer = client.answer_then_closed()
        assert answer is not None
        assert answer.status == 408
        assert p.log(1)[0]["cause"]
    assert a.requests == []


def test_a_head_that_drips_is_408_all_the_same():
    with HttpNode("a") as a, proxy(settings(a, timeouts=SHORT)) as p, p.client() as client:
        stop = threading.Event()

        def drip():
            while not stop.wait(0.05):
                client.send_if_open(b"X-A: 1\r\n")

        client.send(b"GET / HTTP/1.1\r\nHost: h\r\n")
        dripper = threading.Thread(target=drip)
        dripper.start()
        try:
            assert client.response().status == 408
        finally:
            stop.set()
            dripper.join()


def test_a_connection_that_sends_nothing_is_closed_without_a_word():
    with HttpNode("a") as a, proxy(settings(a, timeouts=SHORT)) as p, p.client() as client:
        client.expect_closed()


def test_an_idle_keep_alive_connection_is_closed_without_a_word():
    with HttpNode("a") as a, proxy(settings(a, timeouts=SHORT)) as p, p.client() as client:
        assert client.ask().status == 200
        client.expect_closed()


def test_a_body_that_stops_is_408():
    with HttpNode("a") as a, proxy(settings(a, timeouts=SHORT)) as p, p.client() as client:
        client.send(request(method="POST", body=b"12345")[:-1])
        answer = client.answer_then_closed()
        assert answer is not None
        assert answer.status == 408


def test_a_body_that_goes_on_slowly_is_not_timed_out():
    with HttpNode("a") as a, proxy(settings(a, timeouts=SHORT)) as p, p.client() as client:
        client.send(request(method="POST", body=b"x" * 10)[:-10])
        for _ in range(10):
            assert not threading.Event().wait(0.1)
            client.send(b"x")
        assert client.response().json()["body"] == 10


def test_a_node_that_never_answers_is_504():
    with RawNode(lambda exchange: exchange.wait_end()) as node:
        config = settings(node, timeouts=SHORT, pool={"retries": 0})
        with proxy(config) as p:
            assert p.get().status == 504
            assert p.log(1)[0]["cause"]
            assert node.connections[0].ended.wait(10)


def test_a_node_that_stops_in_its_answer_is_cut():
    def half(exchange):
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
        exchange.wait_end()

    with RawNode(half) as node, proxy(settings(node, timeouts=SHORT)) as p, p.client() as client:
        client.send(request())
        try:
            answer = client.response()
        except (Truncated, ConnectionResetError) as end:
            answer = end
        assert isinstance(answer, Exception), "the half answer looks complete"
        assert p.log(1)[0]["cause"]


def test_a_slow_answer_with_progress_is_not_timed_out():
    def slow(exchange):
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
        for _ in range(10):
            assert not threading.Event().wait(0.1)
            exchange.send(b"x")

    with RawNode(slow) as node, proxy(settings(node, timeouts=SHORT)) as p:
        assert p.get().body == b"x" * 10


def test_a_node_that_does_not_accept_is_504():
    """A listener whose queue is full drops the handshake: connect neither succeeds nor fails."""
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        address = f"127.0.0.1:{full.getsockname()[1]}"
        with proxy(settings(address, timeouts=SHORT, pool={"retries": 0})) as p:
            assert p.get().status in (503, 504)
            assert p.log(1)[0]["cause"]


def test_the_time_to_answer_does_not_count_the_time_to_upload():
    with RawNode({"*": reply(200, b"ok")}) as node, proxy(settings(node, timeouts=SHORT)) as p:
        with p.client() as client:
            client.send(request(method="POST", body=b"x" * 8)[:-8])
            for _ in range(8):
                assert not threading.Event().wait(0.1)
                client.send(b"x")
            assert client.response().body == b"ok"
