"""One request and its response in a real worker: which objects it holds at each stage, what makes
a node's connection worth keeping, and when a request is sent again.

The stories in tests/proxy tell what clients and nodes see; here the worker's own counters say
what an exchange did."""

import threading
import time
from collections.abc import Iterator

import pytest

from fastlb._core.node import read_slot
from tests.harness import RawNode, Truncated, chunks, reply, request, settings
from tests.harness.node import Exchange
from tests.harness.wait import until
from tests.harness.worker import WorkerProcess, worker


class Stepped(RawNode):
    """A node whose script waits for `go` between its pieces."""

    def __init__(self, *pieces: bytes):
        super().__init__(self._serve_pieces)
        self.pieces = pieces
        self.go = threading.Semaphore(0)

    def _serve_pieces(self, exchange: Exchange) -> None:
        exchange.read_body()
        for piece in self.pieces:
            assert self.go.acquire(timeout=10)
            exchange.send(piece)


def load(w: WorkerProcess) -> int:
    """Requests in progress on the node, as balancing sees them."""
    return read_slot(w.shared.address(w.shared.node_table), 0, 1)["connections"]


# --- what it holds ---


def test_what_an_exchange_holds_while_it_waits() -> None:
    with Stepped(reply(200, b"x" * 10)[:-10], b"x" * 10) as a, worker(settings(a)) as w:
        with w.client() as client:
            client.send(request("/"))
            a.wait_requests(1)
            # The request's head, for a repetition and for the log.
            w.wait_objects(exchanges=1, node_connections=1, buffers=1)
            assert load(w) == 1
            a.go.release()
            until(lambda: w.server_stats()["requests"] == 0 and _read(client), "the head")
            w.wait_objects(exchanges=1, buffers=1)
            a.go.release()
            w.wait_objects(exchanges=0, buffers=0, node_connections=1, pipes=0)
            assert load(w) == 0
            assert w.node_stats()["idle"] == 1


def _read(client) -> bool:
    return b"\r\n\r\n" in client.reader.buffer or client.reader.more()


def test_waiting_for_the_clients_body_holds_only_the_head() -> None:
    with RawNode(reply(200, b"ok")) as a, worker(settings(a)) as w, w.client() as client:
        data = request("/", method="POST", body=b"b" * 50_000)
        client.send(data[:-25_000])
        a.wait_requests(1)
        w.wait_objects(exchanges=1, buffers=1)
        client.send(data[-25_000:])
        assert client.response().status == 200
        w.wait_objects(exchanges=0, buffers=0)


def test_pipes_go_back_after_a_large_body() -> None:
    with RawNode(reply(200, bytes(1 << 20))) as a, worker(settings(a)) as w:
        assert len(w.ask().body) == 1 << 20
        w.wait_objects(exchanges=0, buffers=0, pipes=0)


def test_tunnel_holds_its_head_only() -> None:
    switch = b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"

    def script(exchange: Exchange) -> None:
        exchange.send(switch)
        while exchange.connection.reader.more():
            exchange.send(exchange.connection.reader.buffer)
            exchange.connection.reader.buffer = b""
        exchange.close()

    with RawNode(script) as a, worker(settings(a)) as w, w.client() as client:
        client.send(request("/", ("Connection", "upgrade"), ("Upgrade", "echo")))
        assert client.response().status == 101
        client.send(b"hello")
        assert client.reader.exactly(5) == b"hello"
        w.wait_objects(exchanges=1, buffers=1, pipes=0)
        assert load(w) == 1
        client.half_close()
        assert client.reader.rest() == b""
        w.wait_objects(exchanges=0, buffers=0, node_connections=0)
        assert load(w) == 0


# --- the node's connection afterwards ---

KEPT = {
    "length": reply(200, b"body"),
    "chunked": reply(200, chunks(b"a", b"b"), ("Transfer-Encoding", "chunked"), length=False),
    "empty": reply(204, b"", length=False),
    "not modified": reply(304, b"", length=False),
    "large": reply(200, bytes(200_000)),
}
NOT_KEPT = {
    "close": reply(200, b"body", ("Connection", "close")),
    "old": reply(200, b"body").replace(b"HTTP/1.1", b"HTTP/1.0"),
    "excess": reply(200, b"body") + b"X",
    "second answer": reply(200, b"body") + reply(200, b"evil"),
    "excess after chunks":
        reply(200, chunks(b"a") + b"X", ("Transfer-Encoding", "chunked"), length=False),
    "excess after 204": reply(204, b"", length=False) + b"X",
}  # fmt: skip


