"""How either side may end: half-close, abort, a node that dies in the middle of its answer."""

import fcntl
import socket
import struct
import termios
import threading

import pytest

from tests.harness import (
    Closed,
    HttpNode,
    RawNode,
    Truncated,
    chunks,
    proxy,
    reply,
    request,
    until,
)
from tests.harness import settings as plain
from tests.harness.wire import frame_of, read_body, read_head


def test_a_client_that_shuts_down_its_sending_gets_its_answer():
    go = threading.Event()

    def slow(exchange):
        exchange.wait(go)
        exchange.send(reply(200, b"here you are"))

    with RawNode(slow) as node, proxy(plain(node)) as p, p.client() as client:
        client.send(request())
        client.half_close()
        node.wait_requests(1)
        go.set()
        assert client.response().body == b"here you are"
        client.expect_closed()


def test_a_half_closed_client_gets_the_answers_of_all_its_pipelined_requests():
    with HttpNode("a") as a, proxy(plain(a)) as p, p.client() as client:
        client.send(request("/1") + request("/2") + request("/3"))
        client.half_close()
        assert [each.json()["target"] for each in client.responses(3)] == ["/1", "/2", "/3"]
        client.expect_closed()


def test_a_half_close_in_the_middle_of_a_body_is_no_complete_request():
    with HttpNode("a") as a, proxy(plain(a)) as p, p.client() as client:
        client.send(request(method="POST", body=b"12345")[:-2])
        client.half_close()
        answer = client.answer_then_closed()
        assert answer is None or answer.status == 400
    assert all(len(message.body) < 5 for message in a.requests)


def test_a_client_that_aborts_while_waiting_frees_its_node_connection():
    with RawNode(lambda exchange: exchange.wait_end()) as node, proxy(plain(node)) as p:
        client = p.client()
        client.send(request())
        node.wait_requests(1)
        client.reset()
        assert node.connections[0].ended.wait(10), "the node's side is still open"
        (line,) = p.log(1)
        assert "client" in line["cause"]


def test_a_client_that_aborts_during_the_answer_frees_its_node_connection():
    def endless(exchange):
        exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            exchange.send(b"400\r\n" + b"x" * 1024 + b"\r\n")

    with RawNode({"/endless": endless, "*": reply(200)}) as node, proxy(plain(node)) as p:
        client = p.client()
        client.send(request("/endless"))
        client.reader.exactly(100_000)
        client.reset()
        assert node.connections[0].ended.wait(10), "the node's side is still open"
        assert p.get().status == 200


def test_a_client_that_aborts_its_upload_ends_it_at_the_node_too():
    def read_all(exchange):
        exchange.read_body()
        exchange.send(reply(200))

    with RawNode(read_all) as node, proxy(plain(node)) as p:
        client = p.client()
        client.send(request(method="POST", body=b"x" * 100_000)[:-50_000])
        node.wait_requests(1)
        client.reset()
        assert node.connections[0].ended.wait(10)
        assert len(node.connections[0].requests) == 1


def truncations():
    half = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345"
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    yield "length", half, b"12345"
    yield "after-a-chunk", chunked + b"5\r\nabcde\r\n", b"abcde"
    yield "within-a-chunk", chunked + b"5\r\nabc", b"abc"
    yield "before-the-trailer's-end", chunked + b"5\r\nabcde\r\n0\r\n", b"abcde"


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize(("data", "body"), [pytest.param(d, b, id=n) for n, d, b in truncations()])
def test_a_truncated_answer_never_looks_complete(data, body, how):
    def answer(exchange):
        exchange.send(data)
        client_has_it.wait(10)
        getattr(exchange, how)()

    client_has_it = threading.Event()
    with RawNode(answer) as node, proxy(plain(node)) as p, p.client() as client:
        client.send(request())
        message = read_head(client.reader)
        message.framing = frame_of(message, "close")
        client_has_it.set()
        with pytest.raises((Truncated, ConnectionResetError)) as ending:
            read_body(client.reader, message)
        if isinstance(ending.value, Truncated):
            assert ending.value.got == body
        (line,) = p.log(1)
        assert line["cause"]


