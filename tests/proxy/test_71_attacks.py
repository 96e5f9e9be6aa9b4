"""Peers that misbehave at the worst moment. Where the order of two events decides, the worker is
stopped (SIGSTOP) until both are in its sockets."""

import contextlib
import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.harness import (
    TIMEOUT,
    Client,
    HttpNode,
    Message,
    Proxy,
    RawNode,
    Truncated,
    chunks,
    proxy,
    reply,
    request,
    settings,
    until,
)

FORGED = reply(200, b"forged")


@contextlib.contextmanager
def stopped(p: Proxy) -> Iterator[int]:
    """The worker does nothing meanwhile; what happens to its sockets it sees in one turn."""
    (pid,) = p.worker_pids()
    os.kill(pid, signal.SIGSTOP)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("count", [20_000, 100_000, 300_000, 2_000_000])
def test_bytes_after_a_content_length_are_nobodys_answer(count):
    body = b"x" * count

    def too_much(exchange):
        exchange.send(reply(200, body) + FORGED * 3)

    scripts = {"/too-much": too_much, "*": reply(200, b"honest")}
    with RawNode(scripts) as node, proxy(settings(node)) as p:
        with p.client() as first, p.client() as second:
            for _ in range(5):
                assert first.ask("/too-much").body == body
                assert second.ask("/").body == b"honest"
                assert first.ask("/").body == b"honest"