def answers_only(data: bytes):
    def script(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.send(data)

    return script


@pytest.fixture(scope="module")
def picking() -> Iterator[WorkerProcess]:
    """A worker before a node that answers by path, whatever the answer is."""
    cases = {**KEPT, **NOT_KEPT}
    script = {path(name): answers_only(data) for name, data in cases.items()}
    with RawNode(script) as a, worker(settings(a)) as w:
        yield w


def path(case: str) -> str:
    return f"/{case.replace(' ', '-')}"


@pytest.mark.parametrize("case", KEPT)
def test_clean_connection_is_pooled(picking: WorkerProcess, case: str) -> None:
    reuses = picking.node_stats()["reuses"]
    for _ in range(2):
        picking.ask(path(case))
        picking.wait_objects(exchanges=0)
        assert picking.node_stats()["idle"] == 1
    assert picking.node_stats()["reuses"] > reuses


@pytest.mark.parametrize("case", NOT_KEPT)
def test_connection_that_is_not_clean_is_closed(picking: WorkerProcess, case: str) -> None:
    picking.ask(path(case))
    picking.wait_objects(exchanges=0, node_connections=0)
    assert picking.node_stats()["idle"] == 0


@pytest.mark.parametrize("size", [5, 20_000, 100_000])  # one read, several, spliced
def test_excess_that_stays_in_the_socket_is_found(size: int) -> None:
    # Body and excess come in one segment, but a read takes no more than the body's rest: no
    # other edge will tell that there is more.
    head = reply(200, bytes(size))[:-size]
    with Stepped(head, bytes(size) + reply(200, b"for nobody")) as a, worker(settings(a)) as w:
        with w.client() as client:
            client.send(request("/"))
            a.go.release()
            until(lambda: _read(client), "the head")
            with w.frozen():
                a.go.release()
                until(lambda: _queued(a) >= 0, "sent")
            assert client.response().body == bytes(size)
        w.wait_objects(exchanges=0)
        until(lambda: w.objects["node_connections"] == 0, "the connection closed")
        assert w.node_stats()["idle"] == 0


def _queued(node: Stepped) -> int:
    """0 once the script has sent all of its pieces."""
    return 0 if node.go._value == 0 else -1


# --- tries ---


def test_pooled_connection_that_the_node_closed_is_not_the_requests_fault() -> None:
    closing = threading.Event()

    def script(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.send(reply(200, b"ok"))
        if not closing.is_set():
            closing.set()
            exchange.close()

    with RawNode(script) as a, worker(settings(a)) as w:
        assert w.ask().status == 200
        w.wait_objects(exchanges=0, node_connections=0)
        assert w.ask().status == 200
        assert w.stats["causes"] == {}


def test_lost_on_a_pooled_connection_is_sent_again() -> None:
    def script(exchange: Exchange) -> None:
        exchange.read_body()
        if len(exchange.connection.requests) == 2:
            exchange.close()  # instead of an answer
        else:
            exchange.send(reply(200, b"ok"))

    with RawNode(script) as a, worker(settings(a)) as w, w.client() as client:
        assert client.ask().status == 200
        w.wait_objects(exchanges=0)
        assert client.ask("/again").status == 200
        assert w.stats["retries"] == 1
        assert [message.target for message in a.requests] == [b"/", b"/again", b"/again"]


def test_post_that_was_lost_is_not_sent_again() -> None:
    def script(exchange: Exchange) -> None:
        exchange.read_body()
        if exchange.request.method == b"POST":
            exchange.close()
        else:
            exchange.send(reply(200, b"ok"))

    with RawNode(script) as a, worker(settings(a)) as w, w.client() as client:
        assert client.ask().status == 200
        w.wait_objects(exchanges=0)
        client.send(request("/", method="POST", body=b"pay"))
        assert client.response().status == 502
        assert [message.method for message in a.requests] == [b"GET", b"POST"]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_bytes_that_were_there_before_the_request_are_not_its_answer(method: str) -> None:
    """The request comes in the turn that tells of the bytes. What may be repeated goes out on the
    pooled connection, and again on another one; the rest looks at the socket before."""
    go, gone = threading.Event(), threading.Event()

    def script(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.send(reply(200, exchange.request.target))
        if exchange.request.target == b"/first":
            exchange.wait(go)
            exchange.send(reply(200, b"unasked"))
            gone.set()

    with RawNode(script) as a, worker(settings(a)) as w, w.client() as client:
        assert client.ask("/first").body == b"/first"
        w.wait_objects(exchanges=0)
        with w.frozen():
            client.send(request("/second", method=method, body=b"" if method == "GET" else b"pay"))
            go.set()
            assert gone.wait(10)
        assert client.response().body == b"/second"


def test_failed_tries_leave_no_load() -> None:
    with RawNode() as a:
        config = settings(a)
        a.stop()
        with worker(config) as w:
            assert w.ask().status == 503
            assert load(w) == 0
            w.wait_objects(exchanges=0, node_connections=0, buffers=0)
            assert w.node_stats()["connect_failures"] >= 1
            assert w.stats["causes"] == {"connect-failed": 1}


# --- what it is for ---


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE"])
def test_one_that_must_not_go_further_ends_here(method: str) -> None:
    with RawNode() as a, worker(settings(a)) as w, w.client() as client:
        for left, status in (("0", 501), ("1", 200), ("0", 501)):
            assert client.ask("/", ("Max-Forwards", left), method=method).status == status
        assert [message.get("Max-Forwards") for message in a.requests] == [b"0"]
        assert w.node_stats()["errors"] == 0


def test_a_target_without_a_path_has_the_shortest_one() -> None:
    with RawNode(reply(200, b"web")) as a, RawNode(reply(200, b"api")) as b:
        routes = [{"host": "api.test", "path": "/", "pool": "api"}]
        config = settings(a, server={"routes": routes})
        config["pools"]["api"] = {"nodes": [b.address]}
        with worker(config) as w, w.client() as client:
            for target in ("", "?x", "/", "/x"):
                client.send(f"GET http://api.test{target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                assert client.response().body == b"api"
                assert b.requests[-1].target.decode() == f"http://api.test{target}"
            assert client.ask("/").body == b"web"


# --- aborts ---


def test_client_that_leaves_takes_the_nodes_connection_along() -> None:
    with Stepped(reply(200, b"late")) as a, worker(settings(a)) as w:
        client = w.client()
        client.send(request("/"))
        a.wait_requests(1)
        client.reset()
        w.wait_objects(clients=0, exchanges=0, node_connections=0, buffers=0)
        assert load(w) == 0
        assert w.stats["causes"] == {"client-closed": 1}
        a.go.release()


@pytest.mark.parametrize("when", ["at once", "while it waits", "with its body"])
def test_so_does_one_that_closes_its_connection(when: str) -> None:
    """Which looks like the end of what it has to say, until it is sent something."""
    body = b"x" * 40_000 if when == "with its body" else b""
    with Stepped(reply(200, b"late")) as a, worker(settings(a)) as w:
        client = w.client()
        client.send(request("/", method="PUT", body=body))
        if when != "at once":
            a.wait_requests(1)
        client.sock.close()
        until(lambda: w.stats["causes"] == {"client-closed": 1}, "its end noticed")
        w.wait_objects(clients=0, exchanges=0, node_connections=0, buffers=0)
        assert load(w) == 0
        a.go.release()


def test_one_that_has_only_finished_sending_is_asked_and_answered() -> None:
    with Stepped(reply(200, b"late")) as a, worker(settings(a)) as w:
        with w.client() as new, w.client() as old, w.client() as brisk:
            for client, version in (new, "1.1"), (old, "1.0"), (brisk, "1.1"):
                client.send(request("/", version=version))
            a.wait_requests(3)
            new.half_close()
            old.half_close()
            assert new.reader.until(b"\r\n\r\n").startswith(b"HTTP/1.1 100 Continue")
            brisk.half_close()  # its answer comes before it would be asked
            for _ in range(3):
                a.go.release()
            for client in (new, old, brisk):
                rest = client.reader.rest()
                assert rest.startswith(b"HTTP/1.1 200 ")
                assert rest.endswith(b"late")
        w.wait_objects(clients=0, exchanges=0)


def test_nobody_is_asked_while_the_answer_comes() -> None:
    """Nor does the time that was set for it end the answer."""
    head, rest = reply(200, b"late")[:-4], b"late"
    with Stepped(head, rest) as a, worker(settings(a)) as w, w.client() as client:
        client.send(request("/"))
        client.half_close()
        a.go.release()
        assert client.reader.until(b"\r\n\r\n") in (head, b"HTTP/1.1 100 Continue\r\n\r\n")
        time.sleep(0.6)
        a.go.release()
        assert client.reader.rest().endswith(rest)
        assert w.stats["causes"] == {}


def test_answer_that_breaks_off_ends_where_it_does() -> None:
    def script(exchange: Exchange) -> None:
        exchange.send(reply(200, b"half of it")[:-3])
        exchange.close()

    with RawNode(script) as a, worker(settings(a)) as w, w.client() as client:
        client.send(request("/"))
        with pytest.raises(Truncated) as ending:
            client.response()
        assert ending.value.got == b"half of"
        assert w.stats["causes"] == {"node-closed": 1}


def test_answer_before_the_body_is_whole_closes_the_client() -> None:
    with RawNode(lambda exchange: (exchange.send(reply(413, b"no")), exchange.read_rest())) as a:
        with worker(settings(a)) as w, w.client() as client:
            client.send(request("/", method="POST", body=bytes(50_000))[:-10])
            answer = client.response()
            assert (answer.status, answer.get("Connection")) == (413, b"close")
            client.expect_closed()
            w.wait_objects(exchanges=0, node_connections=0, buffers=0)