def test_a_1_0_client_of_a_truncated_chunked_answer_is_reset_or_cut():
    def answer(exchange):
        exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n")
        sent.wait(10)
        exchange.close()

    sent = threading.Event()
    with RawNode(answer) as node, proxy(plain(node)) as p, p.client() as client:
        client.send(request(version="1.0"))
        client.reader.until(b"abcde")
        sent.set()
        with pytest.raises(ConnectionResetError):
            client.reader.rest()


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_node_that_ends_before_any_answer_is_a_502(how):
    with RawNode(lambda exchange: getattr(exchange, how)()) as node:
        with proxy(plain(node, pool={"retries": 0})) as p, p.client() as client:
            client.send(request(method="POST", body=b"x"))
            assert client.response().status == 502
            (line,) = p.log(1)
            assert (line["status"], bool(line["cause"])) == (502, True)


def test_a_node_that_ends_within_its_head_is_a_502():
    def half(exchange):
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Le")
        exchange.close()

    with RawNode(half) as node, proxy(plain(node, pool={"retries": 0})) as p:
        with p.client() as client:
            client.send(request(method="POST", body=b"x"))
            assert client.response().status == 502


BLOB = bytes(range(256)) * 400
LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n"
BROKEN = [
    ("length", LENGTH, "1.1", "close reset stall"),
    ("length-1.0", LENGTH, "1.0", "close reset stall"),
    ("chunked", CHUNKED, "1.1", "close reset stall"),
    ("decoded", CHUNKED, "1.0", "close reset stall"),
    ("until-close", b"HTTP/1.1 200 OK\r\n\r\n", "1.1", "reset stall"),
]


def arrived(sock):
    """The peer has acknowledged all that was sent."""
    return struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0] == 0


@pytest.mark.parametrize(("start", "version", "how"), [
    pytest.param(start, version, how, id=f"{name}-{how}")
    for name, start, version, hows in BROKEN for how in hows.split()
])  # fmt: skip
def test_every_byte_that_a_node_sent_of_a_broken_answer_arrives(start, version, how):
    """Also at a client that reads only when the node has gone already. Where nothing but the
    connection's end could tell it that the answer is not whole, that end is a reset."""

    def answer(exchange):
        exchange.send(start, BLOB)
        until(lambda: arrived(exchange.connection.sock), "all bytes at the proxy")
        if how == "stall":
            exchange.wait_end()
        else:
            getattr(exchange, how)()
        gone.set()

    gone = threading.Event()
    timeouts = {"response": "300ms" if how == "stall" else "10s"}
    with RawNode(answer) as node, proxy(plain(node, timeouts=timeouts)) as p:
        with p.client(receive_buffer=4096) as client:
            client.send(request(version=version))
            if how != "stall":
                assert gone.wait(10)
            try:
                reset = not client.reader.rest()
            except ConnectionResetError:
                reset = True
        assert client.reader.received.endswith(BLOB)
        assert reset or start == LENGTH or (start, version) == (CHUNKED, "1.1")
        assert p.log(1)[0]["cause"] == ("node-timeout" if how == "stall" else "node-closed")


def test_what_came_before_a_wrong_chunk_arrives_at_a_slow_client():
    def answer(exchange):
        good = b"%x\r\n%s\r\n" % (len(BLOB), BLOB)
        exchange.send(CHUNKED.removesuffix(b"fffffff\r\n"), good, b"wrong\r\n")
        exchange.wait_end()

    with RawNode(answer) as node, proxy(plain(node)) as p:
        with p.client(receive_buffer=4096) as client:
            client.send(request())
            message = read_head(client.reader)
            message.framing = "chunked"
            with pytest.raises((Truncated, ConnectionResetError)):
                read_body(client.reader, message)
        assert BLOB in client.reader.received
        assert p.log(1)[0]["cause"] == "bad-response-body"


def test_pipelined_requests_after_a_failed_answer_are_not_answered_from_its_rest():
    scripts = {
        "/bad": lambda e: (e.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"), e.close()),
        "*": reply(200, b"good"),
    }
    with RawNode(scripts) as node, proxy(plain(node)) as p, p.client() as client:
        client.send(request("/bad") + request("/good"))
        with pytest.raises((Truncated, ConnectionResetError, Closed)):
            client.responses(2)


def test_chunked_upload_that_the_client_cuts_is_no_complete_request():
    with HttpNode("a") as a, proxy(plain(a)) as p:
        with p.client() as client:
            client.send(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
            client.send(chunks(b"hello")[:-5])
            client.sock.shutdown(socket.SHUT_WR)
            answer = client.answer_then_closed()
            assert answer is None or answer.status == 400
        assert p.get().status == 200
    assert all(m.method == b"GET" or m.body in (b"", b"hello") for m in a.requests)