def test_a_reset_that_a_write_meets_first_is_no_end_of_a_response():
    go = threading.Event()

    def cut_off(exchange):
        exchange.send(b"HTTP/1.1 200 OK\r\n\r\nthe first half")
        exchange.wait(go)
        exchange.reset()

    with RawNode(cut_off) as node, proxy(settings(node)) as p, p.client() as client:
        client.send(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert client.reader.until(b"the first half")
        with stopped(p):
            client.send(b"5\r\nhello\r\n")
            go.set()
            assert node.connections[0].ended.wait(TIMEOUT)
        with pytest.raises(ConnectionResetError):
            client.reader.rest()


def test_an_answer_before_a_reset_is_found_by_the_write_that_fails():
    go = threading.Event()

    def go_away(exchange):
        exchange.wait(go)
        exchange.send(reply(413, b"go away"))
        exchange.reset()

    with RawNode(go_away) as node, proxy(settings(node)) as p, p.client() as client:
        client.send(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        node.wait_requests(1)
        with stopped(p):
            client.send(b"5\r\nhello\r\n")
            go.set()
            assert node.connections[0].ended.wait(TIMEOUT)
        answer = client.response()
        assert (answer.status, answer.body) == (413, b"go away")


@pytest.mark.parametrize("last", ["final", "bad", "tunnel"])
def test_a_client_that_does_not_read_interim_responses_holds_the_node_up(last):
    hint = b"HTTP/1.1 103 Early Hints\r\nLink: <" + b"x" * 30_000 + b">\r\n\r\n"
    upgraded = b"HTTP/1.1 101 Fine\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhello"
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    bad = chunked + b"no chunk\r\n" + chunks(b"nor is this a body")
    ends = {"/final": reply(200, b"whole"), "/bad": bad, "/tunnel": upgraded}

    def hints(exchange):
        for _ in range(30):
            exchange.send(hint)
        exchange.send(ends[exchange.request.target.decode()])

    upgrade = [("Connection", "Upgrade"), ("Upgrade", "echo")] if last == "tunnel" else []
    with RawNode(hints) as node, proxy(settings(node)) as p:
        with p.client(receive_buffer=4096) as client:
            client.send(request("/final") * 9, request(f"/{last}", *upgrade))
            until(lambda: stands_still(node), "the node waits")
            assert len(node.requests) < 10
            if last == "bad":
                # Its end may also destroy answers before it that are still on their way.
                with pytest.raises((Truncated, ConnectionResetError)):
                    client.responses(10)
                return
            for _ in range(9):
                whole_with_hints(client.response(), hint)
            if last == "tunnel":
                assert client.response().status == 101
                assert client.reader.exactly(5) == b"hello"
            else:
                whole_with_hints(client.response(), hint)


def whole_with_hints(answer: Message, hint: bytes) -> None:
    assert [len(each.head) for each in answer.interim] == [len(hint)] * 30
    assert (answer.status, answer.body) == (200, b"whole")


def stands_still(node: RawNode) -> bool:
    """No further request reaches the node for a while."""
    seen = len(node.requests)
    for _ in range(30):
        time.sleep(0.01)
        if len(node.requests) != seen:
            return False
    return seen > 0


def test_what_came_through_a_tunnel_before_a_reset_is_passed_on():
    go = threading.Event()

    def farewell(exchange):
        exchange.send(b"HTTP/1.1 101 Fine\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
        exchange.wait(go)
        exchange.send(b"farewell")
        exchange.reset()

    upgrade = [("Connection", "Upgrade"), ("Upgrade", "echo")]
    with RawNode(farewell) as node, proxy(settings(node)) as p, p.client() as client:
        assert client.ask("/", *upgrade).status == 101
        with stopped(p):
            client.send(b"are you there?")
            go.set()
            assert node.connections[0].ended.wait(TIMEOUT)
        assert client.reader.exactly(8) == b"farewell"
        with pytest.raises(ConnectionResetError):
            client.reader.rest()


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_refused_upload_is_thrown_away_until_the_client_reads_why(kind, tmp_path):
    path = str(tmp_path / "shop.sock")
    server = {"listen": ["127.0.0.1:0", f"unix:{path}"]}
    with HttpNode("a") as a, proxy(settings(a, server=server, limits={"body": "1KiB"})) as p:
        with Client(p.address() if kind == "tcp" else path) as client:
            client.send(request(method="POST", body=b"x" * 5_000_000))
            assert client.response().status == 413
            client.expect_closed()


def test_a_next_request_does_not_destroy_a_body_that_ends_with_the_connection():
    go = threading.Event()

    def until_close(exchange):
        exchange.send(b"HTTP/1.1 200 OK\r\n\r\nhalf of it, ")
        exchange.wait(go)
        exchange.send(b"and the rest")
        exchange.close()

    with RawNode(until_close) as node, proxy(settings(node)) as p, p.client() as client:
        client.send(request())
        client.reader.until(b"half of it, ")
        with stopped(p):
            go.set()
            assert node.connections[0].ended.wait(TIMEOUT)
            client.send(request("/next"))
        assert client.reader.rest() == b"and the rest"


def test_a_storm_of_resets_leaves_nothing_behind():
    def slow(exchange):
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n" + b"x" * 100_000)
        exchange.wait_end()

    upload = request("/slow", method="POST", body=b"x" * 200_000)
    storms = [b"", b"G", request("/slow"), request("/slow") * 3, upload, upload[:-50_000]]
    with RawNode({"/slow": slow, "*": reply(200)}) as node, proxy(settings(node)) as p:
        for number in range(300):
            client = p.client()
            client.sock.settimeout(0.01)
            with contextlib.suppress(OSError):
                client.sock.sendall(storms[number % len(storms)])
            client.reset()
        assert p.get().status == 200
        until(lambda: p.status()["workers"][0]["connections"] == 0, "all have gone")
        (load,) = p.status()["pools"]["web"]["nodes"]
        assert load["connections"] == 0


def test_a_thousand_idle_connections_hinder_neither_requests_nor_a_stop():
    with HttpNode("a") as a, proxy(settings(a, timeouts={"drain": "20s"})) as p:
        with contextlib.ExitStack() as stack:
            idle = [stack.enter_context(p.client()) for _ in range(1000)]
            for client in idle[::10]:
                assert client.ask().status == 200
            assert p.get().status == 200
            begun = time.monotonic()
            p.process.send_signal(signal.SIGTERM)
            for client in idle:
                client.expect_closed()
            assert p.process.wait(TIMEOUT) == 0
            assert time.monotonic() - begun < 10


def test_an_interim_response_is_progress():
    def working(exchange):
        for _ in range(3):
            time.sleep(0.6)
            exchange.send(b"HTTP/1.1 102 Processing\r\n\r\n")
        exchange.send(reply(200, b"done"))

    with RawNode(working) as node, proxy(settings(node, timeouts={"response": "1s"})) as p:
        assert p.get().body == b"done"


def test_requests_that_have_arrived_when_a_stop_begins_are_answered():
    with HttpNode("a") as a, proxy(settings(a)) as p:
        with p.client() as old, p.client() as silent:
            assert old.ask("/before").status == 200
            with stopped(p) as pid, p.client() as queued:
                old.send(request("/old"))
                queued.send(request("/queued"))
                p.process.send_signal(signal.SIGTERM)
                until(lambda: "stopping" in p.stderr(), "the stop begins")
                os.kill(pid, signal.SIGCONT)
                assert queued.response().json()["target"] == "/queued"
                assert old.response().json()["target"] == "/old"
                queued.expect_closed()
                old.expect_closed()
            silent.expect_closed()
        p.process.wait(TIMEOUT)


def test_a_client_that_stalls_in_its_body_is_cut_off_although_the_node_goes_on():
    dripped = []

    def drip(exchange):
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while len(dripped) < 100:
            time.sleep(0.1)
            exchange.send(b"x")
            dripped.append(1)

    limits = {"client_body": "1s"}
    with RawNode(drip) as node, proxy(settings(node, timeouts=limits)) as p, p.client() as client:
        client.send(request(method="POST", body=b"12345")[:-1])
        with pytest.raises((Truncated, ConnectionResetError)):
            client.response()
    assert len(dripped) < 60


@pytest.mark.parametrize("count", [50_000, 300_000, 700_000, 1_500_000, 3_000_000])
def test_a_connection_that_is_not_said_to_close_takes_another_request(count):
    """The node answers without reading the body."""
    go = threading.Event()

    def early(exchange):
        exchange.send(reply(200, b"early"))
        exchange.wait(go)

    with RawNode({"/early": early, "*": reply(200, b"next")}) as node, proxy(settings(node)) as p:
        with p.client() as client:
            message = request("/early", method="POST", body=b"x" * count)
            sent = send_for_a_second(client, message)
            answer = client.response()
            go.set()
            assert answer.body == b"early"
            if answer.get("Connection") != b"close":
                assert sent == len(message)
                assert client.ask("/next").body == b"next"


def send_for_a_second(client: Client, message: bytes) -> int:
    """As much as is taken in that time."""
    sent = 0
    deadline = time.monotonic() + 1
    client.sock.setblocking(False)
    while sent < len(message) and time.monotonic() < deadline:
        with contextlib.suppress(BlockingIOError):
            sent += client.sock.send(message[sent : sent + 65536])
    client.sock.settimeout(TIMEOUT)
    return sent


def test_a_pause_in_a_large_body_does_not_hold_back_what_came_before_it():
    go = threading.Event()
    waits = []

    def halting(exchange):
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1500000\r\n\r\n")
        for _ in range(5):
            exchange.send(b"x" * 300_000)
            exchange.wait(go)
            go.clear()

    with RawNode(halting) as node, proxy(settings(node)) as p, p.client() as client:
        client.send(request())
        client.reader.until(b"\r\n\r\n")
        for _ in range(5):
            begun = time.monotonic()
            client.reader.exactly(300_000)
            waits.append(time.monotonic() - begun)
            go.set()
    assert min(waits[1:]) < 0.1, f"the last segment waits for more: {waits}"


def test_clients_of_http_1_0_do_not_use_up_node_connections():
    coded = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks(b"abc", b"defg")
    with RawNode(coded) as node, proxy(settings(node)) as p:
        for _ in range(3):
            with p.client() as client:
                client.send(request(version="1.0"))
                assert client.response().body == b"abcdefg"
    assert len(node.connections) == 1


def test_more_clients_than_descriptors_wait_and_are_all_served():
    with HttpNode("a") as a, proxy(settings(a)) as p:
        (pid,) = p.worker_pids()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (320, 320))
        assert p.reload(p.config).returncode == 0
        with ThreadPoolExecutor(200) as pool:
            answers = list(pool.map(lambda n: p.get(f"/{n}").status, range(600)))
        assert answers == [200] * 600
